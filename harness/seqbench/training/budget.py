"""How long to train: in steps, tokens, FLOPs or seconds, the same for every model of a comparison."""

from dataclasses import dataclass
from typing import Protocol


class Spent(Protocol):
    """What a run has spent so far, by kind of budget."""

    step: int
    tokens: int
    flops: int
    seconds: float


@dataclass(frozen=True)
class TrainingBudget:
    """One limit that ends training; the other kinds are reported.

    Attributes:
        kind: one of `seqbench.store.forms.BUDGET_UNITS`. Seconds are those of training steps alone: warm-up,
            compilation, evaluation and checkpoints are not counted.
        target: the limit in that kind.
    """

    kind: str
    target: float

    def spent(self, state: Spent) -> float:
        """How much of the kind is spent."""
        return float({"steps": state.step, "tokens": state.tokens, "flops": state.flops}.get(self.kind, state.seconds))

    def progress(self, state: Spent) -> float:
        """The share that is spent: 0 at the start, 1 or more at the end."""
        return self.spent(state) / self.target if self.target > 0 else 1.0
