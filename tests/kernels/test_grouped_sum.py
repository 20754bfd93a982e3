"""The grouped sum: sums that lose nothing at any length, wherever a sequence is cut, and their gradients."""

from collections.abc import Callable, Iterable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from model_support import chunk_sizes, largest_difference, normal, relative_difference
from torch import Tensor

from seqbench_kernels.grouped_sum import grouped_sum, grouped_sum_reference

LONG = 2**20


def case(batch: int, length: int, channels: int, groups: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Increments, groups with some padding, z_0, and a random weight for every sum that is real."""
    increments = normal(batch, length, channels, seed=seed) + 0.5
    chosen = torch.randint(0, groups + 1, (batch, length), generator=torch.Generator().manual_seed(seed))
    initial = 10 * normal(batch, groups, channels, seed=seed + 2, dtype=torch.float64)
    weights = normal(batch, length, channels, seed=seed + 1) * (chosen < groups).unsqueeze(-1)
    return increments, chosen, initial, weights


def gradients(scan: Callable[..., tuple[Tensor, Tensor]], weights: Tensor, leaves: list[Tensor]) -> list[Tensor]:
    leaves = [leaf.clone().requires_grad_() for leaf in leaves]
    sums, _ = scan(*leaves)
    return list(torch.autograd.grad((sums * weights).sum(), leaves))


def sum_in_chunks(increments: Tensor, groups: Tensor | None, table: int, sizes: Iterable[int]) -> tuple[Tensor, Tensor]:
    parts, state, start = [], None, 0
    for size in sizes:
        chosen = None if groups is None else groups[:, start : start + size]
        part, state = grouped_sum(increments[:, start : start + size], chosen, table, state)
        parts.append(part)
        start += size
    return torch.cat(parts, dim=1), state


@settings(max_examples=40)
@given(st.integers(1, 3), st.integers(1, 90), st.integers(1, 4), st.integers(1, 9), st.booleans(), st.integers(0, 1000))
def test_sums_and_final_table_are_those_of_the_reference(
    batch: int, length: int, channels: int, groups: int, continued: bool, seed: int
) -> None:
    increments, chosen, initial, _ = case(batch, length, channels, groups, seed)
    start = initial if continued else None
    sums, table = grouped_sum(increments, chosen, groups, start)
    expected, expected_table = grouped_sum_reference(increments, chosen, groups, start)
    real = chosen < groups
    assert sums.dtype == torch.float32 and table.dtype == torch.float64
    assert largest_difference(sums[real], expected[real]) < 1e-5
    assert largest_difference(table, expected_table) < 1e-12


@pytest.mark.parametrize("size", [(1, 1, 1, 1), (2, 7, 5, 3), (2, 150, 3, 40)])
def test_gradients_of_increments_and_initial_table_are_those_of_the_reference(size: tuple[int, ...]) -> None:
    increments, chosen, initial, weights = case(*size)
    own = gradients(lambda d, s: grouped_sum(d, chosen, size[3], s), weights, [increments, initial])
    expected = gradients(
        lambda d, s: grouped_sum_reference(d, chosen, size[3], s), weights.double(), [increments.double(), initial]
    )
    for actual, reference in zip(own, expected, strict=True):
        assert largest_difference(actual, reference) < 1e-5


def test_gradients_are_those_of_finite_differences() -> None:
    increments, chosen, initial, weights = case(2, 9, 2, 3)
    leaves = increments.double().requires_grad_(), initial.requires_grad_()
    # What stands at padding is of no use, and has no gradient.
    assert torch.autograd.gradcheck(lambda d, s: grouped_sum(d, chosen, 3, s)[0] * weights, leaves)


def test_no_groups_means_that_all_tokens_share_group_0() -> None:
    increments, _, initial, _ = case(2, 80, 3, 4)
    for start in (None, initial):
        own = grouped_sum(increments, None, 4, start)
        expected = grouped_sum(increments, torch.zeros(2, 80, dtype=torch.int64), 4, start)
        assert all(torch.equal(actual, other) for actual, other in zip(own, expected, strict=True))


def test_a_group_without_tokens_keeps_its_sum_to_the_bit() -> None:
    increments, _, initial, _ = case(1, 40, 2, 5)
    groups = torch.full((1, 40), 3)
    assert torch.equal(grouped_sum(increments, groups, 5, initial)[1][:, [0, 1, 2, 4]], initial[:, [0, 1, 2, 4]])
    assert grouped_sum(increments, groups, 5)[1][:, [0, 1, 2, 4]].abs().max() == 0


@pytest.mark.parametrize("scaled", [False, True])
def test_padding_enters_no_sum_no_count_and_gets_no_gradient(scaled: bool) -> None:
    increments, chosen, initial, weights = case(2, 120, 3, 4)
    real = chosen < 4
    sums, table = grouped_sum(increments, chosen, 4, initial)
    for anything in (2.5, float("nan")):
        other = torch.where(real.unsqueeze(-1), increments, anything)
        other_sums, other_table = grouped_sum(other, chosen, 4, initial)
        assert torch.equal(other_sums[real], sums[real]) and torch.equal(other_table, table)
    (gradient,) = gradients(lambda d: grouped_sum(d, chosen, 4, initial, scaled), weights, [increments])
    assert gradient[~real].abs().max() == 0
    alone = real[0]
    kept, groups = increments[:1, alone], chosen[:1, alone]
    (expected,) = gradients(lambda d: grouped_sum(d, groups, 4, initial[:1], scaled), weights[:1, alone], [kept])
    assert relative_difference(gradient[0, alone], expected[0]) < 1e-6


def test_one_row_does_not_influence_another_by_a_single_bit() -> None:
    increments, chosen, initial, weights = case(2, 130, 3, 4)

    def first_row(increments: Tensor, chosen: Tensor) -> list[Tensor]:
        scan = gradients(lambda d, s: grouped_sum(d, chosen, 4, s, True), weights, [increments, initial])
        return [tensor[0] for tensor in (*grouped_sum(increments, chosen, 4, initial), *scan)]

    other_increments, other_chosen = increments.clone(), chosen.clone()
    other_increments[1] = 1e3 * normal(130, 3, seed=7)
    other_chosen[1] = 0
    pairs = zip(first_row(increments, chosen), first_row(other_increments, other_chosen), strict=True)
    assert all(torch.equal(own, other) for own, other in pairs)


@settings(max_examples=25)
@given(st.lists(st.integers(1, 150), max_size=8), st.integers(0, 1000))
def test_sums_do_not_depend_on_where_a_sequence_is_cut(sizes: list[int], seed: int) -> None:
    increments, chosen, _, _ = case(2, 220, 3, 5, seed)
    sums, table = grouped_sum(increments, chosen, 5)
    own, state = sum_in_chunks(increments, chosen, 5, chunk_sizes(220, sizes))
    real = chosen < 5
    assert largest_difference(state, table) < 1e-12
    assert largest_difference(own[real], sums[real]) < 1e-4


def test_a_million_tokens_lose_nothing_in_one_call_or_in_chunks() -> None:
    """Fp32 would have moved in steps of 0.06 by then; a mask over all pairs of tokens would not fit any memory."""
    increments = 1 + 0.3 * normal(1, LONG, 1)
    groups = torch.randint(0, 3, (1, LONG), generator=torch.Generator().manual_seed(0))
    _, table = grouped_sum(increments, groups, 3)
    sizes = torch.randint(1, 4000, (600,), generator=torch.Generator().manual_seed(1)).tolist()
    _, in_chunks = sum_in_chunks(increments, groups, 3, chunk_sizes(LONG, sizes))
    for group in range(3):
        exact = increments[0, groups[0] == group].double().sum(dim=0)
        assert largest_difference(table[0, group], exact) < 1e-8
        assert largest_difference(in_chunks[0, group], exact) < 1e-8


def test_single_tokens_lose_nothing_either() -> None:
    increments = 1 + 0.3 * normal(1, 2**11, 1)
    start = torch.full((1, 1, 1), 1e6, dtype=torch.float64)
    state = start
    for token in increments.split(1, dim=1):
        _, state = grouped_sum(token, None, 1, state)
    assert largest_difference(state - start, increments.double().sum(dim=1, keepdim=True)) < 1e-6


@pytest.mark.parametrize("counts", [(4, 16, 1), (9, 100, 25)])
def test_sqrt_count_divides_each_increments_gradient_by_the_root_of_its_groups_tokens(counts: tuple[int, ...]) -> None:
    chosen = torch.cat([torch.full((count,), group) for group, count in enumerate(counts)])
    order = torch.randperm(len(chosen), generator=torch.Generator().manual_seed(0))
    chosen = chosen[order].unsqueeze(0)
    increments, weights = normal(1, len(order), 2), normal(1, len(order), 2, seed=3)
    initial = normal(1, 3, 2, dtype=torch.float64)
    scaled, initial_scaled = gradients(lambda d, s: grouped_sum(d, chosen, 3, s, True), weights, [increments, initial])
    plain, initial_plain = gradients(lambda d, s: grouped_sum(d, chosen, 3, s), weights, [increments, initial])
    assert torch.equal(initial_scaled, initial_plain)
    for group, count in enumerate(counts):
        own = chosen[0] == group
        assert relative_difference(scaled[0, own] * count**0.5, plain[0, own]) < 1e-6
    forward = [grouped_sum(increments, chosen, 3, initial, switch) for switch in (True, False)]
    assert all(torch.equal(own, expected) for own, expected in zip(*forward, strict=True))


def test_inputs_are_left_unchanged_and_repeats_are_identical_to_the_bit() -> None:
    increments, chosen, initial, weights = case(2, 150, 3, 4)
    copies = increments.clone(), chosen.clone(), initial.clone()
    results = []
    for _ in range(2):
        scan = gradients(lambda d, s: grouped_sum(d, chosen, 4, s, True), weights, [increments, initial])
        results.append([*grouped_sum(increments, chosen, 4, initial), *scan])
    assert all(torch.equal(first, again) for first, again in zip(*results, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(copies, (increments, chosen, initial), strict=True))
    strided = increments.transpose(0, 1).contiguous().transpose(0, 1)
    assert torch.equal(grouped_sum(strided, chosen, 4, initial)[0], results[0][0])
