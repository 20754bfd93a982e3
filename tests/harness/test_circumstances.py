"""What surrounds a run is no result of it: told apart from failures, counted, and tried again by the same command."""

import errno
import os
import signal
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from seqbench.errors import Circumstance, RunFailure
from seqbench.surroundings import memory_pressure
from seqbench.surroundings.circumstances import circumstance_of, is_crash, signal_name, told_in


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


CIRCUMSTANCES = {
    "a full disk": (OSError(errno.ENOSPC, "No space left on device"), "no-room"),
    "a spent quota": (OSError(errno.EDQUOT, "Disk quota exceeded"), "no-room"),
    "a file that is too large": (OSError(errno.EFBIG, "File too large"), "no-room"),
    "a disk that has become read-only": (OSError(errno.EROFS, "Read-only file system"), "no-room"),
    "a disk that does not answer": (OSError(errno.EIO, "Input/output error"), "no-room"),
    "safetensors": (SafetensorError("Error while serializing: I/O error: File too large (os error 27)"), "no-room"),
    "torch's shared memory": (
        RuntimeError("unable to open </torch_1>: No space left on device (28)"),
        "no-room",
    ),
    "a wrapped error": (caused(ValueError("cannot save"), OSError(errno.ENOSPC, "")), "no-room"),
    "no process": (BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), "no-process"),
    "no memory for a fork": (OSError(errno.ENOMEM, "Cannot allocate memory"), "no-process"),
    "no file handle": (OSError(errno.EMFILE, "Too many open files"), "no-process"),
    "no file handle in the system": (OSError(errno.ENFILE, "Too many open files in system"), "no-process"),
    "a library without handles": (ImportError("libtorch.so: Too many open files"), "no-process"),
    "no thread": (RuntimeError("can't start new thread"), "no-process"),
}
FAILURES = {
    "a mistake": ValueError("28 is no room"),
    "a missing file": FileNotFoundError(errno.ENOENT, "No such file or directory"),
    "a file of somebody else's": PermissionError(errno.EACCES, "Permission denied"),
    "divergence": RunFailure("divergence", "the loss is no longer finite"),
    "memory": torch.OutOfMemoryError("tried to allocate 7 PiB"),
    "words that have other meanings": RuntimeError("Cannot allocate memory for a row of width 0"),
    "another number": OSError("os error 2"),
}


@pytest.mark.parametrize("name", CIRCUMSTANCES)
def test_what_the_system_refuses_is_circumstance(name: str) -> None:
    error, reason = CIRCUMSTANCES[name]
    found = circumstance_of(error)
    assert found is not None
    assert found.reason == reason


@pytest.mark.parametrize("name", FAILURES)
def test_what_the_run_does_is_none(name: str) -> None:
    assert circumstance_of(FAILURES[name]) is None


def test_what_was_raised_while_the_disk_was_full_is_told_by_the_disk() -> None:
    def save() -> None:
        try:
            raise OSError(errno.ENOSPC, "No space left on device", "x")
        except OSError:
            raise KeyError("model") from None

    try:
        try:
            raise OSError(errno.ENOSPC, "No space left on device", "x")
        except OSError:
            raise KeyError("model")  # noqa: B904
    except KeyError as error:
        assert str(circumstance_of(error)).startswith("the disk takes nothing more (No space left on device: x)")
    # What the plugin says is not because of the disk is not.
    with pytest.raises(KeyError) as raised:
        save()
    assert circumstance_of(raised.value) is None


def test_the_last_words_of_a_program_tell_of_its_circumstances() -> None:
    assert told_in("step 3\nlibgomp: Thread creation failed: Resource temporarily unavailable\n").reason == "no-process"
    assert told_in("step 3, 100%  loss 3.5\n") is None


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGABRT", "SIGBUS", "SIGFPE", "SIGILL"])
def test_a_process_that_goes_wrong_itself_crashes(name: str) -> None:
    assert is_crash(getattr(signal, name))


