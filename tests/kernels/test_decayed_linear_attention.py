"""Chunked linear attention computes its recurrence, and its gradients, for every kind and strength of decay."""

from collections.abc import Callable

import pytest
import torch
from scan_support import (
    OPERATOR_RULES,
    check_against_reference,
    check_compilation,
    check_writing_of_fresh_memory,
    elements_kept,
    normals,
    with_gradients,
)
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from seqbench_kernels.decayed_linear_attention import (
    OPERATION,
    backward_flops,
    chunk,
    decayed_linear_attention,
    decayed_linear_attention_chunked,
    decayed_linear_attention_path,
    decayed_linear_attention_reference,
    forward_flops,
)
from seqbench_kernels.decayed_linear_attention.cpu import attention_forward
from seqbench_kernels.decayed_linear_attention.gradient import attention_backward
from seqbench_kernels.dispatch import request_paths

NAMES = ("q", "k", "v", "log_decay", "initial_state")
KINDS = ("none", "head", "channel", "complex")
# batch, length, heads, key_size, value_size
SIZES = [(1, 1, 1, 1, 1), (2, 1, 3, 4, 5), (3, 63, 2, 5, 3), (2, 64, 1, 4, 8), (2, 65, 2, 3, 2), (1, 200, 2, 4, 3)]
ATTENTION, ATTENTION_BACKWARD = (
    getattr(torch.ops.seqbench, name).default
    for name in ("decayed_linear_attention", "decayed_linear_attention_backward")
)


def of_real_numbers(function: Callable[..., tuple[Tensor, Tensor]], kind: str) -> Callable[..., tuple[Tensor, Tensor]]:
    """The function of q, k, v, the log decays unless there are none, and perhaps a state; complex as trailing pairs."""

    def scan(q: Tensor, k: Tensor, v: Tensor, *rest: Tensor) -> tuple[Tensor, Tensor]:
        log_decay = None if kind == "none" else rest[0]
        state = rest[kind != "none" :]
        if kind != "complex":
            return function(q, k, v, log_decay, *state)
        complexes = [torch.view_as_complex(tensor.contiguous()) for tensor in (q, k, v, *state)]
        return tuple(torch.view_as_real(each) for each in function(*complexes[:3], log_decay, *complexes[3:]))

    return scan


def attention_inputs(
    kind: str, batch: int, length: int, heads: int, key_size: int, value_size: int, strength: float = 0.3
) -> list[Tensor]:
    """Of `of_real_numbers`; a log decay is -strength times a number around 1."""
    normal, pair = normals(0), (2,) if kind == "complex" else ()
    tensors = [normal(batch, length, heads, size, *pair) for size in (key_size, key_size, value_size)]
    if kind != "none":
        tensors.append(-strength * normal(batch, length, heads, *([key_size] if kind == "channel" else [])).exp())
    return [*tensors, normal(batch, heads, key_size, value_size, *pair)]


def pair_of(kind: str) -> tuple[Callable[..., tuple[Tensor, Tensor]], Callable[..., tuple[Tensor, Tensor]]]:
    return tuple(
        of_real_numbers(each, kind) for each in (decayed_linear_attention_chunked, decayed_linear_attention_reference)
    )


def names_of(kind: str) -> list[str]:
    return [name for name in NAMES if kind != "none" or name != "log_decay"]


@pytest.mark.parametrize("has_state", [True, False])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", KINDS)
def test_values_and_all_gradients_equal_the_reference(kind, size, has_state):
    inputs = attention_inputs(kind, *size)
    inputs = inputs if has_state else inputs[:-1]
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        check_against_reference(*pair_of(kind), names_of(kind), inputs, dtype, tolerance)


@pytest.mark.parametrize("strength", [3.0, 40.0, 1e4])
@pytest.mark.parametrize("kind", ["head", "channel", "complex"])
def test_strong_decays_are_exact_where_a_split_over_the_chunk_would_overflow(kind, strength):
    inputs = attention_inputs(kind, 2, 70, 2, 3, 2, strength)
    check_against_reference(*pair_of(kind), names_of(kind), inputs, torch.float32, 1e-5)


def test_one_token_that_forgets_everything_leaves_those_around_it_exact():
    """The running sum of log decays falls by 20,000 at a token, and differences of 1e-3 follow."""
    for kind in ("head", "channel"):
        inputs = attention_inputs(kind, 1, 60, 2, 4, 5)
        inputs[3].fill_(-1e-3)[:, 10:12] = -1e4
        check_against_reference(*pair_of(kind), names_of(kind), inputs, torch.float32, 1e-5)


def test_growing_states_stay_finite_where_the_definition_does():
    for kind in ("head", "channel"):
        inputs = attention_inputs(kind, 1, 64, 2, 3, 4)
        inputs[3].fill_(1.0)
        check_against_reference(*pair_of(kind), names_of(kind), inputs, torch.float64, 1e-11)


