"""Ctrl-C, termination and a closed terminal, in every phase: real processes, real signals.

What training saves then, and that a run goes on to the same bits: test_resume.py.
"""

import signal
import time
from pathlib import Path

import psutil
import pytest
from command_line import TOY, Bench, Finished

SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")
NOTHING = "and there was nothing to save"
NO_CHECKPOINT = "before there was a checkpoint to go on from: the next command begins at step 0"
# Place of the toy task -> what is said to be saved.
PHASES = {
    "import:1": NOTHING,
    "plan:1": NOTHING,
    "train:5": "saved in {folder} at step 6",
    "validation:1": "saved in {folder} at step 4",
    "test:1": "saved in {folder} at step 12",
}

# In the place of torch: takes as long to import as on a slow disk.
SLOW_TORCH = """
import pathlib, time
pathlib.Path("importing").touch()
time.sleep(60)
"""


def code_of(name: str) -> int:
    return 128 + getattr(signal, name)


def wait_for(condition, process, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_gone(number: int) -> bool:
    try:
        return psutil.Process(number).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def assert_quiet(finished: Finished) -> None:
    """Nothing on standard output, and no word of Python's or click's."""
    assert finished.out == ""
    assert not any(word in finished.err for word in ("Traceback", "Aborted", "Exception ignored", "KeyboardInterrupt"))


@pytest.mark.parametrize("name", SIGNALS)
@pytest.mark.parametrize("phase", PHASES)
def test_a_signal_in_each_phase_ends_the_command_and_what_it_has_started(bench: Bench, phase: str, name: str) -> None:
    folder = f"{phase.replace(':', '-')}-{name}"
    command = ("run", *TOY, "--set", "evaluation_interval=4", "--output", folder)
    finished = bench(*command, TOY_SIGNAL=f"{name}@{phase}", TOY_WORKER="worker")
    assert finished.code == code_of(name), finished.err
    assert_quiet(finished)
    kept = PHASES[phase].format(folder=folder)
    assert finished.err.splitlines()[-1] == (
        f"bench: stopped by {name}, {kept}; to go on, type: bench {' '.join(command)}"
    )
    assert is_gone(int((bench.folder / "worker").read_text()))


@pytest.mark.parametrize("name", SIGNALS)
def test_a_signal_during_start_up(bench: Bench, tmp_path: Path, name: str) -> None:
    (tmp_path / "torch.py").write_text(SLOW_TORCH)
    (bench.folder / "importing").unlink(missing_ok=True)
    process = bench.start("run", *TOY, PYTHONPATH=str(tmp_path))
    wait_for((bench.folder / "importing").exists, process)
    process.send_signal(getattr(signal, name))
    finished = Finished(process.wait(20), process.stdout.read(), process.stderr.read())
    process.communicate()
    assert finished.code == code_of(name)
    assert_quiet(finished)
    assert finished.err == f"bench: stopped by {name}, {NOTHING}; to go on, type: bench run {' '.join(TOY)}\n"


def stopped_by_itself(bench: Bench, model: str, folder: str) -> Finished:
    """A run of a model that sends its own process SIGTERM."""
    finished = bench("run", "--model", f"toy_stops:{model}", "--task", TOY[3], "--output", folder, TOY_STOPS="SIGTERM")
    assert finished.code == 143, finished.err
    assert_quiet(finished)
    return finished


def test_no_checkpoint_is_promised_before_there_is_one(bench: Bench) -> None:
    """Everything that comes before training, such as the rehearsal, is soon done again."""
    finished = stopped_by_itself(bench, "StopsInRehearsal", "early")
    assert f"stopped by SIGTERM, {NO_CHECKPOINT}; to go on, type: bench run" in finished.err
    assert not (bench.folder / "early" / "checkpoints").exists()


def test_a_signal_that_python_drops_ends_the_command_all_the_same(bench: Bench) -> None:
    """What is raised in a destructor is dropped."""
    finished = stopped_by_itself(bench, "StopsInDestructor", "dropped")
    assert f"stopped by SIGTERM, {NO_CHECKPOINT}" in finished.err


# By Ctrl-C: test_compare.py.
@pytest.mark.parametrize("name", ["SIGTERM", pytest.param("SIGHUP", marks=pytest.mark.slow)])
def test_a_signal_to_the_parent_of_a_grid_leaves_no_child_and_loses_no_step(bench: Bench, name: str) -> None:
    """Two runs side by side; the signal reaches the parent alone."""
    models = "toy_model:Neighbour,toy_model:ShortSighted"
    command = ("compare", "--models", models, "--task", TOY[3], "--seeds", "1", "--jobs", "2", "--runs", name)
    process = bench.start(*command, "--set", "steps=400", TOY_PAUSE="0.3")
    checkpoints = (bench.folder / name).glob
    wait_for(lambda: len({path.parent for path in checkpoints("*/*/checkpoints/step-*[0-9]")}) == 2, process)
    started = [child.pid for child in psutil.Process(process.pid).children(recursive=True)]
    # Two runs and the server that forks them, at least.
    assert len(started) >= 3
    process.send_signal(getattr(signal, name))
    finished = Finished(process.wait(60), process.stdout.read(), process.stderr.read())
    process.communicate()
    assert finished.code == code_of(name), finished.err
    assert_quiet(finished)
    told = finished.err.splitlines()[-1]
    assert told.startswith(f"bench: stopped by {name}, with 0 of 2 runs done and 2 saved in a checkpoint; to go on, ")
    assert told.endswith(f"type: bench {' '.join(command)} --set steps=400")
    # Python's tracker of shared memory notices a little later that nobody is there any more.
    deadline = time.monotonic() + 5
    while (left := [number for number in started if not is_gone(number)]) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert left == []
    # The runs have answered themselves, after a step of their own choice.
    logs = [path.read_text() for path in (bench.folder / name).glob("**/logs/*.txt")]
    assert len(logs) == 2
    assert all(f"stopped by SIGTERM, saved in {name}" in text and "to go on" not in text for text in logs), logs