@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGHUP", "SIGINT", "SIGXCPU", "SIGXFSZ", "SIGQUIT"])
def test_every_other_signal_comes_from_outside(name: str) -> None:
    assert not is_crash(getattr(signal, name))
    assert signal_name(getattr(signal, name)) == name


def test_a_signal_without_a_name_has_its_number() -> None:
    assert signal_name(40) == "signal 40"


@pytest.fixture
def group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A control group of version 2 that this process seems to be in."""
    monkeypatch.setattr(memory_pressure, "_CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(memory_pressure, "_PROC", tmp_path / "proc")
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "proc" / "self" / "cgroup").write_text("0::/jobs/mine\n")
    inner = tmp_path / "cgroup" / "jobs" / "mine"
    inner.mkdir(parents=True)
    (inner / "memory.events").write_text("low 0\noom 3\noom_kill 2\n")
    (inner.parent / "memory.events").write_text("oom_kill 70\n")
    return inner


def test_each_kill_that_the_system_counts_explains_one_process(group: Path) -> None:
    kills = memory_pressure.KillsForMemory()
    assert not kills.explain_one()
    (group / "memory.events").write_text("oom_kill 4\n")
    assert [kills.explain_one() for _ in range(3)] == [True, True, False]
    (group.parent / "memory.events").write_text("oom_kill 71\n")
    assert not kills.explain_one()


def test_a_kill_that_was_counted_long_ago_explains_nothing(group: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kills = memory_pressure.KillsForMemory()
    (group / "memory.events").write_text("oom_kill 3\n")
    kills.look()
    now = memory_pressure.time.monotonic()
    monkeypatch.setattr(memory_pressure.time, "monotonic", lambda: now + 11)
    assert not kills.explain_one()


def test_control_groups_of_the_first_version_count_too(group: Path, tmp_path: Path) -> None:
    (tmp_path / "proc" / "self" / "cgroup").write_text("5:cpu:/\n4:memory:/jobs\n")
    place = tmp_path / "cgroup" / "memory" / "jobs"
    place.mkdir(parents=True)
    (place / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 9\n")
    (place / "memory.limit_in_bytes").write_text(f"{2**20}\n")
    assert memory_pressure.kills_for_memory() == 9
    assert memory_pressure.memory_limit() == 2**20


def test_without_control_groups_the_machine_counts(group: Path, tmp_path: Path) -> None:
    (tmp_path / "proc" / "self" / "cgroup").unlink()
    (tmp_path / "proc" / "vmstat").write_text("nr_free_pages 1\noom_kill 6\n")
    assert memory_pressure.kills_for_memory() == 6


def test_a_process_that_held_nearly_all_may_have_been_killed_for_it(group: Path) -> None:
    (group / "memory.max").write_text(f"{1000 * 2**20}\n")
    assert memory_pressure.held_nearly_all(901 * 2**20, available=2**40)
    assert not memory_pressure.held_nearly_all(899 * 2**20, available=2**40)
    assert memory_pressure.held_nearly_all(91 * 2**20, available=100 * 2**20)


def test_the_peak_of_a_process_is_read(tmp_path: Path) -> None:
    assert memory_pressure.peak_bytes(os.getpid()) > 2**20
    assert memory_pressure.peak_bytes(2**22 + 1) == 0


def test_an_allocation_that_the_machine_had_room_for_is_the_others_fault() -> None:
    cpu = torch.device("cpu")
    words = "DefaultCPUAllocator: can't allocate memory: you tried to allocate {} bytes. Error code 12"
    assert memory_pressure.others_hold_it(RuntimeError(words.format(2**20)), cpu)
    assert not memory_pressure.others_hold_it(RuntimeError(words.format(2**50)), cpu)
    assert not memory_pressure.others_hold_it(torch.OutOfMemoryError("tried to allocate 7 PiB"), cpu)


def test_every_circumstance_can_be_told_in_words() -> None:
    for reason, words in Circumstance.WORDS.items():
        goes_on = "begins anew" if reason == "removed" else "goes on when that has changed"
        assert str(Circumstance(reason, "detail")) == f"{words} (detail); the same command {goes_on}"
