"""The convolution of each channel by its own few taps: torch's grouped convolution, and its definition."""

import functools

import pytest
import torch
import torch.nn.functional as F
from model_support import normal
from torch import Tensor

from seqbench.mixers import causal_taps
from seqbench.mixers.taps import causal_taps_reference


def case(taps: int, length: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Values of 3 channels in 2 rows, what came before them, taps and bias."""
    shapes = ((2, length, 3), (2, taps - 1, 3), (3, taps), (3,))
    return [normal(*shape, seed=seed, dtype=dtype).requires_grad_() for seed, shape in enumerate(shapes)]


@pytest.mark.parametrize(("taps", "length"), [(1, 1), (1, 5), (2, 1), (4, 2), (4, 9), (9, 6)])
def test_it_is_torchs_convolution_of_each_channel(taps: int, length: int) -> None:
    values, before, weight, bias = case(taps, length)
    extended = torch.cat((before, values), dim=1).transpose(1, 2)
    expected = F.conv1d(extended, weight.unsqueeze(1), bias, groups=3).transpose(1, 2)
    torch.testing.assert_close(causal_taps(values, before, weight, bias), expected)
    torch.testing.assert_close(causal_taps(values, before, weight), expected - bias)
    zeros = torch.zeros_like(before)
    torch.testing.assert_close(causal_taps(values, None, weight, bias), causal_taps(values, zeros, weight, bias))


@pytest.mark.parametrize(("taps", "length"), [(1, 5), (4, 2), (4, 9)])
def test_it_is_its_definition_with_all_gradients(taps: int, length: int) -> None:
    leaves = case(taps, length)
    found, expected = causal_taps(*leaves), causal_taps_reference(*leaves)
    torch.testing.assert_close(found, expected)
    weights = normal(*found.shape, seed=9, dtype=torch.float64)
    ours, others = (torch.autograd.grad((result * weights).sum(), leaves) for result in (found, expected))
    for gradient, other in zip(ours, others, strict=True):
        torch.testing.assert_close(gradient, other)
    assert torch.autograd.gradcheck(causal_taps, leaves)
    assert torch.autograd.gradgradcheck(causal_taps, leaves)


def test_what_came_before_needs_no_gradient() -> None:
    values, before, taps, _ = case(4, 5)
    for earlier in (None, before.detach()):
        assert torch.autograd.gradcheck(functools.partial(_behind, earlier), (values, taps))


def _behind(before: Tensor | None, values: Tensor, taps: Tensor) -> Tensor:
    return causal_taps(values, before, taps)


@pytest.mark.parametrize("narrow", [torch.bfloat16, torch.float16])
def test_the_widest_dtype_of_values_and_taps_decides(narrow: torch.dtype) -> None:
    values, before, taps, bias = case(4, 6, torch.float32)
    mixed = causal_taps(values.to(narrow), before, taps, bias)
    assert mixed.dtype == torch.float32
    torch.testing.assert_close(mixed, causal_taps(values.to(narrow).float(), before, taps, bias))
    assert causal_taps(values, before.to(narrow), taps.to(narrow), bias.to(narrow)).dtype == torch.float32
    assert causal_taps(values.to(narrow), None, taps.to(narrow)).dtype == narrow
