"""A mixer is all that an author writes: small files that keep the whole contract, with every switch of the kit."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from exceptional import LookedUp, Nested, Parallel, Penalised, Shared, Streamed
from own_delta_rule import OwnDeltaRule
from own_gru import OwnGRU
from own_recurrence import OwnRecurrence

from seqbench.accounting.counting import count_parameters
from seqbench.mixers import MixerPlugin
from seqbench.testing import check_model_plugin

HERE = Path(__file__).parent
# Lines of the whole file, documentation included.
LIMITS = {"own_gru.py": 40, "own_recurrence.py": 60, "own_delta_rule.py": 80}


def small(plugin: type[MixerPlugin], **changes: Any) -> type[MixerPlugin]:
    """The plugin with one preset, of two narrow layers, and those settings."""
    settings = plugin.config_class(hidden_size=16, intermediate_size=24, num_hidden_layers=2, **changes)
    return type(plugin.__name__, (plugin,), {"presets": {"tiny": settings}, "__module__": plugin.__module__})


@pytest.mark.parametrize("file", LIMITS)
def test_a_mixer_of_ones_own_is_a_small_file(file: str) -> None:
    assert len((HERE / file).read_text().splitlines()) <= LIMITS[file]


# The delta rule goes token by token, and torch's GRU too: what they cost more says nothing more of the kit.
@pytest.mark.parametrize(
    "plugin",
    [
        OwnRecurrence,
        pytest.param(OwnGRU, marks=pytest.mark.slow),
        pytest.param(OwnDeltaRule, marks=pytest.mark.slow),
    ],
)
def test_a_mixer_of_ones_own_keeps_the_contract(plugin: type[MixerPlugin]) -> None:
    check_model_plugin(small(plugin))


@pytest.mark.parametrize(
    "switches",
    [
        {"short_convolution": 4, "norm": "layer", "position_encoding": "learned"},
        {"feed_forward": "none", "tie_word_embeddings": False},
    ],
    ids=lambda switches: ", ".join(switches),
)
def test_with_every_switch_of_the_decoder_too(switches: dict[str, Any]) -> None:
    plugin = small(OwnRecurrence, **switches)
    if "feed_forward" in switches:
        # Without feed-forward layers their width is no axis.
        plugin.fine_axis = None  # type: ignore[misc]
    check_model_plugin(plugin)


@pytest.mark.parametrize("plugin", [Shared, Parallel, Streamed, LookedUp, Nested, Penalised])
def test_what_the_plain_decoder_is_not_made_for_has_room(plugin: type[MixerPlugin]) -> None:
    check_model_plugin(small(plugin))


def test_a_short_convolution_inside_the_mixer_is_the_mixers() -> None:
    plugin = small(Nested, short_convolution=3)
    settings = plugin.presets["tiny"]
    names = [name for name, _ in plugin().build(settings).named_parameters()]
    assert not [name for name in names if "short_convolution" in name]
    assert plugin().confounds(settings)["short convolution"] == "3 taps per channel inside each mixer"
    check_model_plugin(plugin)


def test_a_shared_block_counts_its_parameters_once_and_its_work_each_time() -> None:
    shared, own = small(Shared), small(OwnRecurrence)
    counts = [count_parameters(plugin(), plugin().build(plugin.presets["tiny"])) for plugin in (shared, own)]
    assert 2 * counts[0]["mixer"] == counts[1]["mixer"]
    settings = shared.presets["tiny"]
    assert shared().flops(settings, 50) == own().flops(own.presets["tiny"], 50)
    assert shared().state_bytes(settings, 50) == own().state_bytes(own.presets["tiny"], 50)
    assert shared().confounds(settings)["depth"] == "2 layers, 1 of them with weights of their own"


def test_presets_are_those_of_the_other_decoders() -> None:
    presets = OwnGRU.presets
    assert list(presets) == ["tiny", "30m", "119m"] and len(presets) == 3
    assert dataclasses.asdict(presets["tiny"])["hidden_size"] == 64
