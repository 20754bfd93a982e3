"""The size solver: every shipped model meets a parameter budget at the depth of its preset."""

import dataclasses

import pytest
import toy_model
from hypothesis import given, settings
from hypothesis import strategies as st

from seqbench.accounting.counting import count_parameters, non_embedding
from seqbench.accounting.matching import match_parameters
from seqbench.accounting.size_budget import TOLERANCE, ParameterBudget
from seqbench.contracts import WidthAxis
from seqbench.errors import RequestError
from seqbench.plugins.registry import find_model

SHIPPED = ["pmnet", "sliding-window", "transformer", "gated-convolution", "mamba", "mamba2", "hf:llama"]


def size_of(plugin, config, total):
    counts = count_parameters(plugin, plugin.build(config))
    return sum(counts.values()) if total else non_embedding(counts)


@pytest.mark.parametrize("total", [False, True], ids=["non-embedding", "total"])
@pytest.mark.parametrize("model", SHIPPED)
def test_a_shipped_model_meets_the_budget_within_two_percent_at_equal_depth(model: str, total: bool) -> None:
    plugin = find_model(model)
    config = plugin.with_vocabulary(plugin.presets["tiny"], 35)
    match = match_parameters(plugin, config, ParameterBudget(200_000, total))
    assert match.matched and abs(match.deviation) <= TOLERANCE
    assert match.achieved == size_of(plugin, match.config, total)
    assert match.deviation == (match.achieved - 200_000) / 200_000
    axes = {plugin.width_axis.field, "intermediate_size", plugin.fine_axis.field if plugin.fine_axis else ""}
    assert set(match.changed) <= axes


@pytest.mark.parametrize("model", ["pmnet", "transformer", "mamba"])
def test_a_model_that_has_the_size_already_stays_as_it_is(model: str) -> None:
    plugin = find_model(model)
    config = plugin.presets["tiny"]
    assert match_parameters(plugin, config, ParameterBudget(size_of(plugin, config, False))).changed == {}


@settings(max_examples=25, deadline=None)
@given(st.integers(300, 200_000))
def test_no_width_is_nearer_than_the_one_that_is_found(target: int) -> None:
    """The toy has a width in steps of one and nothing finer."""
    plugin = toy_model.Neighbour()
    config = plugin.presets["tiny"]
    match = match_parameters(plugin, config, ParameterBudget(target))
    for other in (match.config.width - 1, match.config.width + 1):
        if other >= 1:
            neighbour = size_of(plugin, dataclasses.replace(config, width=other), False)
            assert abs(neighbour - target) >= abs(match.achieved - target)


def test_a_budget_below_the_narrowest_model_is_refused_with_its_size() -> None:
    plugin = find_model("transformer")
    with pytest.raises(RequestError, match=r"at its narrowest \(hidden_size 8\), more than the 100 asked for"):
        match_parameters(plugin, plugin.presets["tiny"], ParameterBudget(100))


def test_an_axis_that_changes_nothing_is_refused() -> None:
    class Fixed(toy_model.Neighbour):
        width_axis = WidthAxis("symbols", 1)

        def with_width(self, config, width):
            return config

    with pytest.raises(RequestError, match="is symbols its width"):
        match_parameters(Fixed(), toy_model.Neighbour.presets["tiny"], ParameterBudget(10_000))


def test_a_coarse_axis_alone_may_miss_the_budget_and_says_by_how_much() -> None:
    class Coarse(toy_model.Neighbour):
        width_axis = WidthAxis("width", 64)

    match = match_parameters(Coarse(), toy_model.Neighbour.presets["tiny"], ParameterBudget(20_000))
    assert not match.matched
    assert match.deviation == (match.achieved - 20_000) / 20_000
