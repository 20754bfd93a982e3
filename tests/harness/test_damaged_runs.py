"""A slice of tests/campaigns/damaged_runs.py: the commands on runs whose files were damaged, in this process."""

import json
import os
import shutil
from pathlib import Path

import pytest
from damages import TOY, command, copied, figures, structures
from matplotlib.figure import Figure
from stored_grid import store_grid
from stored_run import cover, edit

from seqbench.planning.request import RunRequest
from seqbench.store.checksums import CHECKSUMS
from seqbench.store.run_folder import RunFolder
from seqbench.store.sealed import unsealed

# Every kind once, on files that are read in different ways; the campaign tries all on all.
SLICE = {
    "result.json": ("nested", "pipe", "half"),
    "metrics.jsonl": ("folder", "link loop", "missing"),
    "items.jsonl": ("missing", "link to /dev/zero"),
    "environment.json": ("null", "many digits"),
    "run.json": ("folder", "no UTF-8", "name twice"),
    CHECKSUMS: ("missing", "empty", "line ends of Windows"),
}
FLIPPED = ("result.json", "items.jsonl", "metrics.jsonl", "environment.json", CHECKSUMS)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with one finished run."""
    store = tmp_path_factory.mktemp("damages") / "whole"
    store_grid([RunRequest("toy_model:Neighbour", "toy_task:Recall")], 1, store)
    return store


@pytest.fixture(autouse=True)
def without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than everything else here."""
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, **options: Path(path).write_bytes(b""))


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    """The folder of the run in a copy of the store."""
    [folder] = copied(whole, tmp_path / "store").glob("*/*")
    return folder


def again(run: Path) -> tuple[object, str]:
    """What the run's own command answers, and tells."""
    said = command("run", *TOY, "--runs", str(run.parents[1]), "--json")
    assert not said.died and said.code == 0, said
    return figures(said.out), said.err


def state(run: Path) -> tuple[str, str]:
    said = command("runs", "--runs", str(run.parents[1]), "--json")
    assert not said.died and said.code == 0, said
    [row] = json.loads(said.out)
    return row["state"], row["detail"]


@pytest.mark.parametrize(("name", "what"), [(name, what) for name, kinds in SLICE.items() for what in kinds])
def test_a_damaged_file_is_named_by_every_command_and_made_again(whole: Path, run: Path, name: str, what: str) -> None:
    [damage] = [each for each in structures(name != CHECKSUMS) if each.what == what]
    expected, _ = again(run)
    damage.apply(run / name)
    shown = command("show", str(run))
    assert not shown.died and (shown.code, shown.out) == (2, ""), shown
    assert str(run / name) in shown.err
    assert state(run)[0] == "damaged"
    answer, told = again(run)
    assert answer == expected
    assert name in told and "damaged" in told
    assert state(run)[0] == "complete"
    assert again(run) == (expected, "")


