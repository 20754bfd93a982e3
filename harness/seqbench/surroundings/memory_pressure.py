"""Who took the memory: whether a kill was the system's for want of it, and what other programs hold."""

import re
import resource
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import torch

_CGROUPS = Path("/sys/fs/cgroup")
_PROC = Path("/proc")

# A process that has held this share of what there is may have been killed for it.
_NEAR = 0.9
# Seconds between the count of a kill for memory and the end of the process, which has its memory to give back first.
_DYING_SECONDS = 10.0
# What other programs hold of a device beside drivers and contexts counts from this share on.
_FOREIGN_SHARE = 0.05

_TRIED = re.compile(r"tried to allocate (\d+) bytes")


def memory_limit() -> int:
    """Bytes that this process and its children may hold: of the machine, or of the control group that it is in."""
    limits = [psutil.virtual_memory().total]
    for folder in _memory_groups():
        for name in ("memory.max", "memory.limit_in_bytes"):
            # "max" stands for none.
            with suppress(OSError, ValueError):
                limits.append(int((folder / name).read_text()))
    return min(limits)


def kills_for_memory() -> int:
    """How many processes of this control group the system has killed for want of memory; 0 where it does not tell."""
    # The innermost group that tells: those further out count what is not ours too, the machine's own count all.
    places = [folder / name for folder in _memory_groups() for name in ("memory.events", "memory.oom_control")]
    counts = map(_count, [*places, _PROC / "vmstat"])
    return next((count for count in counts if count is not None), 0)


class KillsForMemory:
    """Tells whether a process that was killed was killed by the system for want of memory.

    Each kill that the system counts explains one process.
    """

    def __init__(self) -> None:
        self._known = kills_for_memory()
        self._unexplained: list[float] = []

    def look(self) -> None:
        """To be called often: a kill is counted before its process has ended."""
        count, now = kills_for_memory(), time.monotonic()
        self._unexplained += [now] * (count - self._known)
        self._known = count
        self._unexplained = [seen for seen in self._unexplained if now - seen < _DYING_SECONDS]

    def explain_one(self) -> bool:
        """Whether a kill was counted that no process has been explained with."""
        self.look()
        if not self._unexplained:
            return False
        self._unexplained.pop(0)
        return True


def held_nearly_all(peak: int, available: int) -> bool:
    """Whether a process held so much at its peak, in bytes, that it may have been killed for it.

    `available` is what there was when it began.
    """
    return peak >= _NEAR * min(available, memory_limit())


def peak_bytes(process: int) -> int:
    """The most memory that a living process has held; 0 where that cannot be found out."""
    with suppress(OSError, ValueError, IndexError):
        for line in (_PROC / str(process) / "status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


def others_hold_it(error: BaseException, device: torch.device) -> bool:
    """Whether memory ran out because other programs hold what this one would have found room in."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return total - free - torch.cuda.memory_reserved(device) > _FOREIGN_SHARE * total + _context_bytes(device)
    tried = _TRIED.search(str(error))
    if tried is None or _is_limited():
        return False
    return psutil.Process().memory_info().rss + int(tried[1]) < _NEAR * memory_limit()


def total_bytes(device: torch.device) -> int:
    """Memory that a run could take on the device if nothing else were at work there."""
    return torch.cuda.mem_get_info(device)[1] if device.type == "cuda" else memory_limit()


def _context_bytes(device: torch.device) -> int:
    """What CUDA itself holds for this process, kernels included: at most a GiB was seen."""
    del device
    return 2**30


def _is_limited() -> bool:
    """Whether this process may take less address space than it likes (`ulimit -v`)."""
    return resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY


def _memory_groups() -> Iterator[Path]:
    """The control groups of this process that count memory, from the innermost one outwards."""
    try:
        lines = (_PROC / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and "memory" not in controllers.split(","):
            continue
        # Inside a container the path may be that of the machine, and its root the container's own group.
        root = _CGROUPS / "memory" if controllers else _CGROUPS
        place = root / path.lstrip("/")
        while place.is_relative_to(root):
            if place.is_dir():
                yield place
            if place == root:
                break
            place = place.parent


def _count(path: Path) -> int | None:
    """What a file of counts says of kills for memory; None where it says nothing."""
    with suppress(OSError, ValueError, IndexError):
        for line in path.read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return None
