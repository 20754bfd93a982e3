"""Every path of the grouped phase scan keeps the promises of the operation; the Triton path in its interpreter."""

import math

import pytest
import torch
from fresh_memory import filled_with_nan
from model_support import circular_difference, largest_difference, normal
from path_support import on_every_path
from test_phase_scan import REQUIRED, case, gradients, long_increments, radians, scan_in_chunks
from torch import Tensor

from seqbench_kernels.dispatch import UnknownPathError, request_paths
from seqbench_kernels.phase_scan import (
    OPERATION,
    pack_steps,
    phase_scan,
    phase_scan_plain,
    phase_scan_reference,
    phase_step_,
    radians_to_steps,
)

# (batch, length, channels, groups): no multiple of a block, one of each, more groups than tokens, wide rows.
SIZES = [(1, 1, 1, 1), (2, 63, 60, 3), (3, 33, 5, 70)]


def ask(path: str) -> None:
    """From now on; interpreted tests, which share a process, each ask for theirs."""
    request_paths(path)
    assert OPERATION.choose(torch.device("cpu"), torch.float32) == path


def as_wide(channels: int, path: str) -> int:
    """Two blocks of columns show the interpreter, which is slow, as much as ten."""
    return min(channels, 40) if path == "triton" else channels


@on_every_path
@pytest.mark.parametrize("size", SIZES)
def test_phases_table_and_gradients_are_those_of_the_definition(path, size):
    ask(path)
    increments, chosen, initial, weights = case(*size)
    groups = size[3]
    real = chosen < groups
    steps = pack_steps(radians_to_steps(initial))
    expected, expected_table = phase_scan_reference(increments, chosen, groups, initial)
    with filled_with_nan():
        results = [phase_scan(increments, chosen, groups, start) for start in (initial, steps)]
        own = gradients(lambda d, s: phase_scan(d, chosen, groups, s), weights, [increments, initial])
    for phases, table in results:
        assert phases.dtype == torch.float32 and table.dtype == torch.int32
        assert phases.min() >= 0 and phases.max() <= torch.tensor(2 * math.pi, dtype=torch.float32)
        assert (phases[~real] == 0).all()
        assert circular_difference(phases, expected) < 1e-6
        assert circular_difference(radians(table), expected_table) < 1e-6
    wanted = gradients(
        lambda d, s: phase_scan_reference(d, chosen, groups, s),
        weights.double(),
        [increments.double(), initial.double()],
    )
    for actual, exact in zip(own, wanted, strict=True):
        # Of up to 100 terms of size 1, in fp64 or over pairs in fp32.
        assert largest_difference(actual, exact) < 5e-6


@pytest.mark.parametrize("path", ["cpu", "reference"])
def test_wide_rows_over_several_blocks_are_those_of_the_definition(path):
    test_phases_table_and_gradients_are_those_of_the_definition(path, (2, 300, 260, 4))


@on_every_path
@pytest.mark.parametrize("channels", [3, 300])
def test_scaled_gradients_are_those_of_the_plain_scan_in_fp64(path, channels):
    ask(path)
    for groups in (None, torch.randint(0, 5, (2, 37), generator=torch.Generator().manual_seed(1))):
        increments, _, initial, weights = case(2, 37, as_wide(channels, path), 4)
        own = gradients(lambda d, s, g=groups: phase_scan(d, g, 4, s, True), weights, [increments, initial])
        exact = gradients(
            lambda d, s, g=groups: phase_scan_plain(d, g, 4, s, True),
            weights.double(),
            [increments.double(), initial.double()],
        )
        for actual, wanted in zip(own, exact, strict=True):
            assert largest_difference(actual, wanted) < 3e-6


@on_every_path
@pytest.mark.parametrize("channels", [3, 300])
def test_padding_is_inert_whatever_stands_there(path, channels):
    ask(path)
    increments, chosen, initial, weights = case(2, 37, as_wide(channels, path), 4)
    padding = (chosen == 4).unsqueeze(2)

    def everything(increments: Tensor, weights: Tensor) -> list[Tensor]:
        scan = gradients(lambda d, s: phase_scan(d, chosen, 4, s, True), weights, [increments, initial])
        return [*phase_scan(increments, chosen, 4, initial), *scan]

    expected = everything(increments.masked_fill(padding, 0), weights)
    # The definition's autograd multiplies what it masks by zero.
    other = 1e3 if path == "reference" else float("nan")
    actual = everything(increments.masked_fill(padding, float("nan")), weights.masked_fill(padding, other))
    assert all(torch.equal(own, wanted) for own, wanted in zip(actual, expected, strict=True))
    assert (actual[2].masked_select(padding) == 0).all()


