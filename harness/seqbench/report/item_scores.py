"""Comparison by item: the scores of test items, as their task reads them from what each run has stored."""

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seqbench.contracts import TaskPlugin
from seqbench.report.results import Result, complete, label_of
from seqbench.statistics.items import ItemComparison, compare_items
from seqbench.store.damage import DamagedFile
from seqbench.store.files import read_json_lines
from seqbench.store.forms import ITEM

# A figure that was summed in single precision differs this much, relatively, from the sum of its items.
_ROUNDING = 1e-5


class ItemsUnusable(Exception):
    """The items of a run cannot be compared; the message says why."""


@dataclass(frozen=True)
class ItemScores:
    """Scores of a run's test items, ordered by their place in the test set.

    Attributes:
        index: (items,) place in the test set, ascending.
        scores: (items,) score of each; the mean over them, weighted, is the run's figure.
        weights: (items,) weight of each.
    """

    index: NDArray[np.int64]
    scores: NDArray[np.float64]
    weights: NDArray[np.float64]

    def same_items(self, other: "ItemScores") -> bool:
        """Whether both are of the same items with the same weights."""
        return np.array_equal(self.index, other.index) and np.array_equal(self.weights, other.weights)


# The items of a complete result. Raises ItemsUnusable when there are none, or none that can be compared.
ReadItems = Callable[[Result], ItemScores]


def read_items(path: Path) -> list[Any]:
    """The items in a file. Raises ItemsUnusable when it is missing, or not as it was written."""
    try:
        return read_json_lines(path, ITEM)
    except FileNotFoundError as error:
        raise ItemsUnusable(f"{path} is missing") from error
    except DamagedFile as error:
        raise ItemsUnusable(f"{path} is damaged: {error.why}") from error


def read_item_scores(task: TaskPlugin[Any], path: Path, figure: float | None) -> ItemScores:
    """Scores of the items in the file `path`, which must have `figure` as their weighted mean.

    Raises ItemsUnusable when the file is missing or empty, the task cannot score an item, or the mean is another.
    """
    items = read_items(path)
    if not items:
        raise ItemsUnusable("the task stores no items")
    try:
        rows = sorted((item["index"], *map(float, task.item_score(item))) for item in items)
        index, scores, weights = (np.array(column) for column in zip(*rows, strict=True))
        mean = float(np.average(scores, weights=weights))
    except Exception as error:
        # A task is a stranger's code; the comparison by seeds stands without it.
        raise ItemsUnusable(f"the task cannot score its items ({type(error).__name__}: {error})") from error
    if figure is None or not math.isclose(mean, figure, rel_tol=_ROUNDING, abs_tol=_ROUNDING):
        raise ItemsUnusable(f"its items make {mean:.6g}, not the {figure} of the result")
    return ItemScores(index, scores, weights)


class ItemPairs:
    """The items of several results, each read once, and what can be said of two models by them."""

    def __init__(self, results: Sequence[Result], read_items: ReadItems) -> None:
        self._results = {(label_of(result), result["seed"]): result for result in complete(results)}
        self._read_items = read_items
        self._known: dict[tuple[str, int], ItemScores | None] = {}
        # Why items are not compared -> of which runs.
        self._reasons: dict[str, list[str]] = defaultdict(list)

    def compare(self, first: str, second: str, seeds: Sequence[int]) -> ItemComparison | None:
        """First minus second, each averaged over the seeds; None where an item is missing or is not the same."""
        known = [(self._scores(first, seed), self._scores(second, seed)) for seed in seeds]
        pairs = [(one, other) for one, other in known if one is not None and other is not None]
        if len(pairs) < len(known):
            return None
        reference = pairs[0][0]
        if not all(reference.same_items(scores) for pair in pairs for scores in pair):
            self._reasons["their items are not the same"].append(f"{first} and {second}")
            return None
        ours, theirs = (np.mean([pair[number].scores for pair in pairs], axis=0) for number in (0, 1))
        return compare_items(ours, theirs, reference.weights)

    def remarks(self) -> list[str]:
        """One line for each reason why items are not compared."""
        lines = []
        for reason, runs in self._reasons.items():
            whose = "" if len(runs) == len(self._known) else f" for {', '.join(runs)}"
            lines.append(f"no comparison by item{whose}: {reason}")
        return lines

    def _scores(self, label: str, seed: int) -> ItemScores | None:
        if (label, seed) not in self._known:
            try:
                self._known[label, seed] = self._read_items(self._results[label, seed])
            except ItemsUnusable as error:
                self._known[label, seed] = None
                self._reasons[str(error)].append(f"{label} seed {seed}")
        return self._known[label, seed]
