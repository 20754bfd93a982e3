"""The Triton path of the grouped phase scan compiles for GPUs, and where one is, equals the definition there."""

import math

import pytest
import torch
from aot_compilation import assert_fits, compiling_for
from fresh_memory import filled_with_nan
from model_support import circular_difference, largest_difference, normal
from test_phase_scan import REQUIRED, case, gradients, long_increments

from seqbench_kernels.phase_scan import (
    pack_steps,
    phase_scan,
    phase_scan_plain,
    phase_scan_reference,
    phase_step_,
    radians_to_steps,
    steps_to_radians,
    triton_path,
)

KERNELS = {"chunk_steps", "group_phases", "chunk_gradients", "group_gradients", "step"}


@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.bfloat16, marks=pytest.mark.slow)])
def test_the_kernels_compile_for_gpus(dtype: torch.dtype, capability: int) -> None:
    increments = torch.zeros(1, 70, 2048, dtype=dtype)
    groups = torch.zeros(1, 70, dtype=torch.int64)
    with compiling_for(capability) as launches:
        triton_path.scan(increments, groups, 16, None)
        for scaled in (False, True):
            triton_path.scan_gradient(increments, groups, 16, scaled, True)
        table = torch.zeros(1, 16, 2048, dtype=torch.int32)
        triton_path.step_(table, increments[:, 0], groups[:, 0], torch.empty(1, 2048))
    assert {launch.name for launch in launches} == KERNELS
    assert_fits(launches, capability)
    for launch in launches:
        # A few bytes are the frame of a call; a spilled block would take hundreds.
        assert launch.resources()["STACK"] <= 64, (launch.name, launch.resources())


@pytest.mark.gpu
@pytest.mark.parametrize("size", [(1, 1, 1, 1), (2, 63, 60, 3), (3, 33, 5, 70), (2, 300, 260, 4), (1, 2048, 2048, 64)])
def test_compiled_phases_and_gradients_are_those_of_the_definition(size: tuple[int, ...]) -> None:
    increments, chosen, initial, weights = (tensor.cuda() for tensor in case(*size))
    groups = size[3]
    start = pack_steps(radians_to_steps(initial))
    with filled_with_nan():
        phases, table = phase_scan(increments, chosen, groups, start)
        own = gradients(lambda d, s: phase_scan(d, chosen, groups, s, True), weights, [increments, initial])
    expected, expected_table = phase_scan_plain(increments, chosen, groups, start)
    assert circular_difference(phases, expected) < 1e-6
    assert circular_difference(steps_to_radians(table.long()), steps_to_radians(expected_table.long())) < 1e-6
    exact = gradients(
        lambda d, s: phase_scan_plain(d, chosen, groups, s, True),
        weights.double(),
        [increments.double(), initial.double()],
    )
    for actual, wanted in zip(own, exact, strict=True):
        assert largest_difference(actual, wanted) < 1e-5 * max(1.0, wanted.abs().max().item())
    # The same bits as on a CPU.
    assert torch.equal(table.cpu(), phase_scan(increments.cpu(), chosen.cpu(), groups, start.cpu())[1])


@pytest.mark.gpu
def test_compiled_scans_of_a_million_tokens_stay_within_the_required_phase_error() -> None:
    increments = long_increments(2**20, 64).cuda()
    phases, table = phase_scan(increments, None, 1)
    assert circular_difference(phases, increments.double().cumsum(dim=1)) < REQUIRED
    state = torch.zeros_like(table)
    group = torch.zeros(1, dtype=torch.int64, device="cuda")
    for token in increments.split(1, dim=1):
        last = phase_step_(state, token[:, 0], group)
    assert torch.equal(state, table) and torch.equal(last, phases[:, -1])


@pytest.mark.gpu
def test_compiled_the_way_from_the_initial_table_to_the_last_phase_is_the_identity() -> None:
    increments, reader = long_increments(100_000, 3).cuda(), normal(1, 1, 3, seed=5).cuda()
    initial = torch.rand(1, 1, 3, device="cuda").requires_grad_()
    phases, _ = phase_scan(increments, None, 1, initial, True)
    (phases[:, -1:] * reader).sum().backward()
    assert torch.equal(initial.grad, reader)


@pytest.mark.gpu
def test_compiled_steps_are_those_of_the_reference() -> None:
    increments, chosen, initial, _ = (tensor.cuda() for tensor in case(70, 1, 300, 5))
    table = pack_steps(radians_to_steps(initial))
    expected, _ = phase_scan_reference(increments, chosen, 5, initial)
    phases = phase_step_(table, increments[:, 0], chosen[:, 0])
    assert circular_difference(phases, expected[:, 0]) < 1e-6
    assert phases.max() <= 2 * math.pi + 1e-6
