"""Every implementation equals a loop over tokens: values and gradients, with any prefix, window and length."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import flash_attention_stand_in
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from model_support import largest_difference, normal, relative_difference
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from window_attention_support import inputs, validity, with_gradients

from seqbench_kernels.dispatch import request_paths
from seqbench_kernels.sliding_window_attention import (
    OPERATION,
    dispatch,
    sliding_window_attention,
    sliding_window_attention_reference,
)
from seqbench_kernels.sliding_window_attention.dispatch import attention_path

HALF = [torch.float16, torch.bfloat16]


def by_tokens(
    query: Tensor, key: Tensor, value: Tensor, window: int | None, prefix_valid: Tensor | None = None
) -> Tensor:
    """Softmax over the keys of the last `window` places that hold a token, one query at a time."""
    batch, heads, length, size = query.shape
    prefix, shared = key.shape[2] - length, heads // key.shape[1]
    output = torch.zeros_like(query)
    for row in range(batch):
        for head in range(heads):
            keys, values = key[row, head // shared], value[row, head // shared]
            for step in range(length):
                last = prefix + step
                seen = [
                    place
                    for place in range(0 if window is None else max(0, last - window + 1), last + 1)
                    if place >= prefix or prefix_valid is None or prefix_valid[row, place]
                ]
                weights = (keys[seen] @ query[row, head, step] * size**-0.5).softmax(dim=0)
                output[row, head, step] = weights @ values[seen]
    return output


def check(tensors: list[Tensor], window: int | None, prefix_valid: Tensor | None = None) -> None:
    own = with_gradients(sliding_window_attention, tensors, window, prefix_valid)
    expected = with_gradients(sliding_window_attention_reference, tensors, window, prefix_valid)
    for actual, reference in zip(own, expected, strict=True):
        assert largest_difference(actual, reference) < 1e-10


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize(
    ("length", "prefix", "window"),
    [(7, 0, 3), (70, 0, 5), (66, 4, 8), (1, 6, 4), (70, 9, 4), (7, 0, None), (30, 9, None), (1, 6, None), (1, 0, None)],
)
def test_each_query_sees_the_last_window_of_real_tokens_and_nothing_else(
    implementation: str, length: int, prefix: int, window: int | None
) -> None:
    """Or without a window all of them."""
    for key_heads in (1, 2):
        tensors = inputs(length, prefix, key_heads=key_heads, batch=1)
        for prefix_valid in (None, validity(1, prefix)):
            output = sliding_window_attention(*tensors, window, prefix_valid, implementation=implementation)
            assert largest_difference(output, by_tokens(*tensors, window, prefix_valid)) < 1e-10


@settings(max_examples=60)
@given(
    length=st.integers(1, 150),
    prefix=st.integers(0, 60),
    window=st.one_of(st.none(), st.integers(1, 40)),
    key_heads=st.sampled_from([1, 2, 4]),
    some_invalid=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_blocks_equal_the_full_mask_in_values_and_gradients(
    length: int, prefix: int, window: int | None, key_heads: int, some_invalid: bool, seed: int
) -> None:
    tensors = inputs(length, prefix, 4, key_heads, seed=seed)
    check(tensors, window, validity(2, prefix, seed) if some_invalid else None)


@pytest.mark.parametrize("window", [1, 2, 16, 31, 32, 33])
@pytest.mark.parametrize("blocks", [2, 3, 5])
@pytest.mark.parametrize("beyond", [-1, 0, 1])
def test_lengths_around_the_border_of_a_block_lose_no_token(window: int, blocks: int, beyond: int) -> None:
    length = max(1, window * blocks + beyond)
    check(inputs(length, batch=1), window)
    # The same behind a prefix that is one place short of a window, as a cache holds it.
    check(inputs(length, window - 1, batch=1), window)


@pytest.mark.parametrize("prefix", [0, 3, 15, 16, 17, 40, 200])
def test_a_prefix_may_be_shorter_or_longer_than_the_window(prefix: int) -> None:
    check(inputs(80, prefix), 16)
    check(inputs(80, prefix), 16, validity(2, prefix))


@pytest.mark.parametrize("length", [1, 10, 100])
def test_a_prefix_without_any_real_token_is_as_good_as_none(length: int) -> None:
    tensors = inputs(length, 12)
    invalid = torch.zeros(2, 12, dtype=torch.bool)
    query, key, value = tensors
    without = sliding_window_attention(query, key[:, :, 12:], value[:, :, 12:], 8)
    assert largest_difference(sliding_window_attention(*tensors, 8, invalid), without) < 1e-10


@pytest.mark.parametrize("length", [5, 100])
def test_what_an_invalid_place_holds_has_no_influence(length: int) -> None:
    query, key, value = inputs(length, 12)
    valid = validity(2, 12)
    expected = sliding_window_attention(query, key, value, 8, valid)
    spoiled = (~valid)[:, None, :, None]
    for tensor in (key, value):
        tensor[:, :, :12] = torch.where(spoiled, 1e6, tensor[:, :, :12])
    assert torch.equal(sliding_window_attention(query, key, value, 8, valid), expected)


@pytest.mark.parametrize("length", [9, 100])
def test_a_window_of_one_returns_the_tokens_own_value(length: int) -> None:
    tensors = inputs(length)
    assert largest_difference(sliding_window_attention(*tensors, 1), tensors[2]) < 1e-12


@pytest.mark.parametrize("length", [9, 100])
def test_a_window_that_covers_the_sequence_is_full_causal_attention(length: int) -> None:
    tensors = inputs(length)
    full = torch.nn.functional.scaled_dot_product_attention(*tensors, is_causal=True)
    for window in (length, length + 1, 10 * length):
        assert largest_difference(sliding_window_attention(*tensors, window), full) < 1e-10


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("window", [16, None])
@pytest.mark.parametrize("length", [40, 400])
def test_dropout_drops_weights_and_keeps_their_expectation(length: int, window: int | None, implementation) -> None:
    query, key, _ = inputs(length, heads=8, key_heads=8)
    ones = torch.ones_like(key)
    attend = partial(sliding_window_attention, query, key, ones, window, implementation=implementation)
    dropped = attend(dropout=0.5)
    assert dropped.std() > 0.1
    assert abs(dropped.mean().item() - 1) < 0.05
    assert largest_difference(attend(dropout=0.0), torch.ones_like(query)) < 1e-10


@pytest.mark.parametrize("dtype", HALF)
def test_the_softmax_written_out_is_taken_in_fp32_for_half_precision(dtype: torch.dtype) -> None:
    """Over 4,096 equal scores the weights are 2^-12 each, and the mean of the values comes out."""
    query = torch.zeros(1, 1, 1, 4, dtype=dtype)
    key, value = torch.zeros(1, 1, 4096, 4, dtype=dtype), normal(1, 1, 4096, 4).to(dtype)
    output = sliding_window_attention(query, key, value, None, implementation="eager")
    assert output.dtype == dtype
    assert largest_difference(output[0, 0, 0], value.double().mean(dim=(0, 1, 2))) < 2e-3


FLASH_CASES = [(7, 0, 3), (70, 0, 5), (66, 4, 8), (1, 6, 4), (33, 9, 4), (7, 0, None), (30, 9, None), (1, 6, None)]


def flash_and_definition(
    length: int, prefix: int, window: int | None, key_heads: int, dtype: torch.dtype, device: str
) -> None:
    """Values and gradients of "flash_attention_2" beside those of the definition, in fp64 on the same numbers."""
    places = torch.arange(prefix)
    # The last places of the prefix hold tokens: all of the first row's, some of the second's, none of the third's.
    kept = torch.tensor([prefix, prefix // 2, 0]).unsqueeze(1)
    for prefix_valid in (None, (places >= prefix - kept)):
        halves = [tensor.to(dtype) for tensor in inputs(length, prefix, 4, key_heads, batch=3)]
        exact = [tensor.double() for tensor in halves]
        valid = None if prefix_valid is None else prefix_valid.to(device)
        flash = partial(sliding_window_attention, implementation="flash_attention_2")
        own = with_gradients(flash, [tensor.to(device) for tensor in halves], window, valid)
        expected = with_gradients(sliding_window_attention_reference, exact, window, prefix_valid)
        for actual, reference in zip(own, expected, strict=True):
            assert actual.dtype == dtype
            assert relative_difference(actual.cpu(), reference) < 0.02


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("key_heads", [1, 2, 4])
@pytest.mark.parametrize(("length", "prefix", "window"), FLASH_CASES)
def test_flash_attn_is_asked_for_what_the_definition_says(
    length: int, prefix: int, window: int | None, key_heads: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a stand-in with the semantics that flash-attn documents; the package itself needs a CUDA device."""
    calls = flash_attention_stand_in.install(monkeypatch)
    flash_and_definition(length, prefix, window, key_heads, dtype, "cpu")
    assert calls == ["flash_attn_func", "flash_attn_varlen_func" if prefix else "flash_attn_func"]


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("key_heads", [1, 2, 4])
@pytest.mark.parametrize(("length", "prefix", "window"), [*FLASH_CASES, (1000, 127, 128), (700, 50, None)])
def test_flash_attn_agrees_with_the_definition(
    length: int, prefix: int, window: int | None, key_heads: int, dtype: torch.dtype
) -> None:
    pytest.importorskip("flash_attn")
    flash_and_definition(length, prefix, window, key_heads, dtype, "cuda")


