"""The chunked delta rule computes its recurrence, and its gradients, at any size, with every kind of decay."""

import functools

import pytest
import torch
import torch.nn.functional as F
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

from seqbench_kernels.delta_rule import (
    OPERATION,
    backward_flops,
    chunks,
    delta_rule,
    delta_rule_chunked,
    delta_rule_path,
    delta_rule_reference,
    forward_flops,
)
from seqbench_kernels.delta_rule.cpu import rule_forward
from seqbench_kernels.delta_rule.flops import chunks_of
from seqbench_kernels.delta_rule.gradient import rule_backward
from seqbench_kernels.dispatch import UnknownPathError, request_paths

DECAYS = ("none", "head", "channel")
every_decay = pytest.mark.parametrize("decay", DECAYS)
# batch, length, heads, key_size, value_size: one token, one chunk, one more than a chunk of either kind, several.
SIZES = [(1, 1, 1, 1, 1), (2, 1, 3, 4, 5), (3, 16, 2, 5, 3), (2, 33, 3, 4, 6), (2, 100, 2, 4, 3)]
RULE, RULE_BACKWARD = (getattr(torch.ops.seqbench, name).default for name in ("delta_rule", "delta_rule_backward"))


def rule_inputs(
    batch: int, length: int, heads: int, key_size: int, value_size: int, decay: str, seed: int = 0
) -> list[Tensor]:
    """All arguments, without log_decay where there is none: keys of length 1, strengths from 0 to 2."""
    normal = normals(seed)
    query, key = normal(batch, length, heads, key_size), F.normalize(normal(batch, length, heads, key_size), dim=-1)
    value, strength = normal(batch, length, heads, value_size), 2 * normal(batch, length, heads).sigmoid()
    shape = {"head": (batch, length, heads), "channel": (batch, length, heads, key_size)}.get(decay)
    decays = [] if shape is None else [-normal(*shape).exp()]
    return [query, key, value, *decays, strength, normal(batch, heads, key_size, value_size)]


def of(rule, decay: str):
    """The rule of the arguments that `rule_inputs` gives."""
    if decay != "none":
        return rule
    return lambda query, key, value, *others: rule(query, key, value, None, *others)


def names(decay: str) -> list[str]:
    return ["query", "key", "value", *(["log_decay"] if decay != "none" else []), "strength", "initial_state"]


@pytest.mark.parametrize("has_state", [True, False])
@pytest.mark.parametrize("size", SIZES)
@every_decay
def test_values_and_all_gradients_equal_the_reference(decay, size, has_state):
    inputs = rule_inputs(*size, decay)[: None if has_state else -1]
    for dtype, tolerance in ((torch.float64, 1e-11), (torch.float32, 3e-5)):
        check_against_reference(
            of(delta_rule_chunked, decay), of(delta_rule_reference, decay), names(decay), inputs, dtype, tolerance
        )


# 0: every chunk by differences of log decays, as where one forgets too much to be taken apart into factors.
@pytest.mark.parametrize("size", SIZES[2:])
@pytest.mark.parametrize("decay", ["head", "channel"])
def test_by_differences_of_log_decays_too(monkeypatch, decay, size):
    monkeypatch.setattr(chunks, "_LARGEST_POWER", 0)
    inputs = rule_inputs(*size, decay)
    for dtype, tolerance in ((torch.float64, 1e-11), (torch.float32, 3e-5)):
        check_against_reference(delta_rule_chunked, delta_rule_reference, names(decay), inputs, dtype, tolerance)


@pytest.mark.parametrize("decay", ["head", "channel"])
def test_the_largest_factors_neither_overflow_nor_lose_digits(decay):
    query, key, value, log_decay, strength, state = rule_inputs(1, 16, 2, 4, 3, decay)
    # Just below the limit, reached by the first half of the chunk: what follows hangs on small differences.
    log_decay = torch.full_like(log_decay, -1e-3)
    log_decay[:, :8] = -0.99 * chunks._LARGEST_POWER / chunks.LOG2_E / 8
    inputs = (query, key, value, log_decay, strength, state)
    check_against_reference(delta_rule_chunked, delta_rule_reference, names(decay), inputs, torch.float32, 1e-5)


