"""What paths say about the devices they serve."""

import torch


def cpu_unavailable(device: torch.device, dtype: torch.dtype) -> str | None:
    """The `unavailable` of paths laid out for a CPU's caches, whatever the dtype."""
    del dtype
    return None if device.type == "cpu" else "it is written for CPUs"