def test_no_bit_of_what_is_printed_changes_unnoticed(run: Path) -> None:
    folder = RunFolder(run)
    assert list(folder.damages()) == []
    for name in FLIPPED:
        content = (run / name).read_bytes()
        # All places in a byte in turn; the campaign takes more.
        for bit in range(0, 8 * len(content), 61):
            changed = bytearray(content)
            changed[bit // 8] ^= 1 << bit % 8
            (run / name).write_bytes(changed)
            # Checksums of weights are of no figure that is printed.
            assert any(folder.damages() if name == CHECKSUMS else folder.damages_to_result()), (name, bit)
        (run / name).write_bytes(content)


@pytest.mark.parametrize("name", ["result.json", "items.jsonl", "metrics.jsonl", "model/config.json"])
def test_checksums_that_list_less_hide_nothing(run: Path, name: str) -> None:
    sums = run / CHECKSUMS
    sums.write_text("".join(line for line in sums.read_text().splitlines(True) if not line.endswith(f"  {name}\n")))
    [damage, *_] = RunFolder(run).damages()
    assert damage.path == run / name and "does not speak of it" in damage.why
    (run / name).unlink()
    assert any(RunFolder(run).damages()) or name == "result.json"


def test_the_result_of_another_run_is_not_shown_as_that_of_this_one(run: Path) -> None:
    expected, _ = again(run)
    edit(run / "result.json", hash="0" * 64)
    shown = command("show", str(run))
    assert shown.code == 2 and "it is the result of another run" in shown.err
    assert again(run)[0] == expected


def test_what_is_added_to_a_model_is_named_and_taken_out_and_costs_no_training(run: Path) -> None:
    expected, _ = again(run)
    (run / "model" / "model-00002.safetensors").write_bytes(b"more")
    verified = command("verify", str(run), "--runs", str(run.parents[1]), "--json")
    assert verified.code == 1 and "model-00002.safetensors" in verified.out
    answer, told = again(run)
    assert answer == expected and "model-00002.safetensors is damaged" in told
    assert (run / "model" / "model-00002.safetensors.corrupt-1").exists()
    assert command("verify", str(run), "--runs", str(run.parents[1])).code == 0


def test_a_model_that_was_removed_as_a_whole_is_no_damage_and_told(run: Path) -> None:
    for entry in (run / "model").iterdir():
        entry.unlink()
    assert any(RunFolder(run).damages())
    (run / "model").rmdir()
    assert list(RunFolder(run).damages()) == []
    shown = command("show", str(run))
    assert shown.code == 0 and "model/ was removed" in shown.err
    assert state(run)[0] == "complete" and "model/ was removed" in state(run)[1]


def test_a_checkpoint_that_is_damaged_is_named_by_verify(run: Path) -> None:
    [state_file] = run.glob("checkpoints/*/state.json")
    state_file.write_bytes(state_file.read_bytes() + b" ")
    verified = command("verify", str(run), "--runs", str(run.parents[1]), "--json")
    assert verified.code == 1 and "state.json cannot be read" in verified.out


def test_a_run_of_an_earlier_version_is_shown_and_said_to_be_one(run: Path) -> None:
    """It had no checksums on the lines of its log, and none over its log and its environment."""
    result = json.loads((run / "result.json").read_text())
    left_out = [name for name in result.pop("files") if name in ("run.json", "environment.json", "metrics.jsonl")]
    (run / "result.json").write_text(json.dumps(result))
    rows = [unsealed(line) for line in (run / "metrics.jsonl").read_bytes().splitlines()]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    sums = (run / CHECKSUMS).read_text().splitlines(True)
    (run / CHECKSUMS).write_text("".join(line for line in sums if line.split()[1] not in left_out))
    cover(run / "result.json")
    shown = command("show", str(run))
    assert shown.code == 0 and "an older version wrote it" in shown.err and "not covered by checksums" in shown.err
    assert state(run)[0] == "complete" and "an older version wrote it" in state(run)[1]
    assert command("verify", str(run), "--runs", str(run.parents[1])).code == 0


BESIDE = {
    "a pipe for a lock": (".lock", os.mkfifo),
    "a folder for a lock": (".lock", Path.mkdir),
    "a folder of parts": ("evaluation.jsonl", Path.mkdir),
    "nested parts": ("evaluation.jsonl", lambda path: path.write_bytes(b"[" * 100_000 + b"}\n")),
    "a file for a checkpoint": ("checkpoints/step-00000099", lambda path: path.write_bytes(b"")),
    "a dangling link for a checkpoint": ("checkpoints/step-00000099", lambda path: path.symlink_to("nowhere")),
}


@pytest.mark.parametrize("case", BESIDE)
def test_what_lies_in_the_way_of_a_run_that_goes_on_is_named_and_set_aside(run: Path, case: str) -> None:
    expected, _ = again(run)
    (run / "result.json").unlink()
    name, make = BESIDE[case]
    (run / name).unlink(missing_ok=True)
    make(run / name)
    answer, told = again(run)
    assert answer == expected
    assert f"{name} is damaged" in told
    assert os.path.lexists(run / f"{name}.corrupt-1")


def test_checkpoints_that_are_a_file_are_set_aside(run: Path) -> None:
    expected, _ = again(run)
    shutil.rmtree(run / "checkpoints")
    (run / "checkpoints").write_bytes(b"")
    (run / "result.json").unlink()
    answer, told = again(run)
    assert answer == expected and "checkpoints is damaged" in told


def test_a_log_that_ends_before_its_checkpoint_is_named_and_says_so_itself(run: Path) -> None:
    expected, _ = again(run)
    (run / "result.json").unlink()
    lines = (run / "metrics.jsonl").read_bytes().splitlines(True)
    (run / "metrics.jsonl").write_bytes(b"".join(lines[:2]))
    assert state(run)[0] == "damaged" and "lacks lines of" in state(run)[1]
    answer, told = again(run)
    assert answer == expected and "steps are missing" in told
    assert [row["kind"] for row in RunFolder(run).read_log()].count("damage") == 1