def test_the_definition_in_one_head_by_hand():
    # Decay 1/2, then the key recalls 2 of the value 6, half of what is missing is written, and read along q.
    state = torch.tensor([[4.0], [0.0]]).view(1, 1, 2, 1)
    q, k = torch.tensor([3.0, 5.0]).view(1, 1, 1, 2), torch.tensor([1.0, 0.0]).view(1, 1, 1, 2)
    v, b, g = torch.full((1, 1, 1, 1), 6.0), torch.full((1, 1, 1), 0.5), torch.full((1, 1, 1), 0.5).log()
    output, after = delta_rule_reference(q, k, v, g, b, state)
    assert after.flatten().tolist() == pytest.approx([2 + 0.5 * (6 - 2), 0.0])
    assert output.item() == pytest.approx(3 * 4.0)
    # Per channel of the keys: what is forgotten is a row of the state.
    by_channel = torch.tensor([0.5, 0.25]).log().view(1, 1, 1, 2)
    _, after = delta_rule_reference(q, k, v, by_channel, torch.zeros_like(b), torch.ones(1, 1, 2, 1))
    assert after.flatten().tolist() == pytest.approx([0.5, 0.25])


@every_decay
def test_a_strength_of_one_makes_a_key_of_length_one_recall_its_value(decay):
    *tokens, strength, state = rule_inputs(2, 40, 2, 4, 3, decay)
    _, after = of(delta_rule, decay)(*tokens, torch.ones_like(strength), state)
    recalled = torch.einsum("bhkv,bhk->bhv", after, tokens[1][:, -1])
    torch.testing.assert_close(recalled, tokens[2][:, -1])


@pytest.mark.parametrize("decay", ["head", "channel"])
def test_fp32_is_exact_where_a_chunk_forgets_everything_and_then_nothing(decay):
    # The running sum of log decays is -5,000 after five tokens, and differences of 1e-3 follow.
    query, key, value, log_decay, strength, state = rule_inputs(1, 16, 2, 4, 3, decay)
    log_decay = torch.full_like(log_decay, -1e-3)
    log_decay[:, :5] = -1000.0
    inputs = (query, key, value, log_decay, strength, state)
    actual, expected = (
        with_gradients(rule, inputs, dtype)
        for rule, dtype in ((delta_rule_chunked, torch.float32), (delta_rule_reference, torch.float64))
    )
    for one, other in zip(actual[0] + actual[1], expected[0] + expected[1], strict=True):
        assert (one - other).abs().max() < 3e-6 * other.abs().max().clamp(min=1)


@every_decay
def test_keys_that_are_all_alike_lose_no_digits(decay):
    """Where a power series of the triangular system would: its powers grow to 1e17 before they end."""
    query, key, *others = rule_inputs(1, 64, 1, 4, 3, decay)
    key = key[:, :1].expand_as(key).contiguous()
    check_against_reference(
        of(delta_rule_chunked, decay),
        of(delta_rule_reference, decay),
        names(decay),
        [query, key, *others],
        torch.float32,
        3e-5,
    )


@every_decay
def test_gradients_pass_gradcheck_through_outputs_and_final_state(decay):
    small = [tensor.requires_grad_() for tensor in rule_inputs(1, 4, 2, 2, 2, decay)]
    assert torch.autograd.gradcheck(of(delta_rule_chunked, decay), small)
    assert torch.autograd.gradcheck(of(delta_rule_reference, decay), small)
    inputs = [tensor.requires_grad_() for tensor in rule_inputs(1, 35, 2, 2, 1, decay)]
    assert torch.autograd.gradcheck(of(delta_rule_chunked, decay), inputs, fast_mode=True)


@pytest.mark.parametrize("which", [0, 1])
@every_decay
def test_gradients_from_one_result_alone_equal_the_reference(decay, which):
    inputs = [tensor.requires_grad_() for tensor in rule_inputs(2, 40, 3, 3, 2, decay)]
    # The final state does not depend on the queries.
    actual, expected = (
        torch.autograd.grad(of(rule, decay)(*inputs)[which].square().sum(), inputs[which:])
        for rule in (delta_rule_chunked, delta_rule_reference)
    )
    torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("cuts", [(1, 69), (32, 38), (33, 37), (69, 1), (2, 3, 65), (1,) * 6 + (64,)])
@every_decay
def test_a_sequence_cut_anywhere_and_continued_gives_the_same_values(decay, cuts):
    *tokens, state = rule_inputs(2, 70, 3, 4, 5, decay)
    whole, final = of(delta_rule, decay)(*tokens, state)
    parts = []
    for piece in zip(*(tensor.split(cuts, dim=1) for tensor in tokens), strict=True):
        outputs, state = of(delta_rule, decay)(*piece, state)
        parts.append(outputs)
    torch.testing.assert_close((torch.cat(parts, dim=1), state), (whole, final))


@every_decay
def test_rows_that_end_early_keep_their_state(decay):
    *tokens, strength, state = rule_inputs(2, 50, 3, 4, 5, decay)
    strength[1, 20:] = 0
    if decay != "none":
        tokens[-1][1, 20:] = 0
    _, final = of(delta_rule, decay)(*tokens, strength, state)
    _, at_20 = of(delta_rule, decay)(*(tensor[1:, :20] for tensor in (*tokens, strength)), state[1:])
    torch.testing.assert_close(final[1:], at_20)