def test_flash_attn_gets_the_dropout(monkeypatch: pytest.MonkeyPatch) -> None:
    flash_attention_stand_in.install(monkeypatch)
    query, key, _ = (tensor.bfloat16() for tensor in inputs(200, heads=4, key_heads=4))
    dropped = sliding_window_attention(
        query, key, torch.ones_like(key), 16, dropout=0.5, implementation="flash_attention_2"
    )
    assert dropped.std() > 0.1 and abs(dropped.mean().item() - 1) < 0.1


def test_what_flash_attn_cannot_do_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    flash = partial(sliding_window_attention, implementation="flash_attention_2")
    with pytest.raises(ValueError, match="computes in float16 or bfloat16, not in float64"):
        flash(*inputs(5), 4)
    halves = [tensor.half() for tensor in inputs(5, 3)]
    with monkeypatch.context() as patch, pytest.raises(ImportError, match="flash_attn"):
        patch.setitem(sys.modules, "flash_attn", None)
        flash(*halves, 4)
    flash_attention_stand_in.install(monkeypatch)
    with pytest.raises(ValueError, match="needs the empty places of a prefix before its tokens"):
        flash(*halves, 4, torch.tensor([[True, False, True]] * 2))


def test_an_unknown_implementation_is_refused_with_the_known_ones() -> None:
    known = "choose sdpa, eager, flash_attention_2, flex_attention"
    with pytest.raises(ValueError, match=f"'flash_attention_3' is not supported; {known}"):
        sliding_window_attention(*inputs(5), 4, implementation="flash_attention_3")


