"""Phase scores and phasors equal their definitions in fp64: values and gradients, at every way of broadcasting."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from model_support import largest_difference, normal, relative_difference
from torch import Tensor

from seqbench_kernels.phase_scores import phase_scores, phase_scores_reference, phasor, phasor_reference

# Shapes of query and keys: as the write and the read of a memory use them, the root's shared keys, and odd ones.
SHAPES = [
    ((2, 5, 1, 6), (2, 5, 3, 6)),
    ((2, 5, 1, 2, 6), (2, 5, 3, 2, 6)),
    ((2, 5, 1, 6), (1, 1, 3, 6)),
    ((2, 5, 1, 2, 6), (1, 1, 3, 2, 6)),
    ((4, 1, 1), (1, 7, 1)),
    ((6,), (6,)),
    ((3, 16), (16,)),
]


def with_gradients(function: Callable[..., Tensor], inputs: list[Tensor]) -> list[Tensor]:
    """The value, and the gradients of a fixed random function of it."""
    leaves = [tensor.clone().requires_grad_() for tensor in inputs]
    value = function(*leaves)
    weights = normal(*value.shape, seed=9).to(value.dtype)
    return [value.detach(), *torch.autograd.grad((value * weights).sum(), leaves)]


def check_scores(query: Tensor, keys: Tensor, tolerance: float = 1e-5) -> None:
    own = with_gradients(phase_scores, [query, keys])
    expected = with_gradients(phase_scores_reference, [query.double(), keys.double()])
    for actual, reference in zip(own, expected, strict=True):
        assert largest_difference(actual, reference) < tolerance * max(1.0, reference.abs().max().item())


@pytest.mark.parametrize(("query", "keys"), SHAPES)
@pytest.mark.parametrize("spread", [0.05, 1.0, 4.0])
def test_scores_and_both_gradients_are_those_of_the_definition(
    query: tuple[int, ...], keys: tuple[int, ...], spread: float
) -> None:
    check_scores(spread * normal(*query), spread * normal(*keys, seed=1))


@settings(max_examples=30)
@given(st.integers(1, 3), st.integers(1, 9), st.integers(1, 5), st.integers(1, 33), st.integers(0, 1000))
def test_scores_hold_at_any_size(batch: int, length: int, slots: int, angles: int, seed: int) -> None:
    check_scores(normal(batch, length, 1, angles, seed=seed), normal(batch, length, slots, angles, seed=seed + 1))


def test_a_score_is_the_sum_of_cosines_of_bounded_angles_over_the_root_of_their_number() -> None:
    query, keys = torch.tensor([0.3, -1.0]), torch.tensor([0.1, 2.0])
    angles = [math.pi * (math.tanh(q) - math.tanh(k)) for q, k in zip(query.tolist(), keys.tolist(), strict=True)]
    expected = sum(map(math.cos, angles)) / math.sqrt(2)
    assert phase_scores(query, keys).item() == pytest.approx(expected, abs=1e-6)


def test_equal_angles_score_the_root_of_their_number_and_their_score_is_stationary() -> None:
    angles = normal(3, 16)
    score, *gradients = with_gradients(phase_scores, [angles, angles.clone()])
    assert largest_difference(score, torch.full((3,), 4.0)) < 1e-6
    assert all(gradient.abs().max() == 0 for gradient in gradients)


@pytest.mark.parametrize("size", [30.0, 1e4, torch.finfo(torch.float32).max])
def test_saturated_inputs_give_finite_scores_and_gradients_of_zero(size: float) -> None:
    query, keys = torch.tensor([[size, -size]]), torch.tensor([[-size, -size]])
    score, *gradients = with_gradients(phase_scores, [query, keys])
    assert score.item() == pytest.approx(math.sqrt(2), abs=1e-5)
    assert all(gradient.abs().max() < 1e-6 for gradient in gradients)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_inputs_are_scored_in_fp32_and_get_gradients_of_their_own_dtype(dtype: torch.dtype) -> None:
    query, keys = normal(2, 5, 1, 8).to(dtype), normal(2, 5, 3, 8, seed=1).to(dtype)
    score, *gradients = with_gradients(phase_scores, [query, keys])
    assert score.dtype == torch.float32
    assert [gradient.dtype for gradient in gradients] == [dtype, dtype]
    assert largest_difference(score, phase_scores_reference(query.double(), keys.double())) < 1e-5


@pytest.mark.parametrize("shape", [(5,), (2, 3, 4, 6), (1, 1)])
def test_a_phasor_is_the_sines_and_then_the_cosines(shape: tuple[int, ...]) -> None:
    angles = 3 * normal(*shape)
    value, gradient = with_gradients(phasor, [angles])
    expected, reference = with_gradients(phasor_reference, [angles.double()])
    assert value.shape == (*shape[:-1], 2 * shape[-1])
    assert largest_difference(value, expected) < 1e-6
    assert relative_difference(gradient, reference) < 1e-5
    assert largest_difference(value[..., : shape[-1]], angles.double().sin()) < 1e-6


def test_the_phasors_gradient_passes_gradcheck() -> None:
    assert torch.autograd.gradcheck(phasor, [normal(2, 3, 4, dtype=torch.float64).requires_grad_()])


def test_inputs_are_left_unchanged_and_need_not_be_contiguous() -> None:
    query, keys = normal(3, 1, 6), normal(4, 3, 6).transpose(0, 1)
    copies = query.clone(), keys.clone()
    value = phase_scores(query, keys)
    assert torch.equal(query, copies[0]) and torch.equal(keys, copies[1])
    assert torch.equal(value, phase_scores(query, keys.contiguous()))
    assert torch.equal(phasor(keys), phasor(keys.contiguous()))
