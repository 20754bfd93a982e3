"""How many parameters models are to have, and how near one came. Imports nothing heavy: tables of results read it."""

from dataclasses import dataclass
from typing import Any

# Largest deviation that counts as matched: the fairness contract's.
TOLERANCE = 0.02


@dataclass(frozen=True)
class ParameterBudget:
    """How many parameters every model of a comparison is to have.

    Attributes:
        target: number of parameters.
        total: count the vocabulary matrices too.
    """

    target: int
    total: bool = False

    @property
    def kind(self) -> str:
        """Name of the budget in results and tables."""
        return "parameters-total" if self.total else "parameters-non-embedding"


@dataclass(frozen=True)
class Match:
    """A config of nearly the wanted size.

    Attributes:
        config: the plugin's config.
        achieved: its parameters, counted as the budget counts.
        deviation: (achieved - target) / target.
        changed: the fields that were changed to get there, with their values.
    """

    config: Any
    achieved: int
    deviation: float
    changed: dict[str, Any]

    @property
    def matched(self) -> bool:
        """Whether the deviation is within the tolerance."""
        return abs(self.deviation) <= TOLERANCE
