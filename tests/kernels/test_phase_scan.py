"""The grouped phase scan: exact sums of phases at any length, however a sequence is cut, and the gradients of a sum."""

import math
from collections.abc import Callable, Iterable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from model_support import chunk_sizes, circular_difference, largest_difference, normal, relative_difference
from torch import Tensor

from seqbench_kernels.phase_scan import pack_steps, phase_scan, phase_scan_reference, radians_to_steps, steps_to_radians

# (batch, length, channels, groups); lengths on both sides of the limit between the two ways of computing it.
SIZES = [(1, 1, 1, 1), (2, 7, 5, 3), (1, 63, 3, 4), (2, 64, 2, 1), (3, 65, 4, 9), (2, 150, 3, 40)]
LONG = 2**20
REQUIRED = 1e-4


def radians(table: Tensor) -> Tensor:
    return steps_to_radians(table.long())


def case(batch: int, length: int, channels: int, groups: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Increments, groups with some padding, S_0, and a random weight for every phase that is real."""
    generator = torch.Generator().manual_seed(seed)
    increments = normal(batch, length, channels, seed=seed) + 0.5
    chosen = torch.randint(0, groups + 1, (batch, length), generator=generator)
    initial = 2 * math.pi * torch.rand(batch, groups, channels, generator=generator)
    weights = normal(batch, length, channels, seed=seed + 1) * (chosen < groups).unsqueeze(-1)
    return increments, chosen, initial, weights


def gradients(scan: Callable[..., tuple[Tensor, Tensor]], weights: Tensor, leaves: list[Tensor]) -> list[Tensor]:
    leaves = [leaf.clone().requires_grad_() for leaf in leaves]
    phases, _ = scan(*leaves)
    return list(torch.autograd.grad((phases * weights).sum(), leaves))


def long_increments(length: int, channels: int = 2) -> Tensor:
    """Mean 1 and deviation 0.3: sums of mean zero would hide what a scan loses."""
    return 1 + 0.3 * normal(1, length, channels)


def scan_in_chunks(
    increments: Tensor, groups: Tensor | None, table: int, sizes: Iterable[int]
) -> tuple[Tensor, Tensor]:
    phases, state, start = [], None, 0
    for size in sizes:
        chosen = None if groups is None else groups[:, start : start + size]
        part, state = phase_scan(increments[:, start : start + size], chosen, table, state)
        phases.append(part)
        start += size
    return torch.cat(phases, dim=1), state


@settings(max_examples=40)
@given(st.integers(1, 3), st.integers(1, 90), st.integers(1, 4), st.integers(1, 9), st.booleans(), st.integers(0, 1000))
def test_phases_and_final_table_are_those_of_the_reference(
    batch: int, length: int, channels: int, groups: int, continued: bool, seed: int
) -> None:
    increments, chosen, initial, _ = case(batch, length, channels, groups, seed)
    start = initial if continued else None
    phases, table = phase_scan(increments, chosen, groups, start)
    expected, expected_table = phase_scan_reference(increments, chosen, groups, start)
    real = chosen < groups
    assert phases.dtype == torch.float32 and table.dtype == torch.int32
    assert phases.min() >= 0 and phases.max() <= torch.tensor(2 * math.pi, dtype=torch.float32)
    if real.any():
        assert circular_difference(phases[real], expected[real]) < 1e-6
    assert circular_difference(radians(table), expected_table) < 1e-6


@pytest.mark.parametrize("size", SIZES)
def test_gradients_of_increments_and_initial_table_are_those_of_the_reference(size: tuple[int, ...]) -> None:
    increments, chosen, initial, weights = case(*size)
    own = gradients(lambda d, s: phase_scan(d, chosen, size[3], s), weights, [increments, initial])
    expected = gradients(
        lambda d, s: phase_scan_reference(d, chosen, size[3], s),
        weights.double(),
        [increments.double(), initial.double()],
    )
    for actual, reference in zip(own, expected, strict=True):
        assert largest_difference(actual, reference) < 1e-5


@pytest.mark.parametrize("length", [5, 64, 65, 200])
def test_no_groups_means_that_all_tokens_share_group_0(length: int) -> None:
    increments, _, initial, _ = case(2, length, 3, 4)
    zeros = torch.zeros(2, length, dtype=torch.int64)
    for start in (None, initial):
        pairs = zip(phase_scan(increments, None, 4, start), phase_scan(increments, zeros, 4, start), strict=True)
        assert all(torch.equal(own, expected) for own, expected in pairs)


@pytest.mark.parametrize("length", [12, 130])
def test_a_group_without_tokens_keeps_its_phases_to_the_bit(length: int) -> None:
    increments = normal(1, length, 2)
    initial = pack_steps(radians_to_steps(2 * math.pi * torch.rand(1, 5, 2)))
    groups = torch.full((1, length), 3)
    _, table = phase_scan(increments, groups, 5, initial)
    assert torch.equal(table[:, [0, 1, 2, 4]], initial[:, [0, 1, 2, 4]])
    _, fresh = phase_scan(increments, groups, 5)
    assert fresh[:, [0, 1, 2, 4]].abs().max() == 0


@pytest.mark.parametrize("length", [12, 130])
@pytest.mark.parametrize("scaled", [False, True])
def test_padding_enters_no_sum_no_count_and_gets_no_gradient(length: int, scaled: bool) -> None:
    increments, chosen, initial, weights = case(2, length, 3, 4)
    real = chosen < 4
    other = torch.where(real.unsqueeze(-1), increments, torch.full_like(increments, 2.5))
    phases, table = phase_scan(increments, chosen, 4, initial)
    other_phases, other_table = phase_scan(other, chosen, 4, initial)
    assert torch.equal(other_phases[real], phases[real]) and torch.equal(other_table, table)
    (gradient,) = gradients(lambda d: phase_scan(d, chosen, 4, initial, scaled), weights, [increments])
    assert gradient[~real].abs().max() == 0
    alone = real[0]
    kept, groups = increments[:1, alone], chosen[:1, alone]
    (expected,) = gradients(lambda d: phase_scan(d, groups, 4, initial[:1], scaled), weights[:1, alone], [kept])
    assert relative_difference(gradient[0, alone], expected[0]) < 1e-6


@pytest.mark.parametrize("length", [12, 130])
def test_one_row_does_not_influence_another_by_a_single_bit(length: int) -> None:
    increments, chosen, initial, weights = case(2, length, 3, 4)

    def first_row(increments: Tensor, chosen: Tensor) -> list[Tensor]:
        scan = gradients(lambda d, s: phase_scan(d, chosen, 4, s, True), weights, [increments, initial])
        return [tensor[0] for tensor in (*phase_scan(increments, chosen, 4, initial), *scan)]

    other_increments, other_chosen = increments.clone(), chosen.clone()
    other_increments[1] = 1e3 * normal(length, 3, seed=7)
    other_chosen[1] = 0
    pairs = zip(first_row(increments, chosen), first_row(other_increments, other_chosen), strict=True)
    assert all(torch.equal(own, other) for own, other in pairs)


@pytest.mark.parametrize("length", [12, 130])
def test_repeats_are_identical_to_the_bit_gradients_included(length: int) -> None:
    increments, chosen, initial, weights = case(2, length, 3, 4)
    first, again = (
        [
            *phase_scan(increments, chosen, 4, initial),
            *gradients(lambda d, s: phase_scan(d, chosen, 4, s, True), weights, [increments, initial]),
        ]
        for _ in range(2)
    )
    assert all(torch.equal(own, other) for own, other in zip(first, again, strict=True))


@settings(max_examples=25)
@given(st.lists(st.integers(1, 150), max_size=8), st.integers(0, 1000))
def test_sums_do_not_depend_on_where_a_sequence_is_cut(sizes: list[int], seed: int) -> None:
    increments, chosen, _, _ = case(2, 220, 3, 5, seed)
    phases, table = phase_scan(increments, chosen, 5)
    own, state = scan_in_chunks(increments, chosen, 5, chunk_sizes(220, sizes))
    assert torch.equal(state, table)
    real = chosen < 5
    assert torch.equal(own[real], phases[real])


@pytest.mark.parametrize("length", [64, 65, 100_000])
def test_the_way_from_the_initial_table_to_the_last_phase_is_the_identity(length: int) -> None:
    """Phases add, so a loss that reads R_T alone gives dL/dS_0 = dL/dR_T bit for bit (unitarity)."""
    increments, reader = long_increments(length, 3), normal(1, 1, 3, seed=5)
    for scaled in (False, True):
        initial = torch.rand(1, 1, 3).requires_grad_()
        phases, _ = phase_scan(increments, None, 1, initial, scaled)
        (phases[:, -1:] * reader).sum().backward()
        assert torch.equal(initial.grad, reader)


def test_every_reader_of_a_group_adds_to_the_gradient_of_its_initial_phases() -> None:
    for length in (50, 500):
        initial = torch.zeros(1, 2, 1, requires_grad=True)
        phases, _ = phase_scan(normal(1, length, 1), torch.zeros(1, length, dtype=torch.int64), 2, initial)
        phases.sum().backward()
        assert initial.grad.flatten().tolist() == [length, 0]


@pytest.mark.parametrize("length", [40, 400])
def test_large_gradients_in_one_group_do_not_drown_those_of_another(length: int) -> None:
    increments, weights = normal(1, length, 2), normal(1, length, 2, seed=3)
    groups = torch.arange(length).unsqueeze(0) % 2
    weights[:, 0::2] *= 1e7
    (own,) = gradients(lambda d: phase_scan(d, groups, 2), weights, [increments])
    expected = weights[:, 1::2].double().flip(1).cumsum(dim=1).flip(1)
    assert largest_difference(own[:, 1::2], expected) < 1e-4


@pytest.mark.parametrize("counts", [(4, 16, 1), (64, 4, 16), (9, 100, 25)])
def test_sqrt_count_divides_each_increments_gradient_by_the_root_of_its_groups_tokens(counts: tuple[int, ...]) -> None:
    chosen = torch.cat([torch.full((count,), group) for group, count in enumerate(counts)])
    order = torch.randperm(len(chosen), generator=torch.Generator().manual_seed(0))
    chosen = chosen[order].unsqueeze(0)
    increments, weights = normal(1, len(order), 2), normal(1, len(order), 2, seed=3)
    initial = torch.rand(1, 3, 2)
    scaled, initial_scaled = gradients(lambda d, s: phase_scan(d, chosen, 3, s, True), weights, [increments, initial])
    plain, initial_plain = gradients(lambda d, s: phase_scan(d, chosen, 3, s), weights, [increments, initial])
    assert torch.equal(initial_scaled, initial_plain)
    for group, count in enumerate(counts):
        own = chosen[0] == group
        if math.log2(count) % 2 == 0:
            # A division by a power of two rounds nothing.
            assert torch.equal(scaled[0, own] * math.isqrt(count), plain[0, own])
        else:
            assert relative_difference(scaled[0, own] * math.sqrt(count), plain[0, own]) < 1e-6


def test_sqrt_count_leaves_the_phases_as_they_are() -> None:
    for length in (20, 200):
        increments, chosen, initial, _ = case(2, length, 3, 4)
        for own, expected in zip(
            phase_scan(increments, chosen, 4, initial, True), phase_scan(increments, chosen, 4, initial), strict=True
        ):
            assert torch.equal(own, expected)


def test_inputs_are_left_unchanged_and_need_not_be_contiguous() -> None:
    for dtype in (torch.float32, torch.float64):
        for length in (20, 200):
            increments, chosen, initial, _ = case(2, length, 3, 4)
            increments, initial = increments.to(dtype), initial.to(dtype)
            copies = increments.clone(), chosen.clone(), initial.clone()
            expected = phase_scan(increments, chosen, 4, initial)
            assert all(torch.equal(a, b) for a, b in zip(copies, (increments, chosen, initial), strict=True))
            strided = increments.transpose(0, 1).contiguous().transpose(0, 1)
            assert all(
                torch.equal(a, b) for a, b in zip(phase_scan(strided, chosen, 4, initial), expected, strict=True)
            )


@pytest.mark.parametrize("groups", [1, 3])
def test_a_million_tokens_in_one_call_or_in_chunks_stay_within_the_required_phase_error(groups: int) -> None:
    increments = long_increments(LONG)
    chosen = torch.randint(0, groups, (1, LONG), generator=torch.Generator().manual_seed(0))
    phases, table = phase_scan(increments, chosen, groups)
    for group in range(groups):
        own = chosen[0] == group
        assert circular_difference(phases[0, own], increments[0, own].double().cumsum(dim=0)) < REQUIRED
    sizes = torch.randint(1, 4000, (600,), generator=torch.Generator().manual_seed(1)).tolist()
    in_chunks, state = scan_in_chunks(increments, chosen, groups, chunk_sizes(LONG, sizes))
    assert torch.equal(in_chunks, phases) and torch.equal(state, table)


def check_single_tokens(length: int) -> None:
    increments = long_increments(length, 1)
    phases, state = scan_in_chunks(increments, None, 1, [1] * length)
    assert circular_difference(phases, increments.double().cumsum(dim=1)) < REQUIRED
    whole, table = phase_scan(increments, None, 1)
    assert torch.equal(phases, whole) and torch.equal(state, table)


def test_single_tokens_give_the_bits_of_one_call() -> None:
    check_single_tokens(2**12)


@pytest.mark.slow
def test_a_million_single_tokens_stay_within_the_required_phase_error() -> None:
    check_single_tokens(LONG)


@settings(max_examples=100)
@given(st.floats(-1e4, 1e4, width=32))
def test_steps_are_angles_to_a_billionth_of_a_turn_whatever_the_number_of_turns(angle: float) -> None:
    steps = radians_to_steps(torch.tensor(angle, dtype=torch.float64))
    expected = torch.tensor(angle, dtype=torch.float64)
    # fp32 near 2 pi is coarser than a step.
    assert circular_difference(steps_to_radians(steps), expected) < 3e-7
    assert circular_difference(steps_to_radians(pack_steps(steps).long()), expected) < 3e-7


def test_packed_steps_keep_every_bit_of_the_phase() -> None:
    steps = torch.tensor([0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**32, -1, 5 * 2**32 + 17])
    assert torch.equal(pack_steps(steps).long() % 2**32, steps % 2**32)
    assert pack_steps(steps).dtype == torch.int32
