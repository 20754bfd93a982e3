"""Covariance attention by blocks of queries gives the numbers and gradients of its definition, in linear memory."""

import pytest
import torch
from scan_support import OPERATOR_RULES, check_compilation, check_writing_of_fresh_memory, normals, with_gradients
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from seqbench_kernels.covariance_attention import (
    OPERATION,
    backward_flops,
    blocks,
    covariance_attention,
    covariance_attention_blockwise,
    covariance_attention_path,
    covariance_attention_reference,
    flops,
    forward_flops,
)
from seqbench_kernels.covariance_attention.reference import hidden_pairs
from seqbench_kernels.dispatch import request_paths

ATTENTION = torch.ops.seqbench.covariance_attention.default
# batch, heads, key heads, length, total, window
SIZES = [
    (1, 1, 1, 1, 1, None),
    (2, 4, 2, 7, 7, None),
    (2, 4, 2, 7, 12, None),
    (2, 3, 3, 9, 14, 4),
    (1, 4, 1, 33, 33, 9),
]


def tensors_of(batch: int, heads: int, key_heads: int, length: int, total: int, size: int = 4) -> list[Tensor]:
    normal = normals(0)
    return [normal(batch, heads, length, size) for _ in range(2)] + [
        normal(batch, key_heads, total, size) for _ in range(2)
    ]


def valid_of(batch: int, length: int, total: int) -> Tensor:
    """The first row has seen fewer tokens than the others."""
    valid = torch.ones(batch, total - length, dtype=torch.bool)
    valid[0, : (total - length) // 2] = False
    return valid


@pytest.fixture(params=[1, 3, 128], autouse=True)
def longest_block(request, monkeypatch):
    """Blocks of one query, of a few, and of all."""
    monkeypatch.setattr(blocks, "_LONGEST_BLOCK", request.param)


def pair(window, valid):
    """The blockwise form and the definition, as functions of tensors alone."""

    def of(attention):
        return lambda *tensors: (attention(*tensors, window, valid),)

    return of(covariance_attention_blockwise), of(covariance_attention_reference)


@pytest.mark.parametrize("ragged", [True, False])
@pytest.mark.parametrize("size", SIZES)
def test_values_and_all_gradients_equal_the_reference(size, ragged):
    *shape, window = size
    valid = valid_of(shape[0], *shape[3:]) if ragged else None
    blockwise, reference = pair(window, valid)
    expected = with_gradients(reference, tensors_of(*shape), torch.float64)
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        actual = with_gradients(blockwise, tensors_of(*shape), dtype)
        for one, other in zip(actual[0] + actual[1], expected[0] + expected[1], strict=True):
            assert one.dtype == dtype and one.shape == other.shape
            torch.testing.assert_close(one.double(), other, rtol=tolerance, atol=tolerance)


def test_gradients_pass_gradcheck():
    tensors = [tensor.requires_grad_() for tensor in tensors_of(2, 4, 2, 5, 8, size=3)]
    for attention in pair(4, valid_of(2, 5, 8)):
        assert torch.autograd.gradcheck(attention, tensors)


def test_it_is_the_slope_of_attention_as_queries_move_against_the_probe():
    """Attention with queries q - e sqrt(size) r have scores lower by e r . k, and outputs by e Cov(v, r . k)."""
    query, probe, key, value = tensors_of(2, 3, 3, 6, 6)
    step = 1e-6

    def attention(sign: int) -> Tensor:
        moved = query - sign * step * key.shape[3] ** 0.5 * probe
        return torch.nn.functional.scaled_dot_product_attention(moved, key, value, is_causal=True)

    plain = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
    expected = plain + (attention(1) - attention(-1)) / (2 * step)
    torch.testing.assert_close(covariance_attention(query, probe, key, value), expected, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(covariance_attention(query, torch.zeros_like(probe), key, value), plain)


def test_what_is_hidden_changes_nothing_and_what_is_seen_does():
    query, probe, key, value = tensors_of(2, 2, 2, 3, 8)
    valid = valid_of(2, 3, 8)
    expected = covariance_attention(query, probe, key, value, 5, valid)
    for place in range(8):
        for row in range(2):
            changed, other = key.clone(), value.clone()
            changed[row, :, place] += 1
            other[row, :, place] -= 2
            actual = covariance_attention(query, probe, changed, other, 5, valid)
            for place_of_query in range(3):
                distance = 5 + place_of_query - place
                seen = 0 <= distance < 5 and (place >= 5 or bool(valid[row, place]))
                same = torch.equal(actual[row, :, place_of_query], expected[row, :, place_of_query])
                assert same != seen, (row, place, place_of_query)


def test_large_scores_stay_finite():
    tensors = [1e3 * tensor for tensor in tensors_of(1, 2, 2, 9, 9)]
    outputs, gradients = with_gradients(pair(None, None)[0], tensors, torch.float32)
    assert all(tensor.isfinite().all() for tensor in outputs + gradients)


def test_memory_of_a_training_step_grows_in_proportion(monkeypatch):
    """The largest buffer of scores does not grow with the length, since blocks become shorter."""
    monkeypatch.setattr(blocks, "_SCORE_ELEMENTS", 1024)
    monkeypatch.setattr(blocks, "_LONGEST_BLOCK", 128)
    largest = []
    for length in (16, 64, 512):
        query, probe, key, _ = tensors_of(1, 2, 2, length, length)
        largest.append(max(block.weights.numel() for block in blocks._blocks(query, probe, key, None, None)))
    assert max(largest) <= 1024
    kept = []
    tensors = [tensor.requires_grad_() for tensor in tensors_of(1, 2, 2, 50, 50)]
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor.numel()) or tensor, lambda t: t):
        covariance_attention(*tensors)
    assert sum(kept) == sum(tensor.numel() for tensor in tensors)


