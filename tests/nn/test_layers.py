"""Norm and feed-forward layer equal their equations in fp64: values and gradients."""

from collections.abc import Callable

import pytest
import torch
from model_support import largest_difference, normal
from torch import Tensor

from seqbench.nn import RMSNorm, SwiGLU
from seqbench.nn.layers import rms_norm, rms_norm_reference


def with_gradients(function: Callable[[Tensor], Tensor], values: Tensor, *parameters: Tensor) -> list[Tensor]:
    values = values.clone().requires_grad_()
    result = function(values)
    weights = normal(*result.shape, seed=9).to(result.dtype)
    return [result.detach(), *torch.autograd.grad((result * weights).sum(), [values, *parameters])]


@pytest.mark.parametrize("shape", [(6,), (3, 6), (2, 3, 1), (2, 3, 4, 6)])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 100.0])
def test_the_norm_divides_by_the_root_of_the_mean_square(shape: tuple[int, ...], scale: float) -> None:
    norm, values = RMSNorm(shape[-1], 1e-6), scale * normal(*shape)
    with torch.no_grad():
        norm.weight.copy_(1 + 0.3 * normal(shape[-1], seed=2))
    weight = norm.weight.detach().double().requires_grad_()

    def definition(values: Tensor) -> Tensor:
        return values / (values.square().mean(dim=-1, keepdim=True) + 1e-6).sqrt() * weight

    own = with_gradients(norm, values, norm.weight)
    for actual, expected in zip(own, with_gradients(definition, values.double(), weight), strict=True):
        assert largest_difference(actual, expected) < 1e-5 * max(1.0, expected.abs().max().item())


def test_the_norms_gradient_passes_gradcheck() -> None:
    values, weight = (normal(*shape, dtype=torch.float64).requires_grad_() for shape in ((2, 3, 4), (4,)))
    assert torch.autograd.gradcheck(lambda values, weight: rms_norm(values, weight, 1e-6), (values, weight))
    assert largest_difference(rms_norm(values, weight, 1e-6), rms_norm_reference(values, weight, 1e-6)) < 1e-12


def test_a_row_of_zeros_has_a_finite_gradient() -> None:
    value, gradient = with_gradients(RMSNorm(4, 1e-6), torch.zeros(2, 4))
    assert value.abs().max() == 0 and gradient.isfinite().all()


def test_half_precision_is_normalised_in_fp32_and_returned_in_its_own_dtype() -> None:
    values = (100 * normal(5, 64)).bfloat16()
    normalised = RMSNorm(64, 1e-6)(values)
    assert normalised.dtype == torch.bfloat16
    exact = rms_norm_reference(values.double(), torch.ones(64, dtype=torch.float64), 1e-6)
    assert torch.equal(normalised, exact.float().bfloat16())


def test_the_feed_forward_layer_gates_one_projection_with_the_other() -> None:
    layer, values = SwiGLU(5, 7), normal(2, 3, 5)
    weights = [parameter.detach().double().requires_grad_() for parameter in layer.parameters()]

    def definition(values: Tensor) -> Tensor:
        gate, up, down = weights
        gated = values @ gate.T
        return (gated * gated.sigmoid() * (values @ up.T)) @ down.T

    own = with_gradients(layer, values, *layer.parameters())
    for actual, expected in zip(own, with_gradients(definition, values.double(), *weights), strict=True):
        assert largest_difference(actual, expected) < 1e-5
