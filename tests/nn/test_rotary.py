"""Rotary positions: exact angles far into a sequence, and scores that depend on distances alone."""

import cmath

import pytest
import torch
from model_support import largest_difference, normal

from seqbench.nn import apply_rotary, rotary_tables
from seqbench.nn.rotary import apply_rotary_reference

SIZE = 8


def rotate_as_complex_numbers(head: list[float], position: int, theta: float) -> list[float]:
    """Dimension i and i + size/2 are the parts of a complex number that turns by position * theta^(-2i/size)."""
    half = len(head) // 2
    angles = [position * theta ** (-2 * i / len(head)) for i in range(half)]
    turned = [complex(head[i], head[i + half]) * cmath.exp(1j * angle) for i, angle in enumerate(angles)]
    return [number.real for number in turned] + [number.imag for number in turned]


@pytest.mark.parametrize("theta", [1e4, 1e6])
@pytest.mark.parametrize("position", [0, 1, 77, 500_000, 10_000_000])
def test_a_head_is_turned_by_the_exact_angle_at_any_position(theta: float, position: int) -> None:
    heads = normal(1, 3, 1, SIZE)
    turned = apply_rotary(heads, rotary_tables(torch.tensor([[position]]), SIZE, theta))
    expected = [rotate_as_complex_numbers(head, position, theta) for head in heads[0, :, 0].double().tolist()]
    assert largest_difference(turned[0, :, 0], torch.tensor(expected, dtype=torch.float64)) < 1e-6


@pytest.mark.parametrize("start", [0, 500_000])
def test_scores_depend_on_the_distance_alone(start: int) -> None:
    query, key = normal(SIZE), normal(SIZE, seed=1)

    def score(query_position: int, key_position: int) -> float:
        tables = rotary_tables(torch.tensor([[query_position, key_position]]), SIZE, 1e4)
        pair = apply_rotary(torch.stack((query, key)).view(1, 1, 2, SIZE), tables)[0, 0]
        return (pair[0] @ pair[1]).item()

    assert score(start + 9, start + 2) == pytest.approx(score(7, 0), abs=1e-5)
    assert score(start, start) == pytest.approx((query @ key).item(), abs=1e-5)
    assert abs(score(start + 9, start + 2) - score(start + 9, start + 3)) > 1e-3


def test_each_row_may_have_positions_of_its_own() -> None:
    positions = torch.tensor([[0, 1, 2], [100, 101, 102]])
    heads = normal(2, 2, 3, SIZE)
    together = apply_rotary(heads, rotary_tables(positions, SIZE, 1e4))
    for row in range(2):
        alone = apply_rotary(heads[row : row + 1], rotary_tables(positions[row : row + 1], SIZE, 1e4))
        assert torch.equal(together[row : row + 1], alone)


def test_values_and_gradients_are_those_of_the_definition() -> None:
    tables = rotary_tables(torch.arange(40, 47).unsqueeze(0), SIZE, 1e4)
    weights = normal(2, 3, 7, SIZE, seed=1)
    results = []
    for rotate in (apply_rotary, apply_rotary_reference):
        heads = normal(2, 3, 7, SIZE).requires_grad_()
        turned = rotate(heads, tables)
        results.append((turned.detach(), torch.autograd.grad((turned * weights).sum(), heads)[0]))
    for own, expected in zip(*results, strict=True):
        assert largest_difference(own, expected) < 1e-6


def test_the_dtype_of_the_heads_is_kept() -> None:
    heads = normal(1, 1, 5, SIZE).bfloat16()
    assert apply_rotary(heads, rotary_tables(torch.arange(5).unsqueeze(0), SIZE, 1e4)).dtype == torch.bfloat16
