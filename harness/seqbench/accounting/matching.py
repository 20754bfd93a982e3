"""The size solver: the width at which a plugin has the wanted number of parameters, at the depth of its preset."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from seqbench.accounting.counting import count_parameters, non_embedding
from seqbench.accounting.meta_build import build_without_memory
from seqbench.accounting.size_budget import TOLERANCE, Match, ParameterBudget
from seqbench.contracts import ModelPlugin
from seqbench.errors import RequestError

# No search goes beyond this width: 2^20 units of hidden size are more than any model has.
_LARGEST_WIDTH = 2**20


def match_parameters(plugin: ModelPlugin[Any], config: Any, budget: ParameterBudget) -> Match:
    """The config nearest to the budget along the plugin's width axis, then along its fine axis; nothing else changes.

    Raises RequestError when even the narrowest model is too large by more than the tolerance, or no width is wide
    enough.
    """
    axis = plugin.width_axis
    lowest, highest = _bracket(plugin, config, budget)
    widths = sorted(
        (plugin.with_width(config, width) for width in dict.fromkeys((lowest, highest))),
        key=lambda candidate: abs(_count(plugin, candidate, budget) - budget.target),
    )
    # The nearest width refined comes first, so that of two equally good ones the fine axis moves least.
    candidates = [*(_refine(plugin, candidate, budget) for candidate in widths), *widths]
    best = min(candidates, key=lambda candidate: round(abs(_deviation(plugin, candidate, budget)), 4))
    achieved, deviation = _count(plugin, best, budget), _deviation(plugin, best, budget)
    if lowest == axis.step and deviation > TOLERANCE:
        raise RequestError(
            f"model {plugin.name} has {achieved:,} parameters at its narrowest ({axis.field} {lowest}), more than the"
            f" {budget.target:,} asked for; choose a preset of fewer layers or a larger budget"
        )
    return Match(best, achieved, deviation, _differences(config, best))


def require_unsolved(plugin: ModelPlugin[Any], changes: Mapping[str, str]) -> None:
    """Raise RequestError when a changed field, by name, is one that the solver would change in its turn."""
    for axis in (plugin.width_axis, plugin.fine_axis):
        if axis is not None and axis.field in changes:
            raise RequestError(
                f"--params finds {axis.field} of model {plugin.name} itself, and --set gives it as"
                f" {changes[axis.field]}; leave one of them out"
            )


def _bracket(plugin: ModelPlugin[Any], config: Any, budget: ParameterBudget) -> tuple[int, int]:
    """Neighbouring widths, in steps of the axis, with the target between their sizes (or the narrowest twice)."""
    step = plugin.width_axis.step

    def fits(multiple: int) -> bool:
        return _count(plugin, plugin.with_width(config, multiple * step), budget) <= budget.target

    low, high = 1, 2
    if not fits(low):
        return step, step
    while fits(high):
        low, high = high, 2 * high
        if high * step > _LARGEST_WIDTH:
            raise RequestError(
                f"model {plugin.name} stays below {budget.target:,} parameters up to {plugin.width_axis.field}"
                f" {_LARGEST_WIDTH:,}; is {plugin.width_axis.field} its width?"
            )
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low * step, high * step


def _refine(plugin: ModelPlugin[Any], config: Any, budget: ParameterBudget) -> Any:
    """`config` with the fine axis moved to where the count, linear in it, meets the target; or as it was."""
    axis = plugin.fine_axis
    if axis is None:
        return config
    value = getattr(config, axis.field)
    here = _count(plugin, config, budget)
    slope = _count(plugin, dataclasses.replace(config, **{axis.field: value + axis.step}), budget) - here
    if slope <= 0:
        return config
    moved = value + round((budget.target - here) / slope) * axis.step
    try:
        return dataclasses.replace(config, **{axis.field: moved})
    except RequestError:
        # Beyond what the field allows; the widths alone have to do.
        return config


def _deviation(plugin: ModelPlugin[Any], config: Any, budget: ParameterBudget) -> float:
    return (_count(plugin, config, budget) - budget.target) / budget.target


def _count(plugin: ModelPlugin[Any], config: Any, budget: ParameterBudget) -> int:
    parameters = count_parameters(plugin, build_without_memory(plugin, config))
    return sum(parameters.values()) if budget.total else non_embedding(parameters)


def _differences(before: Any, after: Any) -> dict[str, Any]:
    return {
        field.name: getattr(after, field.name)
        for field in dataclasses.fields(before)
        if getattr(after, field.name) != getattr(before, field.name)
    }
