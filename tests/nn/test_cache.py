"""The attention cache: any chunks, ragged by padding, continue each row as if it had come in one piece."""

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from model_support import bytes_in, largest_difference, normal
from torch import Tensor

from seqbench.nn import Attention, AttentionCache, advance, pack_rows, plan_chunk, rotary_tables
from seqbench.testing.tensors import storage_bytes_in

HIDDEN, SIZE = 12, 4
WINDOWS = [2, 5, None]


@dataclass
class Layers:
    """Two attention layers on top of each other, as a decoder runs them."""

    window: int | None

    def __post_init__(self) -> None:
        torch.manual_seed(0)
        self.layers = [Attention(HIDDEN, 4, 2, SIZE, self.window, 1e-6, 0.0) for _ in range(2)]

    @torch.no_grad()
    def __call__(self, hidden: Tensor, cache: AttentionCache | None = None, mask: Tensor | None = None) -> Tensor:
        batch, length, _ = hidden.shape
        packing = pack_rows(mask, length)
        if packing is not None:
            hidden = packing.pack(hidden)
        plan = plan_chunk(cache, batch, length, packing, hidden.device)
        rotary = rotary_tables(plan.positions, SIZE, 1e4)
        for index, layer in enumerate(self.layers):
            hidden = hidden + layer(hidden, rotary, plan, cache, index)
        if cache is not None:
            advance(cache, plan, batch, length)
        return hidden if packing is None else packing.unpack(hidden)


DECODERS = {window: Layers(window) for window in WINDOWS}


@pytest.mark.parametrize("window", WINDOWS)
def test_a_query_sees_its_window_or_everything_before_it(window: int | None) -> None:
    layer, hidden = DECODERS[window].layers[0], normal(1, 20, HIDDEN)
    plan = plan_chunk(None, 1, 20, None, hidden.device)
    tables = rotary_tables(plan.positions, SIZE, 1e4)
    other = hidden.clone()
    other[0, 7] += 1
    with torch.no_grad():
        change = (layer(hidden, tables, plan, None, 0) - layer(other, tables, plan, None, 0)).abs().amax(dim=(0, 2))
    last = 19 if window is None else 7 + window - 1
    assert [place for place in range(20) if change[place] > 1e-6] == list(range(7, last + 1))


@settings(max_examples=30)
@given(st.sampled_from(WINDOWS), st.data())
def test_ragged_chunks_continue_every_row_as_its_own_sequence(window: int | None, data: st.DataObject) -> None:
    """Each chunk has padding anywhere; what a row's real tokens give must be what they give in one piece."""
    decoder, batch = DECODERS[window], 3
    lengths = data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=5))
    rows = [st.lists(st.booleans(), min_size=length, max_size=length) for length in lengths]
    masks = [torch.tensor(data.draw(st.tuples(*[row] * batch))) for row in rows]
    chunks = [normal(batch, length, HIDDEN, seed=index) for index, length in enumerate(lengths)]
    cache = AttentionCache(window=window)
    outputs = [decoder(chunk, cache, mask) for chunk, mask in zip(chunks, masks, strict=True)]
    for row in range(batch):
        real = [mask[row] for mask in masks]
        own = torch.cat([output[row, places] for output, places in zip(outputs, real, strict=True)])
        whole = torch.cat([chunk[row, places] for chunk, places in zip(chunks, real, strict=True)])
        assert cache.seen[row] == len(whole)
        if len(whole):
            assert largest_difference(own, decoder(whole.unsqueeze(0))[0]) < 1e-5


