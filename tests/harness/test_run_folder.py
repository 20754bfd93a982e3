"""The folder of a run: never somebody else's, one process at a time, and a log that holds whole lines."""

import errno
import fcntl
import os
import subprocess
import sys
import threading
import time

import pytest
from stored_run import DIGITS, OTHER_RUN, RUN, evaluation, log_lines, opened, train

from seqbench.errors import Busy, RequestError
from seqbench.store.files import remove_folder
from seqbench.store.lock import acquire
from seqbench.store.run_folder import RunFolder


@pytest.fixture
def folder(tmp_path):
    return opened(tmp_path / "deep" / "run")


def test_a_run_folder_is_made_with_its_parents_and_entered_again(folder):
    folder.open(RUN, {"threads": 2})
    assert folder.read_run() == RUN
    assert folder.read_result() is None


def test_a_folder_with_another_run_is_refused_and_left_alone(folder):
    with pytest.raises(RequestError, match=rf"holds another run \(toy on recall, seed 0, {DIGITS}\), not .* seed 7"):
        folder.open(OTHER_RUN, {})
    assert folder.read_run() == RUN


def test_a_folder_with_something_else_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("do not touch")
    folder = RunFolder(tmp_path)
    with pytest.raises(RequestError, match="is not empty and holds no run"), folder.locked():
        folder.open(RUN, {})
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("content", ["[]", "{}", '{"hash": "x"}', "not json", "", "null"])
def test_a_run_json_of_another_program_is_refused(tmp_path, content):
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(RequestError, match=r"run\.json"):
        RunFolder(tmp_path).open(RUN, {})
    assert (tmp_path / "run.json").read_text() == content


def test_a_refused_request_leaves_no_new_folder(tmp_path):
    with pytest.raises(RequestError, match="too large"), RunFolder(tmp_path / "run").locked():
        raise RequestError("too large")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("place", ["below a file", "a file", "the kernel's", "too long"])
def test_a_place_that_cannot_be_written_is_refused(tmp_path, place):
    """The tests may run with every permission: places that even then cannot be written."""
    (tmp_path / "file").write_text("")
    path = {
        "below a file": tmp_path / "file" / "run",
        "a file": tmp_path / "file",
        "the kernel's": tmp_path.__class__("/proc/run"),
        "too long": tmp_path / ("x" * 300),
    }[place]
    if place == "the kernel's" and not sys.platform.startswith("linux"):
        pytest.skip("/proc is Linux's")
    with pytest.raises(RequestError, match=r"cannot write to .*\n.*--output"), RunFolder(path).locked():
        pass
    with pytest.raises(RequestError, match=r"cannot write to|cannot be read"):
        RunFolder(path).open(RUN, {})


def test_two_processes_do_not_work_in_one_folder(folder):
    holder = (
        "import fcntl, sys; lock = open(sys.argv[1], 'a'); fcntl.flock(lock, fcntl.LOCK_EX);"
        " print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", holder, str(folder.path / ".lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(RequestError, match="another bench process is at work"), folder.locked():
            pass
        process.stdin.close()
        process.wait()
    with folder.locked():
        pass


def test_whoever_only_looks_refuses_nobody(folder):
    """`bench runs` asks whether a run is at work by holding its lock for a moment."""
    lock = (folder.path / ".lock").open("a")
    fcntl.flock(lock, fcntl.LOCK_SH)
    threading.Timer(0.2, lock.close).start()
    with folder.locked():
        assert lock.closed


def test_a_lock_ends_with_its_process_also_by_kill_9(folder):
    holder = (
        "import sys; from pathlib import Path; from seqbench.store.lock import acquire;"
        " lock = acquire(Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", holder, str(folder.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        assert folder.is_locked()
        process.kill()
        process.wait()
    assert not folder.is_locked()
    with folder.locked():
        assert folder.is_locked()


def test_a_lock_on_a_folder_that_was_removed_and_made_again_is_no_lock(tmp_path):
    """Who waited for the old folder's lock must not work beside who has the new folder's."""
    folder = RunFolder(tmp_path / "run")
    folder.open(RUN, {})
    waiting = threading.Thread(target=lambda: held.append(acquire(folder.path)))
    held = []
    with folder.locked():
        waiting.start()
        time.sleep(0.1)
        remove_folder(folder.path)
    waiting.join()
    assert folder.is_locked()
    with pytest.raises(Busy), folder.locked():
        pass
    held[0].close()


def test_a_line_that_does_not_fit_on_the_disk_is_not_half_in_the_log(folder, monkeypatch):
    log_lines(folder, train(1))
    write, calls = os.write, []

    def half(descriptor, content):
        calls.append(content)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, content[: len(content) // 2])

    monkeypatch.setattr(os, "write", half)
    with pytest.raises(OSError, match="No space left"):
        folder.log(train(2))
    monkeypatch.undo()
    log_lines(folder, train(3))
    assert [row["step"] for row in folder.read_log()] == [1, 3]


def test_the_log_goes_back_to_the_checkpoint_that_a_run_goes_on_from(folder):
    rows = [train(2, losses=[3, 2]), evaluation(2), train(4, losses=[2, 1]), evaluation(4)]
    log_lines(folder, *rows, train(6))
    metrics = folder.path / "metrics.jsonl"
    metrics.write_text(metrics.read_text() + '{"kind": "train", "st')
    folder.rewind_metrics(4)
    # The evaluation at step 4 came after the checkpoint and will be made again.
    assert folder.read_log() == rows[:3]
    log_lines(folder, train(6))
    assert folder.read_log() == [*rows[:3], train(6)]
