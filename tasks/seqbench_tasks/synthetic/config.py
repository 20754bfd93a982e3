"""What the settings of all generated tasks share."""

from dataclasses import dataclass
from typing import Protocol

from seqbench.contracts import check_settings, setting
from seqbench.errors import RequestError


class EvaluationSizes(Protocol):
    """What the kit asks of a config: how many samples of each difficulty the evaluation sets have."""

    @property
    def validation_samples(self) -> int:
        """Validation samples of each difficulty."""

    @property
    def test_samples(self) -> int:
        """Test samples of each difficulty."""


@dataclass(frozen=True)
class SyntheticConfig:
    """Sizes of the evaluation sets; a task's config adds its own fields.

    Raises:
        RequestError: a field has the wrong type or is out of range.
    """

    validation_samples: int = setting(
        64,
        "validation samples of each difficulty; fewer where there are not so many different ones",
        minimum=1,
        maximum=2**20,
    )
    test_samples: int = setting(
        256,
        "test samples of each difficulty; fewer where there are not so many different ones",
        minimum=1,
        maximum=2**20,
    )

    def __post_init__(self) -> None:
        check_settings(self)


def require_ladder(config: SyntheticConfig, *names: str) -> None:
    """Refuse fields that do not go together: lists that name the rungs of a ladder, entry by entry.

    Raises RequestError when they have different lengths, or name a rung twice.
    """
    columns = [getattr(config, name) for name in names]
    if len({len(column) for column in columns}) > 1:
        counts = ", ".join(f"{name} has {len(column)}" for name, column in zip(names, columns, strict=True))
        raise RequestError(f"{' and '.join(names)} are read entry by entry and need as many entries each: {counts}")
    rungs = list(zip(*columns, strict=True))
    repeated = [rung for rung in rungs if rungs.count(rung) > 1]
    if repeated:
        shown = "/".join(map(str, repeated[0]))
        raise RequestError(f"{' and '.join(names)} {'name' if len(names) > 1 else 'names'} {shown} more than once")
