"""Numbers as options take them: finite, in a range that is told, and as people type them (200k, 1e15)."""

from typing import Any

import click

from seqbench.contracts.quantities import LARGEST_WHOLE, NotWhole, number, whole_number

# A hundred years: nobody waits longer, and a timer takes it.
LARGEST_SECONDS = 100 * 366 * 24 * 3600.0
# Of learning: the weights themselves are of the order of one.
LARGEST_RATE = 1e6
# Of a timed pass. Every index of the largest batch of the longest sequences still fits into 64 bits.
LARGEST_BATCH, LARGEST_LENGTH = 2**20, 2**30


class _Ranged(click.ParamType):
    """A finite number from `least` to `most`; with `above`, `least` itself is too little."""

    example = ""

    def __init__(self, least: float, most: float, above: bool = False) -> None:
        self._least, self._most, self._above = least, most, above

    @property
    def allowed(self) -> str:
        """The range in words."""
        beginning = f"more than {_text(self._least)} and at most" if self._above else f"from {_text(self._least)} to"
        return f"{beginning} {_text(self._most)}"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> float | int:
        """The number. Fails with what is wrong, the range and an example."""
        if isinstance(value, int | float):
            return value
        try:
            found = self._parse(value)
        except NotWhole:
            self.fail(f"{value!r} must be a whole number, {self.allowed}", parameter, context)
        except (ValueError, OverflowError):
            self.fail(
                f"{value!r} is no finite number; it must be {self.allowed}, for example {self.example}",
                parameter,
                context,
            )
        if not self._least <= found <= self._most or (self._above and found == self._least):
            self.fail(f"{value!r} is out of range; it must be {self.allowed}", parameter, context)
        return found

    def _parse(self, text: str) -> float | int:
        raise NotImplementedError


class Count(_Ranged):
    """A whole number, from 1 unless `least` says otherwise; 200k, 30M, 1.5B and 1e15 are whole numbers too."""

    name = "count"

    def __init__(self, least: int = 1, most: int = LARGEST_WHOLE) -> None:
        super().__init__(least, most)

    @property
    def example(self) -> str:  # type: ignore[override]
        """A number of the size that is wanted here."""
        return "200k or 1e6" if self._most >= 10**6 else f"{min(int(self._least) + 3, int(self._most))}"

    def _parse(self, text: str) -> int:
        return whole_number(text)


class Amount(_Ranged):
    """A finite number above 0, up to `most`."""

    name = "number"
    example = "0.5"

    def __init__(self, most: float) -> None:
        super().__init__(0, most, above=True)

    def _parse(self, text: str) -> float:
        return number(text)


def _text(bound: float) -> str:
    return f"{bound:g}" if isinstance(bound, float) else f"{bound:,}"
