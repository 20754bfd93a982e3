"""RWKV-7's recurrence by chunks is that of its definition, at the fastest decay too."""

import pytest
import torch
import torch.nn.functional as F

from seqbench_baselines.rwkv7.recurrence import recurrence, recurrence_reference


def recurrence_inputs(length: int, fastest: bool = False) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    r, w, k, v, unit, a = (torch.randn(2, length, 2, 4, generator=generator, dtype=torch.float64) for _ in range(6))
    log_decay = torch.full_like(w, -0.6065) if fastest else -0.6065 * w.sigmoid()
    unit = F.normalize(unit, dim=-1)
    before = torch.randn(2, 2, 4, 4, generator=generator, dtype=torch.float64)
    return [r, log_decay, k, v, unit, a.sigmoid() * unit, before]


def with_gradients(function, inputs):
    leaves = [tensor.clone().requires_grad_() for tensor in inputs]
    outputs, state = function(*leaves)
    weights = torch.randn(outputs.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    loss = (outputs * weights.to(outputs)).sum() + state.square().sum()
    return (outputs, state), torch.autograd.grad(loss, leaves)


@pytest.mark.parametrize("fastest", [False, True])
@pytest.mark.parametrize("length", [1, 2, 31, 32, 33, 100])
def test_chunks_compute_the_recurrence_and_its_gradients(length, fastest):
    inputs = recurrence_inputs(length, fastest)
    expected = with_gradients(recurrence_reference, inputs)
    torch.testing.assert_close(with_gradients(recurrence, inputs), expected, rtol=1e-8, atol=1e-8)
    outputs, _ = recurrence(*(tensor.float() for tensor in inputs))
    assert (outputs - expected[0][0]).abs().max() < 1e-4 * expected[0][0].abs().max()


def test_gradients_pass_gradcheck():
    inputs = [tensor[:1, :5, :1].requires_grad_() for tensor in recurrence_inputs(5)[:-1]]
    before = recurrence_inputs(5)[-1][:1, :1].clone().requires_grad_()
    assert torch.autograd.gradcheck(recurrence, (*inputs, before))


def test_a_sequence_cut_anywhere_and_continued_gives_the_same_values():
    *tokens, before = recurrence_inputs(70)
    expected, state, parts = recurrence(*tokens, before), before, []
    for piece in zip(*(tensor.split([1, 30, 39], dim=1) for tensor in tokens), strict=True):
        outputs, state = recurrence(*piece, state)
        parts.append(outputs)
    torch.testing.assert_close((torch.cat(parts, dim=1), state), expected)


def test_tokens_of_zeros_leave_the_state_as_it_is():
    r, log_decay, k, v, removed, written, before = recurrence_inputs(40)
    for tensor in (log_decay, k, written):
        tensor[:, 20:] = 0
    _, after = recurrence(r, log_decay, k, v, removed, written, before)
    _, at_20 = recurrence(*(tensor[:, :20] for tensor in (r, log_decay, k, v, removed, written)), before)
    torch.testing.assert_close(after, at_20)
