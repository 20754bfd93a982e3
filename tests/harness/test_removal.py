"""Removing runs: nothing but what is provably a run goes, and it goes whole."""

import shutil
import subprocess
import sys

import pytest
from stored_run import NO_PROCESS, RUN, log_lines, opened, train

from seqbench.errors import Busy, RequestError
from seqbench.store.catalogue import stored_runs
from seqbench.store.removal import finish_removals, remove_run


@pytest.fixture
def store(tmp_path):
    return tmp_path / "store"


@pytest.fixture
def run(store):
    folder = opened(store / "task" / f"toy-{RUN['hash'][:8]}")
    log_lines(folder, train(1))
    (folder.path / "plot.png").write_bytes(b"")
    (folder.path / "metrics.jsonl.corrupt-1").write_bytes(b"")
    step = folder.checkpoints / "step-00000001"
    step.mkdir(parents=True)
    (step / "state.json").write_text("{}")
    return folder.path


def test_a_run_is_removed_whole(store, run):
    remove_run(run)
    assert list((store / "task").iterdir()) == []


@pytest.mark.parametrize("content", ["{", "", '{"project": "thesis"}', "[" * 100_000])
def test_a_folder_that_does_not_prove_to_be_a_run_stays(store, content):
    folder = store / "task" / "thesis"
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(content)
    (folder / "thesis.tex").write_text("do not touch")
    assert [found.folder for found in stored_runs(store)] == [folder]
    with pytest.raises(RequestError, match="thesis is not known to be a run of bench"):
        remove_run(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["run.json", "thesis.tex"]


@pytest.mark.parametrize("damage", ["", "{", '{"hash": "x"}'])
def test_a_run_whose_request_is_damaged_is_known_by_its_environment(store, run, damage):
    (run / "run.json").write_text(damage)
    [found] = stored_runs(store)
    assert (found.state, found.hash) == ("damaged", RUN["hash"][:8])
    remove_run(run)
    assert not run.exists()


def test_a_run_without_its_request_is_listed_and_other_folders_are_not(store, run):
    (run / "run.json").unlink()
    (store / "task" / "comparison-12345678").mkdir()
    [found] = stored_runs(store)
    assert found.state == "damaged" and found.detail.endswith("run.json cannot be read: it is missing")


@pytest.mark.parametrize("name", ["notes.txt", "checkpoints/notes.txt", "checkpoints/step-00000001/notes.txt"])
def test_what_somebody_put_there_is_named_and_nothing_goes(run, name):
    before = sorted(run.rglob("*"))
    (run / name).write_text("my notes")
    with pytest.raises(RequestError, match=r"notes\.txt was not written by bench; move it away"):
        remove_run(run)
    assert sorted(run.rglob("*")) == sorted([*before, run / name])


def test_links_lead_to_nothing_being_removed(store, run, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    shutil.move(run, elsewhere)
    run.symlink_to(elsewhere)
    [found] = stored_runs(store)
    with pytest.raises(RequestError, match=r"is a link to .*elsewhere; remove the link, or the run there"):
        remove_run(found.folder)
    assert (elsewhere / "run.json").exists() and run.is_symlink()


def test_a_link_inside_a_run_is_named(run, tmp_path):
    shutil.move(run / "checkpoints", tmp_path / "large disk")
    (run / "checkpoints").symlink_to(tmp_path / "large disk")
    with pytest.raises(RequestError, match="checkpoints was not written by bench"):
        remove_run(run)


def test_a_store_may_be_a_link(store, run, tmp_path):
    (tmp_path / "link").symlink_to(store)
    [found] = stored_runs(tmp_path / "link")
    remove_run(found.folder)
    assert not run.exists() and store.exists()


def test_a_run_at_work_is_not_removed(run):
    holder = "import fcntl, sys; lock = open(sys.argv[1], 'a'); fcntl.flock(lock, 2); print(1, flush=True); input()"
    command = [sys.executable, "-c", holder, str(run / ".lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "1\n"
        with pytest.raises(Busy):
            remove_run(run)
        process.stdin.close()
    assert (run / "run.json").exists()


@pytest.mark.parametrize("left", [None, "checkpoints", "run.json"])
def test_whoever_looks_at_the_store_next_finishes_a_removal_that_was_killed(store, run, left):
    """At its beginning, in the middle, and right before its end."""
    half = run.with_name(f".{run.name}.removed.{NO_PROCESS}.tmp")
    run.rename(half)
    for entry in list(half.iterdir()) if left else ():
        if entry.name not in (left, "run.json"):
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    assert list(stored_runs(store)) == []
    assert list((store / "task").iterdir()) == []


def test_somebody_elses_folder_with_such_a_name_stays(store):
    folder = store / "task" / f".thesis.removed.{NO_PROCESS}.tmp"
    folder.mkdir(parents=True)
    (folder / "thesis.tex").write_text("do not touch")
    finish_removals(folder.parent)
    assert (folder / "thesis.tex").exists()


def test_a_removal_that_is_at_work_is_left_to_it(store, run):
    half = run.with_name(f".{run.name}.removed.{NO_PROCESS}.tmp")
    run.rename(half)
    with opened(half).locked():
        finish_removals(half.parent)
        assert (half / "run.json").exists()
    finish_removals(half.parent)
    assert not half.exists()
