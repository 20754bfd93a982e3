"""Phasors equal their definition in fp64, values and gradients."""

from collections.abc import Callable

import pytest
import torch
from model_support import largest_difference, normal, relative_difference
from torch import Tensor

from seqbench_kernels.phasor import phasor, phasor_reference


def with_gradients(function: Callable[..., Tensor], inputs: list[Tensor]) -> list[Tensor]:
    """The value, and the gradients of a fixed random function of it."""
    leaves = [tensor.clone().requires_grad_() for tensor in inputs]
    value = function(*leaves)
    weights = normal(*value.shape, seed=9).to(value.dtype)
    return [value.detach(), *torch.autograd.grad((value * weights).sum(), leaves)]


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


def test_angles_are_left_unchanged_and_need_not_be_contiguous() -> None:
    angles = normal(4, 3, 6).transpose(0, 1)
    copy = angles.clone()
    assert torch.equal(phasor(angles), phasor(angles.contiguous()))
    assert torch.equal(angles, copy)
