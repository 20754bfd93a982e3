"""Lines that tell what the scores of a generated task are to be set beside."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from seqbench_tasks.synthetic.held_out import SampleSet
from seqbench_tasks.synthetic.samples import Difficulty


def chance_note(chances: Mapping[Difficulty, float]) -> str:
    """The level of random answers, or its range over the difficulties."""
    lowest, highest = min(chances, key=lambda rung: chances[rung]), max(chances, key=lambda rung: chances[rung])
    if chances[lowest] == chances[highest]:
        return f"Chance is {_percent(chances[lowest])}."
    return (
        f"Chance is from {_percent(chances[lowest])} ({lowest}) to {_percent(chances[highest])} ({highest}) "
        "in the test set."
    )


def bits_note(bits: Mapping[Difficulty, float | None]) -> list[str]:
    """How much a model has to remember, at most; no line where that is not known."""
    known = {rung: needed for rung, needed in bits.items() if needed is not None}
    if not known:
        return []
    hardest = max(known, key=lambda rung: known[rung])
    count = f"{known[hardest]:,.0f}"
    unit = "bit" if count == "1" else "bits"
    return [f"A test sample takes up to {count} {unit} to remember ({hardest}); a smaller state has to err."]


def reach_note(lookbacks: Sequence[int], reach: int | None) -> list[str]:
    """Which look-backs of the test set the model's attention can bridge; no line where there are none."""
    if not lookbacks:
        return []
    if reach is None:
        return ["This model has no finite reach (full attention or recurrence)."]
    beyond = sum(lookback > reach for lookback in lookbacks)
    return [
        f"This model's attention bridges at most {reach:,} tokens: {beyond} of {len(lookbacks)} test look-backs are "
        "longer and need another memory."
    ]


def sets_notes(sets: Iterable[SampleSet[Any]]) -> list[str]:
    """Where there are so few samples that a set is smaller than it was asked to be, or not kept from training."""
    lines = []
    for each in sets:
        if len(each.places) < each.asked:
            lines.append(
                f"The {each.split} set has {len(each.places)} different samples of {each.difficulty} instead of "
                f"{each.asked}: there are few."
            )
        if not each.held_out:
            lines.append(f"There are too few samples of {each.difficulty} to keep the {each.split} set from training.")
    return lines


def _percent(share: float) -> str:
    return f"{share:.1%}" if share >= 0.01 else f"{100 * share:.2g}%"
