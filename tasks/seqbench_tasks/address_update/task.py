"""The task plugin of address-update."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from seqbench.contracts import IGNORED_LABEL, PublishedScore
from seqbench_tasks.address_update.config import AddressUpdateConfig
from seqbench_tasks.address_update.generate import bind, segment
from seqbench_tasks.address_update.presets import PRESETS, published_scores
from seqbench_tasks.address_update.rules import DIGITS, FAMILIES
from seqbench_tasks.synthetic import Difficulty, Draws, Ids, Samples, SyntheticTask


@dataclass(frozen=True)
class Filler(Difficulty):
    """Episodes with this many filler tokens before each question."""

    filler: int


class AddressUpdateTask(SyntheticTask[AddressUpdateConfig, Filler]):
    """Learn a rule under an address, then another rule under the same address, and answer by the new one.

    An episode has two segments of demonstrations [address, family, x, delimiter, y], a filler and a question
    [address, family, x, delimiter]. One with two demonstrations in a segment and a filler of one token; "@" is the
    address, "+" the family ADD10, ":" the delimiter, "/" the boundary, "." the filler, and "-" marks positions without
    a label. The first rule adds 3, the second adds 5:

        inputs     @ + 2 : 5 @ + 7 : 0 . @ + 4 : / @ + 9 : 4 @ + 1 : 6 . @ + 4 :
        labels     - - - - - - - - - - - - - - 7 - - - - - - - - - - - - - - - 9

    Both questions ask for the same digit, which is never demonstrated, and their answers differ. The primary metric,
    updated_accuracy, is the share of right answers to the second question; stale_rate is the share of answers to it
    that the first rule would give, and first_accuracy is about the first question. The published task has two contexts
    with a memory carried between them; here both segments are one sequence, and a model's state does the same.

    The demonstrations always decide the rule: an oracle scores 1.
    """

    name = "address-update"
    summary = "a rule is bound to an address, then another to the same address: is the new one used?"
    version = "2"
    config_class = AddressUpdateConfig
    presets = PRESETS
    primary_metric = "updated_accuracy"
    primary_coordinate = "filler"

    @property
    def vocab_size(self) -> int:
        """Digits, addresses, families and signs."""
        return self.config.vocab_size

    def training_mixture(self) -> Mapping[Filler, int]:
        """The training fillers, equally often."""
        return dict.fromkeys(map(Filler, self.config.training_fillers), 1)

    def test_set(self) -> Mapping[Filler, int]:
        """The fillers that the config names, which may go beyond training."""
        return dict.fromkeys(map(Filler, self.config.test_fillers), self.config.test_samples)

    def samples(self, difficulty: Filler, draws: Draws) -> Samples:
        """Episodes with a label at the delimiter of both questions."""
        config = self.config
        address = config.first_address + draws.below(config.addresses, 1)
        question = draws.below(DIGITS, 1)
        first = bind(config, draws, question)
        stale = first.answer(question)
        second = bind(config, draws, question, unlike=stale)
        # The digits besides the question's, in two orders.
        others = (question[:, :, None] + 1 + draws.permutations(2, DIGITS - 1)) % DIGITS
        shown = others[:, :, : config.demonstrations]
        before = segment(config, difficulty.filler, address, first, shown[:, 0], question)
        after = segment(config, difficulty.filler, address, second, shown[:, 1], question)
        input_ids = np.concatenate((before, np.full_like(address, config.boundary), after), axis=1)

        at_first, at_second = before.shape[1] - 1, input_ids.shape[1] - 1
        updated = second.answer(question)
        asked_first = _labels(input_ids, at_first, stale)
        asked_second = _labels(input_ids, at_second, updated)
        by_family = {
            f"{family.lower()}_accuracy": np.where(second.family[:, None] == place, asked_second, IGNORED_LABEL)
            for place, family in enumerate(FAMILIES)
            if len(config.families) > 1
        }
        answers = {
            "updated_accuracy": asked_second,
            "stale_rate": _labels(input_ids, at_second, stale),
            "first_accuracy": asked_first,
            **by_family,
        }
        # One of the two is IGNORED_LABEL, the smallest number, wherever the other is not.
        return Samples(input_ids, np.maximum(asked_first, asked_second), answers)

    def chance(self, difficulty: Filler) -> float:
        """One digit."""
        del difficulty
        return 1 / DIGITS

    def lookback(self, difficulty: Filler) -> int:
        """From a question's delimiter to the last demonstrated answer."""
        return difficulty.filler + 4

    def notes(self) -> list[str]:
        """What the stale rate means."""
        return [
            "Updated accuracy counts answers by the second rule, the stale rate answers by the first one to the same "
            "question. The two always differ; a model that has forgotten both gives a stale rate of 10.0%.",
            "The look-back is to the last demonstration; ADD10 needs one of them, AFFINE10 two or more.",
        ]

    def published(self) -> Sequence[PublishedScore]:
        """Scores of the Consolidator, for its own settings."""
        return published_scores(self.config)

    def item_score(self, item: Mapping[str, Any]) -> tuple[float, float]:
        """Whether the second question was answered by the second rule."""
        return float(item["updated_accuracy_named"]), 1.0


def _labels(input_ids: Ids, position: int, ids: Ids) -> Ids:
    """`ids` (episodes, 1) at one position, IGNORED_LABEL elsewhere."""
    labels = np.full_like(input_ids, IGNORED_LABEL)
    labels[:, position : position + 1] = ids
    return labels