@every_decay
def test_without_an_initial_state_the_rule_starts_from_zero(decay):
    for length in (1, 40):
        *inputs, state = rule_inputs(2, length, 3, 4, 5, decay)
        rule = of(delta_rule, decay)
        torch.testing.assert_close(rule(*inputs), rule(*inputs, torch.zeros_like(state)))


@every_decay
def test_inputs_are_left_unchanged_and_need_not_be_contiguous(decay):
    inputs = rule_inputs(2, 40, 3, 4, 5, decay)
    strided = [tensor.transpose(0, -1).contiguous().transpose(0, -1) for tensor in inputs]
    copies = [tensor.clone() for tensor in inputs]
    expected, actual = (
        with_gradients(of(delta_rule_chunked, decay), values, torch.float64) for values in (inputs, strided)
    )
    torch.testing.assert_close(actual, expected)
    assert all(torch.equal(tensor, copy) for tensor, copy in zip(inputs, copies, strict=True))


def test_half_precision_is_computed_in_fp32_also_under_autocast():
    inputs = [tensor.bfloat16() for tensor in rule_inputs(2, 40, 3, 4, 5, "head")]
    expected = with_gradients(delta_rule_chunked, [tensor.float() for tensor in inputs], torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        actual = with_gradients(delta_rule, [tensor.float() for tensor in inputs], torch.float32)
        assert delta_rule(*inputs)[0].dtype == torch.float32
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)


@every_decay
def test_every_element_of_fresh_memory_is_written_before_it_is_read(decay):
    check_writing_of_fresh_memory(of(delta_rule, decay), rule_inputs(4, 40, 2, 3, 4, decay))


# A chunk of one stream at a time, and three chunks.
@pytest.mark.parametrize("elements", [1, 3 * 2 * 32 * 32])
@every_decay
def test_how_rows_and_chunks_are_grouped_changes_no_result(monkeypatch, decay, elements):
    inputs = rule_inputs(3, 130, 2, 3, 4, decay)
    expected = with_gradients(of(delta_rule, decay), inputs, torch.float64)
    monkeypatch.setattr(chunks, "_PIECE_ELEMENTS", elements)
    torch.testing.assert_close(with_gradients(of(delta_rule, decay), inputs, torch.float64), expected)


@every_decay
def test_memory_kept_for_the_backward_pass_is_one_state_per_chunk(decay):
    batch, length, heads, key_size, value_size = 2, 320, 3, 8, 5
    inputs = [tensor.float().requires_grad_() for tensor in rule_inputs(2, 320, 3, 8, 5, decay)]
    count, _ = chunks_of(length, decay == "channel")
    assert elements_kept(of(delta_rule, decay), inputs) == batch * heads * key_size * value_size * count


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("has_state", [True, False])
@every_decay
def test_the_operators_keep_torchs_rules(decay, keep, has_state):
    *inputs, state = (tensor.requires_grad_(keep) for tensor in rule_inputs(2, 34, 2, 3, 4, decay))
    if decay == "none":
        inputs.insert(3, None)
    before = state if has_state else None
    torch.library.opcheck(RULE, (*inputs, before, keep), test_utils=OPERATOR_RULES[keep])
    inputs = [None if tensor is None else tensor.detach() for tensor in inputs]
    outputs, final, starts = RULE(*inputs, before, True)
    arguments = (outputs.detach(), final.detach() if has_state else None, *inputs, starts.detach())
    torch.library.opcheck(RULE_BACKWARD, arguments, test_utils=OPERATOR_RULES[False])


@pytest.mark.parametrize("length", [1, 34])
@every_decay
def test_a_compiled_rule_is_one_graph_with_the_same_values_and_gradients(decay, length):
    check_compilation(of(delta_rule, decay), rule_inputs(2, length, 2, 3, 4, decay))


def _system_flops(length: int, heads: int, key_size: int, value_size: int, per_channel: bool) -> int:
    """Of one triangular system per chunk, which the counter does not see: half the products of a square one."""
    count, size = chunks_of(length, per_channel)
    return heads * count * size * size * (key_size + value_size)


