"""The grouped phase scan of one token a row, in place: no sort, and a cost that depends on no group's number."""

from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from seqbench_kernels.dispatch import REFERENCE
from seqbench_kernels.phase_scan import triton_path
from seqbench_kernels.phase_scan.dispatch import OPERATION
from seqbench_kernels.phase_scan.reference import phase_scan_plain
from seqbench_kernels.phase_scan.turns import write_packed_steps, write_radians


class Buffers(Protocol):
    """Gives memory by name; the same name may give the same memory at the next call."""

    def __call__(self, name: str, *shape: int, dtype: torch.dtype) -> Tensor:
        """An uninitialised, contiguous tensor."""


def phase_step_(table: Tensor, increments: Tensor, groups: Tensor, buffer: Buffers | None = None) -> Tensor:
    """`phase_scan` of length 1 without gradients: adds each row's increment to its group and returns the sum.

    Args:
        table: (batch, groups, channels) int32 steps of 2^-32 turns, contiguous; updated in place.
        increments: (batch, channels) radians.
        groups: (batch,) int64; the number of groups itself marks padding, which changes nothing.
        buffer: where the result and intermediate ones go; None allocates them.

    Returns:
        (batch, channels) fp32 radians in [0, 2 pi], zero at padding: the bits that `phase_scan` gives on that path.

    Raises:
        RuntimeError: when gradients are on and an increment needs one, or the table is not contiguous.
        UnknownPathError: when the path that was asked for (seqbench_kernels.dispatch) cannot serve.
    """
    if torch.is_grad_enabled() and increments.requires_grad:
        raise RuntimeError("phase_step_ changes its table in place and has no gradient: use phase_scan")
    if not table.is_contiguous():
        raise RuntimeError("phase_step_ needs a contiguous table, which it changes in place")
    path = OPERATION.choose(increments.device, increments.dtype)
    if path == REFERENCE:
        return _step_by_scan(table, increments, groups)
    buffer = buffer or partial(_fresh, increments.device)
    phases = buffer("phase step radians", *increments.shape, dtype=torch.float32)
    if path == "triton":
        triton_path.step_(table, increments.contiguous(), groups.contiguous(), phases)
    else:
        _step_by_index(table, increments, groups, phases, buffer)
    return phases


def _fresh(device: torch.device, name: str, *shape: int, dtype: torch.dtype) -> Tensor:
    del name
    return torch.empty(shape, dtype=dtype, device=device)


def _step_by_index(table: Tensor, increments: Tensor, groups: Tensor, phases: Tensor, buffer: Buffers) -> None:
    batch, number_of_groups, channels = table.shape
    wide = buffer("phase step wide", batch, channels, dtype=torch.float64)
    steps = buffer("phase step steps", batch, channels, dtype=torch.int32)
    write_packed_steps(increments, wide, steps)
    # Padding adds zero to the last group. Nobody is asked whether there is any: that would wait for the device.
    padding = torch.ge(groups, number_of_groups, out=buffer("phase step padding", batch, dtype=torch.bool)).unsqueeze(1)
    steps.masked_fill_(padding, 0)
    place = torch.clamp(groups, max=number_of_groups - 1, out=buffer("phase step place", batch, dtype=torch.int64))
    first = buffer("phase step first places", batch, dtype=torch.int64)
    place.add_(torch.arange(0, batch * number_of_groups, number_of_groups, out=first))
    rows = table.view(-1, channels)
    before = buffer("phase step before", batch, channels, dtype=torch.int32)
    steps.add_(torch.index_select(rows, 0, place, out=before))
    rows.index_copy_(0, place, steps)
    write_radians(steps, wide, phases)
    phases.masked_fill_(padding, 0)


def _step_by_scan(table: Tensor, increments: Tensor, groups: Tensor) -> Tensor:
    phases, final = phase_scan_plain(increments.unsqueeze(1), groups.unsqueeze(1), table.shape[1], table)
    table.copy_(final)
    return phases.squeeze(1).float()