def test_a_complex_key_is_conjugated_in_the_reference_too():
    one, turned = torch.ones(1, 1, 1, 1, dtype=torch.complex64), torch.full((1, 1, 1, 1), 1j)
    for attention in (decayed_linear_attention_reference, decayed_linear_attention):
        output, state = attention(one, turned, one)
        assert output.item() == state.item() == -1j
        assert attention(turned, turned, one)[0].item() == 1


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_pass_gradcheck_through_outputs_and_final_state(kind):
    chunked, reference = pair_of(kind)
    small = [tensor.requires_grad_() for tensor in attention_inputs(kind, 2, 5, 2, 2, 3, strength=20.0)]
    assert torch.autograd.gradcheck(chunked, small)
    assert torch.autograd.gradcheck(reference, small)
    longer = [tensor.requires_grad_() for tensor in attention_inputs(kind, 2, 67, 2, 1, 1)]
    assert torch.autograd.gradcheck(chunked, longer, fast_mode=True)


@pytest.mark.parametrize("length", [1, 40, 70])
@pytest.mark.parametrize("which", [0, 1])
def test_gradients_from_one_result_alone_equal_the_reference(which, length):
    inputs = [tensor.requires_grad_() for tensor in attention_inputs("channel", 2, length, 2, 3, 4)]
    # No query reads the final state.
    leaves = inputs[which:]
    actual, expected = (
        torch.autograd.grad(attention(*inputs)[which].square().sum(), leaves) for attention in pair_of("channel")
    )
    torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("cuts", [(1, 149), (64, 86), (65, 85), (149, 1), (2, 3, 145), (1,) * 6 + (144,)])