@pytest.mark.parametrize("prefix", [0, 700])
def test_full_attention_behind_a_prefix_never_forms_the_mask_of_all_pairs(prefix: int) -> None:
    """Nor does a window as wide as the sequence, and the result is that of the definition."""
    tensors = inputs(1200, prefix, batch=1)
    for window in (None, 1200 + prefix, 5000):
        with largest_tensor() as largest:
            own = sliding_window_attention(*tensors, window)
        assert largest[0] < 1200 * (1200 + prefix) // 2
        assert largest_difference(own, sliding_window_attention_reference(*tensors, window)) < 1e-10


def test_a_window_forms_masks_of_its_own_size_whatever_the_length() -> None:
    for length in (1000, 4000):
        tensors = inputs(length, 15, batch=1)
        with largest_tensor(torch.bool) as largest:
            sliding_window_attention(*tensors, 16)
        # Of every block of 16 queries, over two blocks of keys.
        assert largest[0] <= (length + 16) * 2 * 16


@contextmanager
def largest_tensor(dtype: torch.dtype | None = None) -> Iterator[list[int]]:
    """Elements of the largest tensor (of a dtype) that an operator returns; an expanded one has those of its memory."""
    largest = [0]

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            for tensor in result if isinstance(result, (tuple, list)) else [result]:
                if isinstance(tensor, Tensor) and dtype in (None, tensor.dtype):
                    elements = tensor.untyped_storage().nbytes() // tensor.element_size()
                    largest[0] = max(largest[0], elements)
            return result

    with Watch():
        yield largest


