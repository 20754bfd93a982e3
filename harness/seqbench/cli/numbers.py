"""Large numbers as people type them: 200k, 30M, 1.5B, 1e15."""

import math
from typing import Any

import click

_FACTORS = {"k": 1e3, "m": 1e6, "g": 1e9, "b": 1e9, "t": 1e12}


class Count(click.ParamType):
    """A positive number, with a suffix k, M, B (or G) or T if it is large.

    Args:
        whole: refuse fractions of one.
    """

    def __init__(self, whole: bool = True) -> None:
        self.name = "count" if whole else "number"
        self._whole = whole

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> float | int:
        """The number. Fails with what is wrong and an example."""
        if isinstance(value, int | float):
            return value
        text = value.strip().lower().replace("_", "").replace(",", "")
        factor = _FACTORS.get(text[-1:])
        try:
            number = float(text[:-1] if factor else text) * (factor or 1.0)
        except ValueError:
            self.fail(f"{value!r} is no number; type for example 200k, 30M or 1e15", parameter, context)
        if not math.isfinite(number) or number <= 0:
            self.fail(f"{value!r} must be greater than 0 and finite", parameter, context)
        # 30.1M times a million is not a whole number to the last bit.
        if self._whole and abs(number - round(number)) > 1e-6 * number:
            self.fail(f"{value!r} must be a whole number", parameter, context)
        return round(number) if self._whole else number