@on_every_path
@pytest.mark.parametrize("channels", [3, 300])
def test_a_row_does_not_depend_on_the_others_by_a_single_bit_nor_on_the_repeat(path, channels):
    ask(path)
    channels = as_wide(channels, path)
    increments, chosen, initial, weights = case(3, 37, channels, 4)

    def first_row(increments: Tensor, chosen: Tensor) -> list[Tensor]:
        scan = gradients(lambda d, s: phase_scan(d, chosen, 4, s, True), weights, [increments, initial])
        return [tensor[0] for tensor in (*phase_scan(increments, chosen, 4, initial), *scan)]

    other, elsewhere = increments.clone(), chosen.clone()
    other[1:], elsewhere[1:] = 1e3 * normal(2, 37, channels, seed=7), 0
    expected = first_row(increments, chosen)
    for results in (first_row(other, elsewhere), first_row(increments, chosen)):
        assert all(torch.equal(own, wanted) for own, wanted in zip(results, expected, strict=True))


def check_unitarity(length: int, channels: int) -> None:
    increments, reader = long_increments(length, channels), normal(1, 1, channels, seed=5)
    for scaled in (False, True):
        initial = torch.rand(1, 1, channels).requires_grad_()
        phases, _ = phase_scan(increments, None, 1, initial, scaled)
        (phases[:, -1:] * reader).sum().backward()
        assert torch.equal(initial.grad, reader)


@on_every_path
def test_the_way_from_the_initial_table_to_the_last_phase_is_the_identity(path):
    """dR_T/dS_0: a loss that reads R_T alone gives dL/dS_0 = dL/dR_T bit for bit; 700 steps are 22 chunks."""
    ask(path)
    check_unitarity(700, 3)


@pytest.mark.parametrize("path", ["cpu", "reference"])
def test_the_way_is_the_identity_for_wide_rows_too(path):
    ask(path)
    check_unitarity(5_000, 256)


@pytest.mark.slow
@pytest.mark.parametrize("path", ["cpu", "reference"])
def test_the_way_is_the_identity_at_100_000_steps_of_wide_rows(path):
    ask(path)
    check_unitarity(100_000, 256)


@on_every_path
def test_phases_of_large_sums_are_exact_in_one_call_and_in_chunks(path):
    """A state of a million turns would not survive fp32; 300 tokens from there show it."""
    ask(path)
    increments = long_increments(300)
    chosen = torch.randint(0, 3, (1, 300), generator=torch.Generator().manual_seed(0))
    start = pack_steps(radians_to_steps(torch.full((1, 3, 2), 1e6, dtype=torch.float64)))
    whole, table = phase_scan(increments, chosen, 3, start)
    first, state = phase_scan(increments[:, :133], chosen[:, :133], 3, start)
    second, state = phase_scan(increments[:, 133:], chosen[:, 133:], 3, state)
    for group in range(3):
        own = chosen[0] == group
        assert circular_difference(whole[0, own], 1e6 + increments[0, own].double().cumsum(dim=0)) < 1e-6
    assert circular_difference(torch.cat((first, second), dim=1), whole) < 1e-6
    assert (state - table).abs().max() <= (2 if path == "reference" else 0)


@pytest.mark.slow
@pytest.mark.parametrize("path", ["cpu", "reference"])
def test_a_million_tokens_of_wide_rows_stay_within_the_required_phase_error(path):
    ask(path)
    channels = 256 if path == "cpu" else 1
    increments = long_increments(2**20, 1)
    phases, table = phase_scan(increments.expand(-1, -1, channels), None, 1)
    exact = increments.double().cumsum(dim=1)
    assert circular_difference(phases[..., :1], exact) < REQUIRED
    assert circular_difference(radians(table)[..., :1], exact[:, -1:]) < REQUIRED


@pytest.mark.slow
@pytest.mark.interpreted
def test_a_hundred_thousand_tokens_stay_within_the_required_phase_error_in_the_interpreter():
    """Whole numbers are as exact after a million; interpreted, a million take six minutes."""
    ask("triton")
    increments = long_increments(2**17, 1)
    phases, _ = phase_scan(increments, None, 1)
    assert circular_difference(phases, increments.double().cumsum(dim=1)) < REQUIRED


@on_every_path
def test_rows_cut_at_any_length_give_what_they_give_whole(path):
    ask(path)
    increments, chosen, _, _ = case(2, 90, 3, 5)
    phases, table = phase_scan(increments, chosen, 5)
    own, state = scan_in_chunks(increments, chosen, 5, [1, 31, 2, 33, 23])
    if path == "reference":
        assert circular_difference(own, phases) < 1e-6 and circular_difference(radians(state), radians(table)) < 1e-6
    else:
        assert torch.equal(own, phases) and torch.equal(state, table)