@pytest.mark.parametrize("kind", KINDS)
def test_a_sequence_cut_anywhere_and_continued_gives_the_same_values(kind, cuts):
    *tokens, state = attention_inputs(kind, 2, 150, 2, 3, 5)
    attention = of_real_numbers(decayed_linear_attention, kind)
    expected, parts = attention(*tokens, state), []
    for piece in zip(*(tensor.split(cuts, dim=1) for tensor in tokens), strict=True):
        outputs, state = attention(*piece, state)
        parts.append(outputs)
    torch.testing.assert_close((torch.cat(parts, dim=1), state), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_that_end_early_keep_their_state_whatever_their_values_are_filled_with(kind):
    inputs = attention_inputs(kind, 2, 90, 2, 3, 5)
    filled = [tensor.clone() for tensor in inputs]
    filled[1][0, 50:] = 0
    if kind != "none":
        filled[3][0, 50:] = 0
    attention = of_real_numbers(decayed_linear_attention, kind)
    _, final = attention(*filled)
    _, at_50 = attention(*(tensor[:1, :50] for tensor in inputs[:-1]), inputs[-1][:1])
    torch.testing.assert_close(final[:1], at_50)
    filled[2][0, 50:] = 7.0
    torch.testing.assert_close(attention(*filled)[1], final, rtol=0, atol=0)


def test_without_an_initial_state_it_starts_from_zero():
    for length in (1, 40, 70):
        *inputs, state = attention_inputs("channel", 2, length, 2, 3, 5)
        torch.testing.assert_close(
            decayed_linear_attention(*inputs), decayed_linear_attention(*inputs, torch.zeros_like(state))
        )


def test_a_decay_per_head_is_the_same_number_in_every_channel():
    q, k, v, logs, state = attention_inputs("head", 2, 70, 2, 3, 5)
    every = logs.unsqueeze(-1).expand(*logs.shape, 3)
    torch.testing.assert_close(
        decayed_linear_attention(q, k, v, every, state), decayed_linear_attention(q, k, v, logs, state)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_inputs_are_left_unchanged_and_need_not_be_contiguous(kind):
    inputs, (chunked, _) = attention_inputs(kind, 2, 70, 2, 3, 5), pair_of(kind)
    strided = [tensor.transpose(0, 1).contiguous().transpose(0, 1) for tensor in inputs]
    copies = [tensor.clone() for tensor in inputs]
    expected, actual = (with_gradients(chunked, values, torch.float64) for values in (inputs, strided))
    torch.testing.assert_close(actual, expected)
    assert all(torch.equal(tensor, copy) for tensor, copy in zip(inputs, copies, strict=True))


def test_half_precision_is_widened_also_under_autocast():
    inputs = [tensor.bfloat16() for tensor in attention_inputs("channel", 2, 70, 2, 3, 5)]
    expected = with_gradients(decayed_linear_attention_chunked, [tensor.float() for tensor in inputs], torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        actual = with_gradients(decayed_linear_attention, [tensor.float() for tensor in inputs], torch.float32)
        assert decayed_linear_attention(*inputs)[0].dtype == torch.float32
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_every_element_of_fresh_memory_is_written_before_it_is_read(kind):
    for strength in (0.3, 40.0):
        check_writing_of_fresh_memory(pair_of(kind)[0], attention_inputs(kind, 4, 70, 2, 3, 4, strength))


def test_how_the_batch_is_cut_changes_no_result(monkeypatch):
    inputs = attention_inputs("channel", 5, 70, 2, 3, 4)
    expected = with_gradients(decayed_linear_attention, inputs, torch.float64)
    monkeypatch.setattr(chunk, "_SCORE_ELEMENTS", 3 * 2 * 64**2)
    torch.testing.assert_close(with_gradients(decayed_linear_attention, inputs, torch.float64), expected)


def test_memory_kept_for_the_backward_pass_is_one_state_per_chunk_and_the_final_one():
    kept = []
    for length in (640, 1280):
        inputs = [tensor.float().requires_grad_() for tensor in attention_inputs("channel", 2, length, 4, 8, 16)]
        kept.append(elements_kept(decayed_linear_attention, inputs))
    assert kept == [2 * 4 * 8 * 16 * 11, 2 * 4 * 8 * 16 * 21]


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("has_state", [True, False])
def test_the_operators_keep_torchs_rules(keep, has_state):
    *inputs, state = (tensor.requires_grad_(keep) for tensor in attention_inputs("channel", 2, 66, 2, 3, 4))
    torch.library.opcheck(ATTENTION, (*inputs, state if has_state else None, keep), test_utils=OPERATOR_RULES[keep])
    *inputs, state = (tensor.detach() for tensor in (*inputs, state))
    output, *saved = ATTENTION(*inputs, state if has_state else None, True)
    arguments = (output, state if has_state else None, *inputs, *saved, has_state)
    torch.library.opcheck(ATTENTION_BACKWARD, arguments, test_utils=OPERATOR_RULES[False])


@pytest.mark.parametrize("kind", ["head", "complex"])
@pytest.mark.parametrize("length", [1, 66])
def test_a_compiled_call_is_one_graph_with_the_same_values_and_gradients(length, kind):
    check_compilation(of_real_numbers(decayed_linear_attention, kind), attention_inputs(kind, 2, length, 2, 3, 4))


@pytest.mark.parametrize("has_state", [True, False])
@pytest.mark.parametrize("size", SIZES)
def test_flops_are_those_of_the_matrix_products_that_run(size, has_state):
    """Counted below the operators, whose own formula the counter would take for them."""
    batch, length, heads, key_size, value_size = size
    *inputs, initial = attention_inputs("channel", *size, strength=0.01)
    before = initial if has_state else None
    shape = length, heads, key_size, value_size, has_state
    with FlopCounterMode(display=False) as counter:
        _, *saved = attention_forward(*inputs, before, True)
    assert counter.get_total_flops() == batch * forward_flops(*shape)
    for after in (initial, None):
        with FlopCounterMode(display=False) as counter:
            attention_backward(inputs[2], after, *inputs, *saved, has_state)
        assert counter.get_total_flops() == batch * backward_flops(*shape, after is not None)


@pytest.mark.parametrize("kind", ["head", "complex"])
def test_the_counter_sees_the_flops_of_the_operators(kind):
    """A complex product is four real ones."""
    attention = of_real_numbers(decayed_linear_attention, kind)
    inputs = [tensor.requires_grad_() for tensor in attention_inputs(kind, 3, 150, 2, 3, 5)]
    with FlopCounterMode(display=False) as counter:
        outputs, state = attention(*inputs)
    times, shape = 12 if kind == "complex" else 3, (150, 2, 3, 5, True)
    assert counter.get_total_flops() == times * forward_flops(*shape)
    for loss, has_state_gradient in ((outputs.sum(), False), (outputs.sum() + state.sum(), True)):
        with FlopCounterMode(display=False) as counter:
            loss.backward(retain_graph=True)
        assert counter.get_total_flops() == times * backward_flops(*shape, has_state_gradient)


def test_the_path_that_is_asked_for_runs_and_is_noted():
    inputs = [tensor.requires_grad_() for tensor in attention_inputs("head", 2, 9, 2, 3, 5)]
    assert decayed_linear_attention_path("cpu") == "chunked linear attention by torch's matrix products"
    for path, node in (("cpu", "seqbench_decayed_linear_attention"), ("reference", "Stack")):
        request_paths(f"decayed_linear_attention={path}")
        OPERATION.taken.clear()
        outputs, _ = decayed_linear_attention(*inputs)
        assert OPERATION.taken == {path}
        assert node.lower() in outputs.grad_fn.name().lower()


def test_shapes_that_do_not_fit_are_named():
    q, k, v, logs, state = attention_inputs("channel", 2, 5, 4, 3, 2)
    with pytest.raises(ValueError, match=r"initial_state must be \(2, 4, 3, 2\)"):
        decayed_linear_attention(q, k, v, logs, state.transpose(2, 3))
    with pytest.raises(ValueError, match=r"log_decay must be \(2, 5, 4, 3\)"):
        decayed_linear_attention(q, k, v, logs[..., :1], state)
    with pytest.raises(ValueError, match="at least one token"):
        decayed_linear_attention(q[:, :0], k, v, logs)


def test_the_cases_that_are_timed_run():
    for name, build in OPERATION.cases(torch.device("cpu")).items():
        q, _, _, logs = build()
        assert name.startswith(f"{q.shape[0]} x {q.shape[1]} tokens, {q.shape[2]} heads of {q.shape[3]}, ")
        assert (logs.dim() == 4) == name.endswith("channel") and q.is_complex() == name.endswith("complex")
        assert logs.requires_grad and logs.max() < 0
