"""A store that can only be read, a folder that goes away, plots that are missing, no home: none of them costs a run."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from command_line import TOY, Bench

from seqbench.surroundings import cache_folders
from seqbench.surroundings.cache_folders import provide_cache_folders

PAIR = ("compare", "--models", "toy_model:Neighbour,toy_model:ShortSighted", "--task", "toy_task:Recall")
CAMPAIGNS = Path(__file__).parents[1] / "campaigns"


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """A folder into which nothing can be written, not even by root."""
    subprocess.run(["mount", "--bind", folder, folder], check=True)
    subprocess.run(["mount", "-o", "remount,ro,bind", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.fixture(scope="module")
def store(bench: Bench) -> Path:
    """A store of two runs and their comparison, in the folder `runs`."""
    finished = bench(*PAIR, "--seeds", "1", "--jobs", "1")
    assert finished.code == 0, finished.err
    return bench.folder / "runs"


@pytest.fixture
def only_read(bench: Bench, store: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of the runs, without the comparison, that can only be read."""
    place = Path(shutil.copytree(store, tmp_path / "store"))
    for comparison in place.glob("*/comparison-*"):
        shutil.rmtree(comparison)
    try:
        with read_only(place):
            yield place
    except subprocess.CalledProcessError as error:
        pytest.skip(f"nothing can be mounted here: {error}")


def test_what_is_stored_is_shown_where_nothing_can_be_written(bench: Bench, only_read: Path) -> None:
    run = min(only_read.glob("*/toy_model-Neighbour-*"))
    for command in (
        ("run", *TOY, "--runs", only_read),
        ("show", run),
        ("runs", "--runs", only_read),
        ("verify", run, "--runs", only_read),
    ):
        finished = bench(*map(str, command))
        assert (finished.code, finished.err) == (0, "") or command[0] == "verify", finished.err
        assert finished.code == 0
        assert "accuracy" in finished.out or command[0] == "verify"


def test_a_comparison_of_what_is_stored_is_printed_where_nothing_can_be_written(bench: Bench, only_read: Path) -> None:
    finished = bench(*PAIR, "--seeds", "1", "--runs", str(only_read))
    assert finished.code == 0
    assert "verdicts: first minus second" in finished.out
    assert "tables and plots cannot be written to" in finished.err
    assert "Read-only file system" in finished.err
    named = bench(*PAIR, "--seeds", "1", "--runs", str(only_read), "--output", str(only_read / "here"))
    assert named.code == 2


def test_a_run_that_is_missing_is_refused_where_nothing_can_be_written(bench: Bench, only_read: Path) -> None:
    one = bench("run", *TOY, "--seed", "7", "--runs", str(only_read))
    two = bench(*PAIR, "--seeds", "2", "--runs", str(only_read))
    for finished in (one, two):
        assert finished.code == 2
        assert "Read-only file system" in finished.err
        assert "give a folder that you can write to" in finished.err


def test_damage_in_a_store_that_can_only_be_read_is_told(bench: Bench, store: Path, tmp_path: Path) -> None:
    place = Path(shutil.copytree(store, tmp_path / "store"))
    [items] = place.glob("*/toy_model-Neighbour-*/items.jsonl")
    items.write_bytes(items.read_bytes()[:-9])
    try:
        with read_only(place):
            finished = bench("run", *TOY, "--runs", str(place))
    except subprocess.CalledProcessError as error:
        pytest.skip(f"nothing can be mounted here: {error}")
    assert finished.code == 2
    assert f"{items} cannot be read" in finished.err


def test_a_folder_that_is_removed_under_a_run_is_told_and_made_anew(bench: Bench) -> None:
    folder = bench.folder / "removed"
    for moment in ("train:3", "train:7", "test:1"):
        command = ("run", *TOY, "--output", "removed")
        finished = bench(*command, TOY_STORE=str(folder), TOY_REMOVE=moment)
        assert finished.code == 1
        assert f"the folder was removed ({folder.name} was removed or moved" in finished.err
        assert "Traceback" not in finished.err
        assert not folder.exists()
    again = bench(*command)
    assert again.code == 0
    assert "continues" not in again.err