@pytest.mark.parametrize("window", WINDOWS)
def test_single_tokens_after_a_padded_prompt_do_not_see_its_padding(window: int | None) -> None:
    hidden, mask = normal(2, 12, HIDDEN), torch.ones(2, 8)
    mask[0, :5] = 0
    mask[1, 3:] = 0
    cache = AttentionCache(window=window)
    DECODERS[window](hidden[:, :8], cache, mask)
    steps = torch.cat([DECODERS[window](hidden[:, place : place + 1], cache) for place in range(8, 12)], dim=1)
    for row in range(2):
        alone = torch.cat((hidden[row, :8][mask[row].bool()], hidden[row, 8:]))
        assert largest_difference(steps[row], DECODERS[window](alone.unsqueeze(0))[0, 3:]) < 1e-5


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("sizes", [[30], [1] * 30, [3, 20, 1, 6], [7, 1, 1, 21]])
def test_chunks_without_padding_give_the_whole_sequence(window: int | None, sizes: list[int]) -> None:
    hidden, cache = normal(2, 30, HIDDEN), AttentionCache(window=window)
    parts = [DECODERS[window](chunk, cache) for chunk in hidden.split(sizes, dim=1)]
    assert largest_difference(torch.cat(parts, dim=1), DECODERS[window](hidden)) < 1e-5


@pytest.mark.parametrize("window", [2, 5])
def test_a_windowed_cache_has_the_same_size_from_the_first_token_on(window: int) -> None:
    sizes = set()
    for length in (1, 3, 5, 40):
        cache = AttentionCache(window=window)
        DECODERS[window](normal(1, length, HIDDEN), cache)
        assert cache.kept == window - 1
        assert cache.valid.sum() == min(length, window - 1)
        sizes.add(bytes_in(cache))
    assert len(sizes) == 1


def test_a_full_cache_grows_by_one_place_a_token() -> None:
    cache = AttentionCache(window=None)
    for length in (4, 1, 7):
        before = cache.kept
        DECODERS[None](normal(1, length, HIDDEN), cache)
        assert cache.kept == before + length
    assert cache.get_seq_length() == 12


@pytest.mark.parametrize("window", WINDOWS)
def test_reordered_rows_continue_as_the_rows_they_came_from(window: int | None) -> None:
    hidden, cache = normal(3, 20, HIDDEN), AttentionCache(window=window)
    mask = torch.ones(3, 11)
    mask[1, :4] = 0
    DECODERS[window](hidden[:, :11], cache, mask)
    expected = AttentionCache(window=window)
    DECODERS[window](hidden[[2, 1, 1], :11], expected, mask[[2, 1, 1]])
    cache.reorder_cache(torch.tensor([2, 1, 1]))
    rest = hidden[[2, 1, 1], 11:]
    assert largest_difference(DECODERS[window](rest, cache), DECODERS[window](rest, expected)) < 1e-6


@pytest.mark.parametrize("window", WINDOWS)
def test_a_chunk_of_padding_only_changes_nothing_that_is_seen_later(window: int | None) -> None:
    hidden = normal(2, 20, HIDDEN)
    cache, undisturbed = AttentionCache(window=window), AttentionCache(window=window)
    for own in (cache, undisturbed):
        DECODERS[window](hidden[:, :8], own)
    DECODERS[window](normal(2, 6, HIDDEN, seed=5), cache, torch.zeros(2, 6))
    assert torch.equal(cache.seen, undisturbed.seen)
    later = [DECODERS[window](hidden[:, 8:], own) for own in (cache, undisturbed)]
    assert largest_difference(*later) < 1e-5


@pytest.mark.parametrize("heads", [1, 2])
def test_a_cache_of_one_row_keeps_nothing_alive_but_what_it_holds(heads: int) -> None:
    attention, cache = Attention(HIDDEN, 2, heads, SIZE, 5, 1e-6, 0.0), AttentionCache(window=5)
    plan = plan_chunk(cache, 1, 4000, None, torch.device("cpu"))
    with torch.no_grad():
        attention(normal(1, 4000, HIDDEN), rotary_tables(plan.positions, SIZE, 1e4), plan, cache, 0)
    assert bytes_in(cache) == 2 * heads * 4 * SIZE * 4 == storage_bytes_in(cache)
