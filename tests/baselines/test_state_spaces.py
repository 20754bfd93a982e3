"""State spaces: products over chunks against the definition, and what a mask leaves of the state."""

import pytest
import torch

from seqbench.mixers import Chunk
from seqbench_baselines.state_spaces.recurrence import (
    diagonal_recurrence,
    diagonal_recurrence_reference,
    exponential_less_one,
    powers_of,
    toeplitz,
)
from seqbench_baselines.state_spaces.s4d import S4DPlugin
from seqbench_baselines.urnn.plugin import URNNPlugin


def recurrence_inputs(length: int, batch: int = 2, states: int = 3) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    draw = [torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((states,), (states,))]
    inputs = torch.randn(batch, length, 2, states, generator=generator, dtype=torch.float64)
    before = torch.randn(batch, 2, states, generator=generator, dtype=torch.float64)
    return [-draw[0].exp() / 4, 3 * draw[1], inputs, before]


@pytest.mark.parametrize("length", [1, 2, 31, 32, 33, 100])
def test_chunks_compute_the_recurrence_and_its_gradients(length):
    results = []
    for function in (diagonal_recurrence, diagonal_recurrence_reference):
        leaves = [tensor.requires_grad_() for tensor in recurrence_inputs(length)]
        states = function(*leaves)
        weights = torch.randn(states.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        results.append((states, torch.autograd.grad((states * weights).sum(), leaves)))
    torch.testing.assert_close(*results, rtol=1e-9, atol=1e-9)


def test_gradients_pass_gradcheck():
    inputs = [tensor.requires_grad_() for tensor in recurrence_inputs(5, batch=1, states=2)]
    assert torch.autograd.gradcheck(diagonal_recurrence, inputs)


def test_powers_are_those_of_the_complex_number():
    growth, angle = torch.tensor([-0.1, -2.0], dtype=torch.float64), torch.tensor([0.5, -3.0], dtype=torch.float64)
    real, imaginary = powers_of(growth, angle, 7)
    factor = torch.complex(growth, angle).exp()
    expected = torch.stack([factor**step for step in range(8)], dim=-1)
    torch.testing.assert_close(torch.complex(real, imaginary), expected)


def test_an_exponential_near_one_loses_no_digits():
    growth, angle = torch.tensor([-1e-6]), torch.tensor([2e-6])
    real, imaginary = exponential_less_one(growth, angle)
    expected = torch.special.expm1(torch.tensor(-1e-6, dtype=torch.float64)) - 2e-12
    assert abs(real.item() / expected.item() - 1) < 1e-6
    assert abs(imaginary.item() / 2e-6 - 1) < 1e-5


def test_a_filter_becomes_a_causal_matrix():
    expected = torch.tensor([[1.0, 0.0, 0.0], [2.0, 1.0, 0.0], [3.0, 2.0, 1.0]])
    assert toeplitz(torch.tensor([1.0, 2.0, 3.0])).equal(expected)


@pytest.mark.parametrize("lengths", [(0, 40), (1, 32), (33, 39), (31, 64), (64, 70)])
def test_the_states_of_s4d_are_those_after_each_rows_last_token(lengths):
    """Padding in front of the end of a chunk, at it and behind it."""
    torch.manual_seed(0)
    settings = S4DPlugin.config_class(hidden_size=3, channel_states=4)
    model = S4DPlugin().build(settings)
    mixer = model.model.layers[0].mixer
    hidden = torch.randn(2, 70, 3)
    before = torch.randn(2, 3, 2, 2)
    ids = torch.zeros(2, 70, dtype=torch.int64)
    _, after = mixer(hidden, before, Chunk(ids, ids[:, 0], torch.tensor(lengths)))
    for row, length in enumerate(lengths):
        expected = before[row : row + 1]
        for step in range(length):
            token = hidden[row : row + 1, step : step + 1]
            _, expected = mixer(token, expected, Chunk(ids[:1, :1], ids[:1, 0], None))
        torch.testing.assert_close(after[row], expected[0], rtol=1e-5, atol=1e-5)


def test_the_unitary_transition_keeps_lengths_and_the_matrix_is_that_transition():
    torch.manual_seed(0)
    mixer = URNNPlugin().build(URNNPlugin.config_class(hidden_size=4, state_size=6)).model.layers[0].mixer
    states = torch.randn(3, 6, dtype=torch.complex64)
    turned = mixer.transition(states)
    torch.testing.assert_close(turned.abs().square().sum(-1), states.abs().square().sum(-1))
    # Nothing comes in and nothing shrinks: what one token does to the state is the transition alone.
    with torch.no_grad():
        mixer.b_mod.zero_()
        ids = torch.zeros(3, 1, dtype=torch.int64)
        _, after = mixer(torch.zeros(3, 1, 4), torch.view_as_real(states), Chunk(ids, ids[:, 0], None))
    torch.testing.assert_close(torch.view_as_complex(after.contiguous()), turned)