@pytest.mark.parametrize("window", [None, 1, 4, 20])
def test_flops_are_of_the_pairs_inside_the_mask(window):
    for length, total in ((1, 1), (9, 9), (3, 9), (9, 12)):
        visible = ~hidden_pairs(length, total, window, None, 0, length, 0, total, torch.device("cpu"))
        assert flops.visible_pairs(length, total, window) == visible.sum()
        tensors = [tensor.requires_grad_() for tensor in tensors_of(2, 4, 2, length, total)]
        with FlopCounterMode(display=False) as counter:
            output = covariance_attention_blockwise(*tensors, window)
        assert counter.get_total_flops() == 2 * forward_flops(length, total, 4, 4, window)
        assert forward_flops(length, total, 4, 4, window) == 6 * 4 * 4 * visible.sum()
        with FlopCounterMode(display=False) as counter:
            output.sum().backward()
        assert counter.get_total_flops() == 2 * backward_flops(length, total, 4, 4, window)


@pytest.mark.parametrize("gradient", [True, False])
def test_the_operator_keeps_the_rules_of_torch(gradient):
    tensors = [tensor.requires_grad_(gradient) for tensor in tensors_of(2, 4, 2, 5, 8)]
    torch.library.opcheck(ATTENTION, (*tensors, 4, valid_of(2, 5, 8)), test_utils=OPERATOR_RULES[gradient])


def test_it_compiles_to_one_graph_and_reads_no_fresh_memory():
    check_compilation(pair(4, None)[0], tensors_of(2, 4, 2, 5, 8))
    check_writing_of_fresh_memory(pair(4, None)[0], tensors_of(2, 4, 2, 5, 8))


def test_half_precision_is_widened_and_the_reference_can_be_asked_for():
    tensors = tensors_of(1, 2, 2, 4, 4)
    assert covariance_attention(*(tensor.bfloat16() for tensor in tensors)).dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        inside = covariance_attention(*(tensor.float() for tensor in tensors))
    torch.testing.assert_close(inside, covariance_attention(*(tensor.float() for tensor in tensors)))
    request_paths("covariance_attention=reference")
    assert "reference" in covariance_attention_path("cpu")
    torch.testing.assert_close(covariance_attention(*tensors), covariance_attention_reference(*tensors))
    request_paths(None)
    assert OPERATION.available(torch.device("cpu"), torch.float32)[0] == "cpu"


def test_shapes_that_do_not_fit_are_named():
    query, probe, key, value = tensors_of(2, 4, 2, 5, 8)
    with pytest.raises(ValueError, match="probe must be"):
        covariance_attention(query, probe[:, :2], key, value)
    with pytest.raises(ValueError, match="value must be"):
        covariance_attention(query, probe, key, value[:, :, :5])
    with pytest.raises(ValueError, match="prefix_valid must be"):
        covariance_attention(query, probe, key, value, None, torch.ones(2, 8, dtype=torch.bool))
    with pytest.raises(ValueError, match="divide the heads"):
        covariance_attention(query[:, :3], probe[:, :3], key, value)
