"""How far tensor memory rises above its level while something runs.

On CUDA the caching allocator keeps the mark. On the CPU torch's profiler records every block that the allocator behind
tensors hands out and takes back, with its address; their running sum is followed in the order of time. It counts the
bytes that were asked for, to the byte; not what the C library rounds them up to, not scratch memory that a library
takes past torch's allocator, and no Python objects. Blocks that were there before and are freed meanwhile do not lower
the level on the CPU; on CUDA they do.
"""

from collections.abc import Callable
from typing import Any

import torch

METHODS = {
    "cuda": "bytes of tensor blocks handed out by torch's caching allocator, at their highest (max_memory_allocated)",
    "cpu": "bytes of tensor blocks handed out by torch's CPU allocator, at their highest (every allocation of the pass"
    " recorded); scratch memory that libraries take past that allocator is not seen",
}


def rise(run: Callable[[], None], device: torch.device) -> int:
    """Bytes by which tensor memory on the device rises at most while `run` runs, above its level before."""
    if device.type == "cuda":
        return _rise_on_cuda(run, device)
    return _rise_on_cpu(run)


def _rise_on_cuda(run: Callable[[], None], device: torch.device) -> int:
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    run()
    torch.cuda.synchronize(device)
    return max(0, torch.cuda.max_memory_allocated(device) - before)


def _rise_on_cpu(run: Callable[[], None]) -> int:
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as recording:
        run()
    return _highest(_allocations(recording))


def _allocations(recording: torch.profiler.profile) -> list[tuple[int, int, int]]:
    """(time in ns, address, bytes) of every block, bytes negative where it is freed.

    From the recorded tree itself, as torch's own memory views take it: the public list of events leaves addresses out
    and takes as long again to make.
    """
    assert recording.profiler is not None and recording.profiler.kineto_results is not None
    waiting = list(reversed(recording.profiler.kineto_results.experimental_event_tree()))
    found = []
    while waiting:
        event = waiting.pop()
        waiting.extend(reversed(event.children))
        if event.tag == torch._C._profiler._EventType.Allocation:
            block: Any = event.extra_fields
            if block.device.type == "cpu":
                found.append((event.start_time_ns, block.ptr, block.alloc_size))
    # Threads have trees of their own.
    return sorted(found, key=lambda block: block[0])


def _highest(blocks: list[tuple[int, int, int]]) -> int:
    """The highest sum of the blocks that are held; a free of what is not known to be held is that of an older block."""
    held: dict[int, int] = {}
    level = highest = 0
    for _, address, size in blocks:
        if size < 0:
            level -= held.pop(address, 0)
            continue
        level += size - held.get(address, 0)
        held[address] = size
        highest = max(highest, level)
    return highest
