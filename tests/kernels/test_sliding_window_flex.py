"""Sliding-window attention by FlexAttention: the tables of blocks that it is given, and what it makes of them."""

from functools import partial

import pytest
import torch
from model_support import largest_difference, normal, relative_difference
from torch import Tensor
from torch.nn.attention import flex_attention
from window_attention_support import inputs, validity, with_gradients

from seqbench_kernels.dispatch import UnknownPathError, request_paths
from seqbench_kernels.sliding_window_attention import sliding_window_attention, sliding_window_attention_reference
from seqbench_kernels.sliding_window_attention.flex import window_block_mask
from seqbench_kernels.sliding_window_attention.reference import attention_mask

FLEX_CASES = [
    (300, 0, 100),
    (300, 70, 64),
    (129, 127, 128),
    (128, 0, 1),
    (512, 0, 300),
    (40, 9, None),
    (300, 200, None),
]


@pytest.mark.parametrize(("length", "prefix", "window"), FLEX_CASES)
def test_flex_attentions_blocks_hold_every_pair_of_the_window_and_no_block_in_vain(
    length: int, prefix: int, window: int | None
) -> None:
    total, size = prefix + length, 128
    for prefix_valid in (None, validity(1, prefix)):
        in_window, visible = (
            attention_mask(length, total, window, valid, torch.device("cpu"))[0, 0] for valid in (None, prefix_valid)
        )
        mask = window_block_mask(length, total, window, prefix_valid, torch.device("cpu"))
        pairs = mask.mask_mod(torch.tensor(0), torch.tensor(0), torch.arange(length)[:, None], torch.arange(total))
        assert torch.equal(pairs, visible)
        partly = listed_blocks(mask.kv_num_blocks, mask.kv_indices)
        wholly = listed_blocks(mask.full_kv_num_blocks, mask.full_kv_indices)
        assert not partly & wholly
        for row in range(-(-length // size)):
            for column in range(-(-total // size)):
                block = in_window[row * size : (row + 1) * size, column * size : (column + 1) * size]
                assert ((row, column) in partly | wholly) == bool(block.any())
                if (row, column) in wholly:
                    assert block.shape == (size, size) and block.all() and prefix_valid is None


def listed_blocks(numbers: Tensor, indices: Tensor) -> set[tuple[int, int]]:
    return {
        (row, column)
        for row, count in enumerate(numbers[0, 0].tolist())
        for column in indices[0, 0, row, :count].tolist()
    }


@pytest.mark.parametrize(("length", "prefix", "window"), FLEX_CASES)
def test_flex_attention_with_this_mask_is_the_definition(
    length: int, prefix: int, window: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forward, by FlexAttention's own definition of itself, which runs on a CPU."""
    monkeypatch.setattr(flex_attention, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True)
    query, key, value = (tensor.float() for tensor in inputs(length, prefix, 4, 2))
    for prefix_valid in (None, validity(2, prefix)):
        mask = window_block_mask(length, prefix + length, window, prefix_valid, query.device)
        own = flex_attention.flex_attention(query, key, value, block_mask=mask, enable_gqa=True)
        expected = sliding_window_attention_reference(query, key, value, window, prefix_valid)
        assert largest_difference(own, expected) < 1e-5


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("length", "prefix", "window"), FLEX_CASES)
def test_flex_attention_agrees_with_the_definition_on_a_gpu(
    length: int, prefix: int, window: int | None, dtype: torch.dtype
) -> None:
    places = torch.arange(prefix)
    for prefix_valid in (None, places >= prefix - torch.tensor([prefix, prefix // 2]).unsqueeze(1)):
        sizes = ((2, 4, length, 32), (2, 2, prefix + length, 32), (2, 2, prefix + length, 32))
        rounded = [normal(*size, seed=index).to(dtype) for index, size in enumerate(sizes)]
        valid = None if prefix_valid is None else prefix_valid.cuda()
        flex = partial(sliding_window_attention, implementation="flex_attention")
        own = with_gradients(flex, [tensor.cuda() for tensor in rounded], window, valid)
        exact = [tensor.double() for tensor in rounded]
        expected = with_gradients(sliding_window_attention_reference, exact, window, prefix_valid)
        for actual, reference in zip(own, expected, strict=True):
            assert relative_difference(actual.cpu(), reference) < (1e-2 if dtype == torch.float32 else 0.03)


def test_flex_attention_is_refused_on_a_cpu_with_the_reason() -> None:
    with pytest.raises(ValueError, match="no backward pass on a CPU: choose another attn_implementation there"):
        sliding_window_attention(*inputs(5), 4, implementation="flex_attention")
    request_paths("sliding_window_attention=flex_attention")
    with pytest.raises(UnknownPathError, match=r"cannot serve cpu tensors of float64: .* no backward"):
        sliding_window_attention(*inputs(5), 4)
