"""The parts of the mixer kit by themselves: states as trees, what a chunk knows, counts continued to any length."""

import dataclasses
import itertools
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from own_gru import GRU
from own_recurrence import GatedRecurrence, OwnRecurrence
from torch import Tensor, nn

from seqbench.contracts import setting
from seqbench.errors import RequestError
from seqbench.mixers import (
    Chunk,
    Mixer,
    MixerLayer,
    MixerPlugin,
    MixerState,
    NoSettings,
    linear_recurrence,
    map_tensors,
)
from seqbench.mixers.counting import layer_flops, layer_state_bytes
from seqbench.mixers.settings import settings_of
from seqbench.mixers.state import owned


class Pair(NamedTuple):
    left: Tensor
    right: Any


def chunk_of(lengths: list[int], length: int, before: list[int] | None = None) -> Chunk:
    rows = len(lengths)
    padded = None if min(lengths) == length else torch.tensor(lengths)
    earlier = torch.zeros(rows, dtype=torch.int64) if before is None else torch.tensor(before)
    return Chunk(torch.zeros(rows, length, dtype=torch.int64), earlier, padded)


# States


def test_a_state_is_any_tree_of_tensors() -> None:
    tree = {"a": [torch.ones(2), None], "b": Pair(torch.zeros(2), (torch.ones(2),))}
    doubled = map_tensors(lambda tensor: 2 * tensor, tree)
    assert doubled["a"][0].tolist() == [2, 2] and doubled["a"][1] is None
    assert isinstance(doubled["b"], Pair) and doubled["b"].right[0].tolist() == [2, 2]


def test_what_cannot_be_carried_is_named() -> None:
    with pytest.raises(TypeError, match="holds a float"):
        map_tensors(lambda tensor: tensor, [1.5])


def test_a_stored_state_owns_its_memory_and_has_no_gradient() -> None:
    whole = torch.ones(2, 100, requires_grad=True) * 1.0
    state = MixerState()
    state.store([owned(whole[:, -1])], torch.tensor([3, 4]))
    [kept] = state.layers
    assert not kept.requires_grad and kept.untyped_storage().nbytes() == 8
    state.store([owned(kept)], torch.tensor([1, 0]))
    assert state.seen is not None and state.seen.tolist() == [4, 4] and state.layers[0] is not whole
    state.reorder_cache(torch.tensor([1, 1, 0]))
    assert state.layers[0].shape == (3,) and state.seen.tolist() == [4, 4, 4]


# Chunks


def test_positions_go_on_where_a_row_ended() -> None:
    assert chunk_of([2, 2], 2, before=[0, 5]).positions.tolist() == [[0, 1], [5, 6]]


def test_places_before_a_call_hold_as_many_tokens_as_a_row_has_seen() -> None:
    chunk = chunk_of([2, 2, 2], 2, before=[0, 1, 5])
    assert chunk.prefix_valid(3).int().tolist() == [[0, 0, 0], [0, 0, 1], [1, 1, 1]]
    assert chunk.prefix_valid(0) is None
    assert chunk_of([2, 0], 2, before=[3, 4]).prefix_valid(3) is None


def test_rotary_tables_are_those_of_the_positions_and_made_once() -> None:
    chunk = chunk_of([3, 3], 3, before=[0, 4])
    cosines, sines = chunk.rotary(4, 100.0)
    angles = torch.tensor([[0.0, 1, 2], [4, 5, 6]])
    torch.testing.assert_close(cosines, torch.stack([(angles * f).cos() for f in (1, 0.1, 1, 0.1)], dim=-1))
    torch.testing.assert_close(sines, torch.stack([(angles * f).sin() for f in (1, 0.1, 1, 0.1)], dim=-1))
    assert chunk.rotary(4, 100.0)[0] is cosines and chunk.rotary(4, 10.0)[0] is not cosines
    begun = dataclasses.replace(chunk_of([3, 3], 3), first=True)
    assert begun.rotary(4, 100.0)[0].equal(cosines[:1])


def test_padding_is_filled_and_whole_rows_are_left_alone() -> None:
    values = torch.ones(2, 3, 1)
    assert chunk_of([3, 3], 3).fill(values, 0.0) is values
    assert chunk_of([3, 0], 3).fill(values, 7.0).flatten().tolist() == [1, 1, 1, 7, 7, 7]


