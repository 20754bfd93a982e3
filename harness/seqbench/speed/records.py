"""What is kept of one cell of a measurement, and the figures that follow from it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from seqbench.speed.spread import exponent, paired_ratios, spread

PENDING, MEASURED, NOT_RUN, FAILED = "pending", "measured", "not run", "failed"


@dataclass
class Record:
    """One contestant (a model, or a path of an operation) under one set of conditions.

    Attributes:
        name: of the contestant.
        place: the conditions, such as {"mode": "train", "length": 1024}; contestants at one place are compared.
        state: PENDING, MEASURED, NOT_RUN or FAILED.
        reason: why it was not run, or failed.
        first_call_seconds: of the very first call, with everything that happens only once: compilation too.
        calls: timed calls of one repeat.
        units: what a call works through: tokens, or 1.
        seconds: per unit, one a repeat.
        peak_bytes: weights and carried state, and what rose above them in a pass.
        rise_bytes: what rose alone.
        activation_bytes: kept for the backward pass; None where there is none.
        flops: of matrix products in one call, as declared; None where nothing is declared.
        traffic_bytes: what a unit has to read at least, where that is known.
    """

    name: str
    place: Mapping[str, Any]
    state: str = PENDING
    reason: str | None = None
    first_call_seconds: float | None = None
    calls: int = 0
    units: int = 1
    seconds: list[float] = field(default_factory=list)
    peak_bytes: int | None = None
    rise_bytes: int | None = None
    activation_bytes: int | None = None
    flops: float | None = None
    traffic_bytes: int | None = None

    def give_up(self, state: str, reason: str | None) -> None:
        """It is not run, or no further."""
        self.state, self.reason = state, reason


def summarise(
    records: Sequence[Record], matrix_rates: Sequence[float] = (), copy_rates: Sequence[float] = ()
) -> list[dict[str, Any]]:
    """Every record with what follows from it, as plain data.

    Beside the fields of `Record`: spreads (median, lower, upper) of `seconds_per_unit` and `units_per_second`; `ratio`,
    the rate over that of the first contestant at the place; `growth`, seconds per unit over those at the contestant's
    first length; `flops_per_second`, `matrix_share` and `copy_share` of the rates of the same repeat.
    """
    first_at = _firsts(records, lambda record: tuple(record.place.items()))
    first_of = _firsts(records, lambda record: (record.name, _without_length(record.place)))
    rows = []
    for record in records:
        base = first_at[tuple(record.place.items())]
        shortest = first_of[record.name, _without_length(record.place)]
        flops = None if record.flops is None else record.flops / record.units
        rows.append(
            {
                **asdict(record),
                "seconds_per_unit": _plain(record.seconds),
                "units_per_second": _plain([1 / seconds for seconds in record.seconds if seconds > 0]),
                "ratio": _plain(paired_ratios(base.seconds, record.seconds)),
                "growth": _plain(paired_ratios(record.seconds, shortest.seconds)),
                "flops_per_second": _plain(_rates(flops, record.seconds)),
                "matrix_share": _plain(paired_ratios(_rates(flops, record.seconds), matrix_rates)),
                "copy_share": _plain(paired_ratios(_rates(record.traffic_bytes, record.seconds), copy_rates)),
            }
        )
    return rows


def growth(records: Sequence[Record]) -> list[dict[str, Any]]:
    """Exponents of time and memory of a pass against its length, for each contestant and mode; None for one length.

    For "decode" they are those of the time of a token and of the peak against the position.
    """
    lines: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        if record.seconds:
            lines.setdefault((record.name, record.place["mode"]), []).append(record)
    found = []
    for (name, mode), line in lines.items():
        points = [(record.place["length"], record) for record in line]
        passes = {length: 1 if mode == "decode" else record.units for length, record in points}
        times = [(length, spread(record.seconds).median * passes[length]) for length, record in points]  # type: ignore[union-attr]
        found.append(
            {
                "name": name,
                "mode": mode,
                "lengths": [length for length, _ in points],
                "time_exponent": exponent(times),
                "memory_exponent": exponent([(length, record.peak_bytes or 0) for length, record in points]),
                "activation_exponent": exponent([(length, record.activation_bytes or 0) for length, record in points]),
            }
        )
    return found


def _firsts(records: Sequence[Record], key: Any) -> dict[Any, Record]:
    """The first record of each key, in the order of the records."""
    firsts: dict[Any, Record] = {}
    for record in records:
        firsts.setdefault(key(record), record)
    return firsts


def _without_length(place: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    return tuple((key, value) for key, value in place.items() if key != "length")


def _rates(per_unit: float | None, seconds: Sequence[float]) -> list[float]:
    return [] if per_unit is None else [per_unit / each for each in seconds if each > 0]


def _plain(values: Sequence[float]) -> dict[str, float] | None:
    found = spread(values)
    return None if found is None else asdict(found)