@pytest.mark.parametrize("largest", [100, 0])
@pytest.mark.parametrize("size", [size for size in SIZES if size[1] > 1])
@every_decay
def test_flops_are_those_of_the_products_and_systems_that_run(monkeypatch, decay, size, largest):
    """Counted below the operators, whose own formula the counter would take for them."""
    monkeypatch.setattr(chunks, "_LARGEST_POWER", largest)
    batch, *shape = size
    *inputs, initial = rule_inputs(*size, decay)
    if decay == "none":
        inputs.insert(3, None)
    per_channel = decay == "channel"
    with FlopCounterMode(display=False) as counter:
        outputs, final, starts = rule_forward(*inputs, initial, True)
    system = batch * _system_flops(*shape, per_channel)
    assert counter.get_total_flops() + system == batch * forward_flops(*shape, per_channel)
    with FlopCounterMode(display=False) as counter:
        rule_backward(outputs, final, *inputs, starts)
    # One more system, of the gradients.
    assert counter.get_total_flops() + 2 * system == batch * backward_flops(*shape, per_channel)


@every_decay
def test_one_token_costs_three_products(decay):
    *inputs, initial = rule_inputs(3, 1, 2, 4, 5, decay)
    if decay == "none":
        inputs.insert(3, None)
    with FlopCounterMode(display=False) as counter:
        rule_forward(*inputs, initial, False)
    assert counter.get_total_flops() == 3 * forward_flops(1, 2, 4, 5, decay == "channel")


@every_decay
def test_the_counter_sees_the_flops_of_the_operators(decay):
    inputs = [tensor.requires_grad_() for tensor in rule_inputs(3, 70, 2, 3, 5, decay)]
    shape = 70, 2, 3, 5, decay == "channel"
    with FlopCounterMode(display=False) as counter:
        outputs, _ = of(delta_rule, decay)(*inputs)
    assert counter.get_total_flops() == 3 * forward_flops(*shape)
    with FlopCounterMode(display=False) as counter:
        outputs.sum().backward()
    assert counter.get_total_flops() == 3 * backward_flops(*shape)


def test_the_path_that_is_asked_for_runs_and_is_noted():
    inputs = [tensor.requires_grad_() for tensor in rule_inputs(2, 9, 3, 2, 5, "head")]
    for path, node in (("cpu", "seqbench_delta_rule"), ("reference", "Stack")):
        request_paths(f"delta_rule={path}")
        OPERATION.taken.clear()
        outputs, _ = delta_rule(*inputs)
        assert OPERATION.taken == {path}
        assert node.lower() in outputs.grad_fn.name().lower()


def test_a_path_that_there_is_not_is_refused():
    request_paths("delta_rule=triton")
    with pytest.raises(UnknownPathError, match="delta_rule has no path"):
        delta_rule(*rule_inputs(2, 9, 3, 2, 5, "head"))


def test_the_path_taken_is_told_in_words():
    assert delta_rule_path("cpu") == "delta rule by matrix products over chunks"
    request_paths("reference")
    assert "one token at a time" in delta_rule_path("cpu")


def test_shapes_that_do_not_fit_are_named():
    query, key, value, log_decay, strength, state = rule_inputs(2, 5, 3, 2, 4, "head")
    rule = functools.partial(delta_rule, query, key, value)
    with pytest.raises(ValueError, match=r"initial_state must be \(2, 3, 2, 4\)"):
        rule(log_decay, strength, state.transpose(-1, -2))
    with pytest.raises(ValueError, match=r"log_decay must be \(2, 5, 3\)"):
        rule(log_decay[..., :2], strength)
    with pytest.raises(ValueError, match=r"log_decay must be \(2, 5, 3, 2\)"):
        rule(value, strength)
    with pytest.raises(ValueError, match="at least one token"):
        delta_rule(query[:, :0], key[:, :0], value[:, :0], None, strength[:, :0])


def test_the_cases_that_are_timed_run():
    for name, build in OPERATION.cases(torch.device("cpu")).items():
        query, key, value, log_decay, strength = build()
        assert name.startswith(f"{key.shape[0]} x {key.shape[1]} tokens, {key.shape[2]} heads of {key.shape[3]}")
        assert all(tensor.requires_grad for tensor in (query, key, value, strength))
        assert log_decay is None or (log_decay.requires_grad and log_decay.max() <= 0)


@pytest.mark.gpu
@every_decay
def test_the_paths_on_a_gpu_equal_the_reference_on_the_cpu(decay):
    inputs = rule_inputs(2, 150, 4, 16, 32, decay)
    expected = with_gradients(of(delta_rule_reference, decay), inputs, torch.float64)
    device = torch.device("cuda")
    for path in OPERATION.available(device, torch.float32):
        request_paths(f"delta_rule={path}")
        moved = [tensor.to(device) for tensor in inputs]
        actual = with_gradients(of(delta_rule, decay), moved, torch.float32)
        for one, other in zip(actual[0] + actual[1], expected[0] + expected[1], strict=True):
            assert (one.cpu() - other).abs().max() < 1e-4 * other.abs().max().clamp(min=1), path