@on_every_path
@pytest.mark.parametrize("size", [(1, 5, 1), (3, 7, 4), (2, 300, 70), (70, 5, 2)])
def test_a_step_in_place_equals_a_scan_of_one_token(path, size):
    ask(path)
    batch, channels, groups = size
    increments, chosen, initial, _ = case(batch, 1, channels, groups)
    start = pack_steps(radians_to_steps(initial))
    phases, table = phase_scan(increments, chosen, groups, start)
    with filled_with_nan():
        own = phase_step_(start, increments[:, 0], chosen[:, 0])
    assert torch.equal(own, phases[:, 0]) and torch.equal(start, table)


@on_every_path
def test_a_thousand_steps_in_place_keep_the_required_phase_error(path):
    ask(path)
    length = 150 if path == "triton" else 1000
    increments, table = long_increments(length, 2), torch.zeros(1, 1, 2, dtype=torch.int32)
    group = torch.zeros(1, dtype=torch.int64)
    phases = torch.stack([phase_step_(table, token[:, 0], group) for token in increments.split(1, dim=1)], dim=1)
    assert circular_difference(phases, increments.double().cumsum(dim=1)) < 1e-6


@pytest.mark.slow
def test_a_million_steps_in_place_stay_within_the_required_phase_error():
    increments, table = long_increments(2**20, 1), torch.zeros(1, 1, 1, dtype=torch.int32)
    group = torch.zeros(1, dtype=torch.int64)
    phases = torch.stack([phase_step_(table, token[:, 0], group) for token in increments.split(1, dim=1)], dim=1)
    assert circular_difference(phases, increments.double().cumsum(dim=1)) < REQUIRED


def test_a_step_writes_into_the_memory_it_is_given_and_allocates_nothing_that_grows_with_the_groups():
    given = {}

    def buffer(name: str, *shape: int, dtype: torch.dtype) -> Tensor:
        return given.setdefault(name, torch.empty(shape, dtype=dtype))

    increments, group = normal(2, 8), torch.tensor([3, 0])
    largest = []
    for groups in (4, 4000):
        table = torch.zeros(2, groups, 8, dtype=torch.int32)
        with torch.profiler.profile(profile_memory=True, acc_events=True) as profile:
            phases = phase_step_(table, increments, group, buffer)
        assert phases is given["phase step radians"]
        largest.append(max(event.cpu_memory_usage for event in profile.events()))
    assert largest[0] == largest[1] < 1000


def test_a_step_refuses_what_it_cannot_do():
    table = torch.zeros(1, 2, 3, dtype=torch.int32)
    with pytest.raises(RuntimeError, match="phase_scan"):
        phase_step_(table, torch.zeros(1, 3, requires_grad=True), torch.zeros(1, dtype=torch.int64))
    with pytest.raises(RuntimeError, match="contiguous"):
        phase_step_(table.transpose(1, 2), torch.zeros(1, 2), torch.zeros(1, dtype=torch.int64))
    with torch.no_grad():
        phase_step_(table, torch.zeros(1, 3, requires_grad=True), torch.zeros(1, dtype=torch.int64))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_increments_of_another_dtype_are_summed_as_they_are_and_get_gradients_of_it(dtype):
    increments, chosen, _, weights = case(2, 70, 3, 4)
    increments = increments.to(dtype)
    phases, _ = phase_scan(increments, chosen, 4)
    assert circular_difference(phases, phase_scan_reference(increments.double(), chosen, 4)[0]) < 1e-6
    (gradient,) = gradients(lambda d: phase_scan(d, chosen, 4), weights, [increments])
    assert gradient.dtype == dtype


def test_the_plain_scan_passes_gradcheck():
    increments, chosen, initial, weights = case(2, 9, 2, 3)
    # Away from the turn, where the phase jumps.
    leaves = (0.1 * increments).double().requires_grad_(), (0.1 * initial + 2).double().requires_grad_()
    for scan in (phase_scan_plain, phase_scan_reference):
        assert torch.autograd.gradcheck(lambda d, s, scan=scan: scan(d, chosen, 3, s)[0] * weights, leaves)


def test_a_path_that_cannot_serve_is_refused():
    request_paths("triton")
    with pytest.raises(UnknownPathError, match="TRITON_INTERPRET"):
        phase_scan(torch.zeros(1, 2, 1), None, 1)


def test_the_cases_to_time_run_with_their_backward_pass():
    for build in OPERATION.cases(torch.device("cpu")).values():
        arguments = build()
        OPERATION.function(*arguments)[0].sum().backward()
        assert arguments[0].grad.isfinite().all()