def test_a_comparison_draws_the_plots_that_a_killed_run_has_not(bench: Bench, store: Path) -> None:
    first, second = sorted(path.parent for path in store.glob("*/*/result.json"))
    whole = {path: path.read_bytes() for path in (first / "plot.png", second / "training.png")}
    (first / "plot.png").unlink()
    (second / "training.png").write_bytes(whole[second / "training.png"][:-9])
    (second / ".plot.4194305.tmp.png").write_bytes(b"half")
    [table] = store.glob("*/comparison-*/table.txt")
    told = table.read_text()
    table.unlink()
    finished = bench(*PAIR, "--seeds", "1")
    assert finished.code == 0
    assert {path: path.read_bytes() for path in whole} == whole
    assert table.read_text() == told
    assert not list(second.glob(".plot*"))


def test_tables_that_find_no_room_are_printed_and_written_later(bench: Bench, store: Path, tmp_path: Path) -> None:
    shutil.copytree(store, tmp_path / "store")
    [folder] = (tmp_path / "store").glob("*/comparison-*")
    shutil.rmtree(folder)
    command = (*PAIR, "--seeds", "1", "--runs", str(tmp_path / "store"))
    finished = bench(*command, TOY_LARGEST_FILE="20000")
    assert finished.code == 1
    assert "tables and plots cannot be written to" in finished.err
    assert "File too large" in finished.err
    assert "Traceback" not in finished.err
    assert "verdicts: first minus second" in finished.out
    assert bench(*command).code == 0
    assert (folder / "plot.svg").exists()


@pytest.fixture
def homeless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user without a home; returns the folder for what is temporary."""

    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", nowhere)
    monkeypatch.setattr(cache_folders.tempfile, "gettempdir", lambda: str(tmp_path))
    return tmp_path


def test_without_a_home_libraries_keep_their_caches_in_a_temporary_folder(homeless: Path) -> None:
    environment: dict[str, str] = {}
    provide_cache_folders(environment)
    [folder] = homeless.iterdir()
    assert environment == {
        "XDG_CACHE_HOME": str(folder),
        "HF_HOME": str(folder / "huggingface"),
        "MPLCONFIGDIR": str(folder / "matplotlib"),
        "TRITON_CACHE_DIR": str(folder / "triton"),
    }
    assert folder.stat().st_mode & 0o777 == 0o700
    again: dict[str, str] = {"HF_HOME": "/data/hub"}
    provide_cache_folders(again)
    assert again == {**environment, "HF_HOME": "/data/hub"}


def test_a_temporary_folder_of_somebody_else_is_not_used(homeless: Path) -> None:
    provide_cache_folders({})
    [folder] = homeless.iterdir()
    folder.chmod(0o777)
    environment: dict[str, str] = {}
    provide_cache_folders(environment)
    assert not environment["HF_HOME"].startswith(f"{folder}/")


def test_where_the_home_can_be_written_nothing_is_changed(tmp_path: Path) -> None:
    environment = {"HOME": str(tmp_path)}
    provide_cache_folders(environment)
    assert environment == {"HOME": str(tmp_path)}


def test_a_cache_that_cannot_be_written_is_replaced_and_what_it_holds_is_still_read(tmp_path: Path) -> None:
    (tmp_path / ".cache").write_text("no folder")
    environment = {"HOME": str(tmp_path)}
    provide_cache_folders(environment)
    assert environment.keys() == {"HOME", "MPLCONFIGDIR"}


@pytest.mark.slow
def test_a_user_without_name_and_home_runs_and_reads(bench: Bench, tmp_path: Path) -> None:
    """In a namespace of users where this one has no entry."""
    start = ["unshare", "--user", "--map-user=12345", "env", "-u", "HOME", "-u", "USER", "-u", "LOGNAME"]
    if subprocess.run([*start, "true"], capture_output=True).returncode != 0:
        pytest.skip("no namespace of users can be made here")
    command = [*start, sys.executable, "-m", "seqbench.cli", "run", "--model", "transformer", "--task", "copy-paste"]
    command += ["--set", "steps=2", "--set", "warmup_steps=1", "--threads", "1", "--runs", "runs"]
    finished = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs"]


@pytest.mark.slow
@pytest.mark.parametrize("campaign", [("kill_storms.py", "--storms", "4"), ("full_disks.py", "--limits", "6")])
def test_a_slice_of_the_campaigns_leaves_the_same_bits(campaign: tuple[str, ...]) -> None:
    name, *options = campaign
    command = [sys.executable, CAMPAIGNS / name, *options, "--seed", "3"]
    finished = subprocess.run(command, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stdout[-3000:] + finished.stderr[-3000:]
    assert f"{options[1]} {'storms' if 'kill' in name else 'limits'}, 0 wrong" in finished.stdout