def test_inputs_are_left_unchanged_and_need_not_be_contiguous() -> None:
    tensors = inputs(100, 5)
    copies = [tensor.clone() for tensor in tensors]
    expected = sliding_window_attention(*tensors, 8)
    assert all(torch.equal(tensor, copy) for tensor, copy in zip(tensors, copies, strict=True))
    strided = [tensor.transpose(1, 2).contiguous().transpose(1, 2) for tensor in tensors]
    assert torch.equal(sliding_window_attention(*strided, 8), expected)


def test_a_requested_path_wins_over_the_models_choice_and_what_ran_is_noted() -> None:
    OPERATION.taken.clear()
    tensors = inputs(70)
    sliding_window_attention(*tensors, 4)
    assert OPERATION.taken == {"sdpa"}
    sliding_window_attention(*tensors, 4, implementation="eager")
    assert OPERATION.taken == {"sdpa", "reference"}
    OPERATION.taken.clear()
    request_paths("reference")
    expected = sliding_window_attention_reference(*tensors, 4)
    assert torch.equal(sliding_window_attention(*tensors, 4), expected)
    assert OPERATION.taken == {"reference"}
    request_paths("sliding_window_attention=sdpa")
    sliding_window_attention(*tensors, 4, implementation="eager")
    assert OPERATION.taken == {"reference", "sdpa"}


@pytest.mark.parametrize("installed", [True, False])
def test_a_window_on_cuda_goes_to_flash_attn_or_flex_attention_and_on_a_cpu_to_blocks(
    installed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "find_spec", lambda name: object() if installed else None)
    cpu, cuda = torch.device("cpu"), torch.device("cuda")

    def path(device: torch.device, dtype: torch.dtype, head_dim=64, in_blocks=True, dropout=False) -> str:
        return attention_path(device, dtype, head_dim, in_blocks, dropout, "sdpa")

    assert path(cuda, torch.bfloat16) == ("flash_attention_2" if installed else "flex_attention")
    assert path(cuda, torch.bfloat16, dropout=True) == ("flash_attention_2" if installed else "sdpa")
    assert path(cuda, torch.bfloat16, head_dim=20) == "flex_attention"
    assert path(cuda, torch.float32) == "flex_attention"
    # FlexAttention knows no fp64, no dropout and no smaller heads; without a window torch's own attention has kernels.
    assert path(cuda, torch.float64) == path(cuda, torch.float32, dropout=True) == "sdpa"
    assert path(cuda, torch.float32, head_dim=8) == path(cuda, torch.bfloat16, in_blocks=False) == "sdpa"
    assert path(cpu, torch.float32) == path(cpu, torch.bfloat16) == "sdpa"


def test_the_cases_for_timing_can_be_run() -> None:
    for make in OPERATION.cases(torch.device("cpu")).values():
        query, *others = make()
        assert sliding_window_attention(query, *others).shape == query.shape