def test_the_last_state_of_a_row_without_tokens_is_the_one_before() -> None:
    values, before = torch.arange(6.0).reshape(2, 3, 1), torch.tensor([[-1.0], [-2.0]])
    assert chunk_of([2, 0], 3).last(values, before).flatten().tolist() == [1, -2]
    assert chunk_of([3, 3], 3).last(values, before).flatten().tolist() == [2, 5]


@given(st.lists(st.integers(0, 5), min_size=1, max_size=3), st.integers(0, 4), st.integers(0, 9))
def test_newest_inputs_are_those_that_a_row_has_seen(lengths: list[int], places: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(len(lengths), 5, 2, generator=generator)
    before = torch.randn(len(lengths), places, 2, generator=generator)
    newest = chunk_of(lengths, 5).newest(values, before, places)
    for row, length in enumerate(lengths):
        seen = torch.cat((before[row], values[row, :length]))
        assert newest[row].equal(seen[len(seen) - places :])
    nothing = [values[:, :0], before * 0, torch.zeros(len(lengths), places + 3, 2)]
    expected = chunk_of(lengths, 5).newest(values, None, places)
    assert all(chunk_of(lengths, 5).newest(values, zeros, places).equal(expected) for zeros in nothing)


@pytest.mark.parametrize("length", [1, 2, 3, 7, 8, 33])
def test_a_linear_recurrence_is_its_loop(length: int) -> None:
    generator = torch.Generator().manual_seed(length)
    keep, added, before = (
        torch.rand(shape, generator=generator, dtype=torch.float64, requires_grad=True)
        for shape in ((2, length, 3), (2, length, 3), (2, 3))
    )
    state, states = before, []
    for place in range(length):
        state = keep[:, place] * state + added[:, place]
        states.append(state)
    expected, found = torch.stack(states, dim=1), linear_recurrence(keep, added, before)
    torch.testing.assert_close(found, expected)
    ours = torch.autograd.grad(found.square().sum(), (keep, added, before))
    for gradient, other in zip(ours, torch.autograd.grad(expected.square().sum(), (keep, added, before)), strict=True):
        torch.testing.assert_close(gradient, other)
    torch.testing.assert_close(linear_recurrence(keep, added, None), linear_recurrence(keep, added, 0 * before))


# Settings


@dataclass(frozen=True)
class Clashing:
    hidden_size: int = setting(3, "not the mixer's to say")


class Clash(Mixer[Any]):
    settings_class = Clashing


def test_a_setting_of_every_decoder_is_not_the_mixers() -> None:
    with pytest.raises(TypeError, match="hidden_size is a setting of every decoder"):
        settings_of(Clash, "clash")


def test_a_position_encoding_that_the_mixer_cannot_apply_is_refused_by_name() -> None:
    with pytest.raises(
        RequestError, match="position_encoding=rotary: own-recurrence takes none, learned, and no other"
    ):
        dataclasses.replace(OwnRecurrence.presets["tiny"], position_encoding="rotary")


def test_the_mixers_own_settings_are_checked() -> None:
    with pytest.raises(RequestError, match="longest_memory must be at least 2"):
        dataclasses.replace(OwnRecurrence.presets["tiny"], longest_memory=1.0)


def test_a_plugin_without_a_docstring_is_described_by_its_mixers_and_else_by_its_summary() -> None:
    named = {"name": "described", "summary": "what it is", "version": "1"}
    for mixer, description in ((GRU, GRU.__doc__), (Clash, None)):
        fields = named | {"mixer": type("Described", (mixer,), {"__doc__": description, "settings_class": NoSettings})}
        assert type("DescribedPlugin", (MixerPlugin,), fields).__doc__ == (description or "what it is")
    assert OwnRecurrence.__doc__ == "A decoder of gated recurrences."


# Counts


class Attending(Mixer[Any]):
    """Attention over all earlier tokens, or over the newest `reach` ones: products of second degree, keys carried."""

    def __init__(self, hidden_size: int, settings: Any) -> None:
        super().__init__(hidden_size, settings)
        self.query, self.key = nn.Linear(hidden_size, hidden_size), nn.Linear(hidden_size, hidden_size)

    def forward(self, hidden: Tensor, state: Any, chunk: Chunk) -> tuple[Tensor, Any]:
        keys = self.key(hidden)
        scores = self.query(hidden) @ keys.transpose(1, 2)
        return scores.tril() @ keys, (keys,)


class Windowed(Attending):
    """Beyond 30 tokens its state grows no more, and of its products no polynomial tells."""

    def forward(self, hidden: Tensor, state: Any, chunk: Chunk) -> tuple[Tensor, Any]:
        keys = self.key(hidden)[:, :30]
        return (self.query(hidden) @ keys.transpose(1, 2)) @ keys, keys


class Told(Windowed):
    @classmethod
    def flops(cls, settings: Any, length: int) -> int:
        return 11 * length

    @classmethod
    def state_bytes(cls, settings: Any, length: int) -> int:
        return 4 * min(length, 30) * settings.hidden_size


@pytest.fixture(scope="module")
def settings() -> Any:
    return settings_of(GRU, "gru")(hidden_size=8, num_hidden_layers=1)


@pytest.mark.parametrize("length", [1, 7, 100, 2**19])
def test_products_of_second_degree_are_continued_exactly(settings: Any, length: int) -> None:
    assert layer_flops(Attending, settings, length) == 2 * 2 * length * 8 * 8 + 2 * 2 * length * length * 8
    assert layer_state_bytes(Attending, settings, length) == 4 * length * 8


def test_what_no_polynomial_tells_is_asked_of_the_mixer(settings: Any) -> None:
    with pytest.raises(RequestError, match=r"Windowed: state_bytes at 72 tokens are 960, where .* give the mixer"):
        layer_state_bytes(Windowed, settings, 100)
    with pytest.raises(RequestError, match=r"classmethod flops\(settings, length\)"):
        layer_flops(Windowed, settings, 100)
    assert layer_flops(Told, settings, 100) == 1100 and layer_state_bytes(Told, settings, 100) == 960


def test_no_tokens_cost_nothing(settings: Any) -> None:
    assert layer_flops(Attending, settings, 0) == layer_state_bytes(Attending, settings, 0) == 0


def test_a_short_convolution_carries_its_newest_inputs_and_bounds_nothing_that_was_unbounded() -> None:
    plugin, plain = OwnRecurrence(), OwnRecurrence.presets["tiny"]
    convolved = dataclasses.replace(plain, short_convolution=4)
    assert plugin.state_bytes(convolved, 9) - plugin.state_bytes(plain, 9) == 4 * 3 * 4 * 64
    assert plugin.receptive_field(convolved) is None
    assert plugin.confounds(convolved)["short convolution"] == "4 taps per channel before each mixer"
    assert plugin.confounds(plain)["short convolution"] == "none"


class Blind(GatedRecurrence):
    @classmethod
    def reach(cls, settings: Any) -> int:
        return 0


class BlindPlugin(MixerPlugin):
    """Of a mixer that looks at no other token."""

    name, summary, version = "blind", "looks at no other token", "1"
    mixer = Blind


@pytest.mark.parametrize(("layers", "taps"), list(itertools.product([1, 3], [0, 4])))
def test_the_receptive_field_is_that_of_all_layers_and_their_convolutions(layers: int, taps: int) -> None:
    settings = dataclasses.replace(BlindPlugin.presets["tiny"], num_hidden_layers=layers, short_convolution=taps)
    assert BlindPlugin().receptive_field(settings) == layers * max(0, taps - 1) + 1


# Residual streams and settings


class WideLayer(MixerLayer):
    wide_residual = True


class WidePlugin(MixerPlugin):
    """Of GRUs on a wide residual stream."""

    name, summary, version = "wide", "GRUs on a wide residual stream", "1"
    mixer = GRU
    layer_class = WideLayer


@pytest.mark.parametrize("norm", ["rms", "layer"])
def test_a_wide_residual_stream_stays_in_fp32_and_its_layers_in_the_dtype_of_their_weights(norm: str) -> None:
    settings: Any = dataclasses.replace(WidePlugin.presets["tiny"], norm=norm, num_hidden_layers=2)
    model = WidePlugin().build(settings).bfloat16()
    streams: list[torch.dtype] = []
    inputs: list[torch.dtype] = []
    for layer in model.model.layers:
        layer.register_forward_hook(lambda layer, given, made: streams.extend((given[0].dtype, made[0].dtype)))
        layer.mixer.register_forward_pre_hook(lambda mixer, given: inputs.append(given[0].dtype))
        layer.mlp.register_forward_pre_hook(lambda mlp, given: inputs.append(given[0].dtype))
    tokens = torch.arange(5).unsqueeze(0)
    model(tokens, labels=tokens).loss.backward()
    assert streams == [torch.float32] * 4 and inputs == [torch.bfloat16] * 4
    wide, narrow = (plugin.build(settings).double() for plugin in (WidePlugin(), NarrowPlugin()))
    narrow.load_state_dict(wide.state_dict())
    assert torch.equal(wide(tokens).logits, narrow(tokens).logits) and wide(tokens).logits.dtype == torch.float64


class NarrowPlugin(MixerPlugin):
    """The same on a stream of the weights' dtype."""

    name, summary, version = "narrow", "GRUs", "1"
    mixer = GRU
    preset_settings = {"tiny": {"hidden_size": 32}, "huge": {"num_hidden_layers": 3}}  # noqa: RUF012


def test_presets_are_changed_and_added_to() -> None:
    presets = NarrowPlugin.presets
    assert list(presets) == ["tiny", "30m", "119m", "huge"] and len(presets) == 4
    assert presets["tiny"].hidden_size == 32 and presets["huge"].num_hidden_layers == 3
    with pytest.raises(KeyError):
        presets["small"]


def test_feed_forward_layers_grow_with_the_width_where_there_are_any() -> None:
    plugin, settings = OwnRecurrence(), OwnRecurrence.presets["tiny"]
    assert plugin.with_width(settings, 128).intermediate_size == 256
    without = dataclasses.replace(settings, feed_forward="none")
    assert plugin.with_width(without, 128).intermediate_size == 128


# First values


class OfMapsAlone(Mixer[Any]):
    """Has no parameter but those of a linear map inside, which it begins by itself."""

    def __init__(self, hidden_size: int, settings: Any) -> None:
        super().__init__(hidden_size, settings)
        self.map = nn.Linear(hidden_size, hidden_size)

    def initialise(self) -> None:
        nn.init.constant_(self.map.bias, 3.0)

    def forward(self, hidden: Tensor, state: Any, chunk: Chunk) -> tuple[Tensor, None]:
        return self.map(hidden), None


class Centred(nn.Module):
    """A shift that begins by itself, for the places around the layers."""

    def __init__(self, size: int, start: float) -> None:
        super().__init__()
        self.start, self.shift = start, nn.Parameter(torch.empty(size))

    def initialise(self) -> None:
        nn.init.constant_(self.shift, self.start)

    def forward(self, hidden: Tensor) -> Tensor:
        return hidden + self.shift


class OfMapsAlonePlugin(MixerPlugin):
    name, summary, version = "of-maps-alone", "a mixer of a linear map, between two shifts", "1"
    mixer = OfMapsAlone

    @classmethod
    def embedding_norm(cls, settings: Any) -> nn.Module:
        return Centred(settings.hidden_size, 1.0)

    @classmethod
    def final_norm(cls, settings: Any) -> nn.Module:
        return Centred(settings.hidden_size, 2.0)


def test_a_mixer_without_parameters_of_its_own_is_asked_for_first_values_too() -> None:
    model = OfMapsAlonePlugin().build(OfMapsAlonePlugin.config_class())
    assert all(layer.mixer.map.bias.eq(3).all() for layer in model.model.layers)


def test_modules_of_the_plugin_stand_behind_the_embedding_and_before_the_head() -> None:
    model = OfMapsAlonePlugin().build(OfMapsAlonePlugin.config_class(num_hidden_layers=1, feed_forward="none"))
    with torch.no_grad():
        model.model.layers[0].mixer.map.weight.zero_()
        ids = torch.tensor([[5, 7]])
        expected = model.model.embed_tokens(ids) + 1 + 3 + 2
        torch.testing.assert_close(model(ids).logits, model.lm_head(expected))
