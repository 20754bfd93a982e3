"""One cell that cannot be measured, while the others are."""

import ctypes
import gc
import sys
from contextlib import suppress

import torch

from seqbench.environment import available_bytes
from seqbench.training.gradients import is_out_of_memory

_USABLE_SHARE = 0.9


class NotRun(Exception):
    """A cell that is not begun, and why."""


def describe_failure(error: BaseException) -> str:
    """The error in one line."""
    first = (str(error).strip().splitlines() or [""])[0]
    text = f"{type(error).__name__}: {first}" if first else type(error).__name__
    return f"out of memory ({text})" if is_out_of_memory(error) else text


def release(device: torch.device) -> None:
    """Give memory back that passes have left; to be called outside a handler, whose traceback holds it."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif sys.platform.startswith("linux"):
        # The tuned allocator keeps what is freed, and the system would count it as taken.
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)


def room(device: torch.device) -> int:
    """Bytes that a pass may take: not quite all that is available, since estimates miss by a little."""
    release(device)
    return round(_USABLE_SHARE * available_bytes(device))
