"""The model under examination: fresh from its plugin, made lively, and in double precision."""

import copy
from collections.abc import Callable
from functools import cached_property
from typing import Any

import torch
from transformers import PreTrainedModel

from seqbench.contracts import ModelPlugin
from seqbench.testing.model.liveliness import lively
from seqbench.testing.model.probe import Probe, narrowest_in_fp64
from seqbench.testing.report import ClauseFailure
from seqbench.testing.tensors import random_tokens

# A prime, so that no size of a model is mistaken for it.
VOCABULARY = 41
# Beyond the 64 tokens up to which some operations take another path, and no multiple of a common block.
LENGTH = 70
# Beyond the next powers of two, for paths and blocks of larger sizes.
LONG = 523


class ModelSubject:
    """A plugin's preset with a small vocabulary.

    Args:
        plugin: under examination.
        preset: name of the preset.
    """

    vocabulary, length = VOCABULARY, LENGTH

    def __init__(self, plugin: ModelPlugin[Any], preset: str) -> None:
        self.plugin, self.preset = plugin, preset

    @property
    def plugin_class(self) -> type:
        """Of the plugin."""
        return type(self.plugin)

    @property
    def exemptions(self) -> Any:
        """Clauses that the plugin declares not to fulfil, with its reasons."""
        return self.plugin.exemptions

    @cached_property
    def config(self) -> Any:
        """The preset's settings, for the small vocabulary."""
        return self.plugin.with_vocabulary(self.plugin.presets[self.preset], VOCABULARY)

    def fresh(self, seed: int = 0) -> PreTrainedModel:
        """A new model, as the plugin builds it after that seed."""
        torch.manual_seed(seed)
        return self.plugin.build(self.config)

    def probe(self) -> Probe:
        """The lively model as it is used."""
        return Probe(copy.deepcopy(self._lively), torch.float32, self.vocabulary)

    @property
    def probes(self) -> list[Probe]:
        """The lively model as it is used and, where all of it runs in fp64, in that: smaller mistakes show there."""
        return [self.probe(), self.sharpest_probe()] if self._runs_in_fp64 else [self.probe()]

    def sharpest_probe(self) -> Probe:
        """The lively model in the precision in which the smallest mistakes show."""
        return self.widest_probe() if self._runs_in_fp64 else self.probe()

    def widest_probe(self) -> Probe:
        """The lively model in fp64 where that runs at all: a nearly forgotten token is nothing in fp32."""
        if self._narrowest_of_fp64 is None:
            return self.probe()
        return Probe(copy.deepcopy(self._lively).double(), torch.float64, self.vocabulary)

    @cached_property
    def long(self) -> int:
        """The longest sequence to try: shorter where the model's config says that it has no further positions."""
        positions = getattr(self._lively.config, "max_position_embeddings", None)
        return min(LONG, positions) if isinstance(positions, int) and positions > LENGTH + 1 else LONG

    @cached_property
    def draws_in_training(self) -> bool:
        """Whether the forward pass in training mode draws random numbers, as dropout does."""
        model = copy.deepcopy(self._lively).train()
        before = torch.random.get_rng_state()
        with torch.no_grad():
            model(random_tokens(1, LENGTH, VOCABULARY))
        return not torch.equal(before, torch.random.get_rng_state())

    @cached_property
    def _lively(self) -> PreTrainedModel:
        return lively(self.fresh(), self.vocabulary, self.length)

    @cached_property
    def _narrowest_of_fp64(self) -> int | None:
        return narrowest_in_fp64(self._lively, random_tokens(1, self.length, self.vocabulary))

    @property
    def _runs_in_fp64(self) -> bool:
        """Whether the model runs in fp64, and computes nothing in less on the way."""
        return self._narrowest_of_fp64 == torch.float64.itemsize


def on_several_draws(check: Callable[[int], None]) -> None:
    """Run `check(seed)` on tokens of that seed; one that fails counts unless it holds for two other draws.

    Where an architecture decides between alternatives (routing to the best of several), a tie within rounding can go
    either way when the same numbers are computed in another order. A mistake fails on every draw.
    """
    try:
        check(0)
    except ClauseFailure as failure:
        for seed in (1, 2):
            try:
                check(seed)
            except ClauseFailure:
                raise failure from None
