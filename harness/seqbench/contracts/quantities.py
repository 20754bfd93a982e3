"""Numbers as people type them: 64, 1_000, 1,000, 1k, 200k, 1.5B, 1e3."""

import math
import re
from decimal import Decimal

# Up to here a float tells every whole number from its neighbours, and so does every reader of JSON.
LARGEST_WHOLE = 2**53

_FACTORS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "b": 10**9, "t": 10**12}

# Commas and underscores stand between groups of three digits; anywhere else "1,5" might mean 1.5.
_NUMBER = re.compile(
    r"(?P<digits>[+-]?(\d{1,3}([,_]\d{3})+|\d*)(\.\d*)?)(?P<exponent>e[+-]?\d{1,4})?(?P<suffix>[kmgbt]?)", re.IGNORECASE
)


class NotWhole(ValueError):
    """A number with a fraction where a whole one is wanted."""


def number(text: str) -> float:
    """The number that `text` says, with its suffix k, M, B (or G) or T. Raises ValueError for no finite number."""
    value = float(_decimal(text))
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def whole_number(text: str) -> int:
    """As `number`, exactly. Raises NotWhole for a fraction, ValueError for anything else that is none."""
    value = _decimal(text)
    number(text)
    whole = int(value)
    if whole != value:
        raise NotWhole(text)
    return whole


def _decimal(text: str) -> Decimal:
    match = _NUMBER.fullmatch(text.strip())
    if match is None or not re.search(r"\d", match["digits"]):
        raise ValueError(text)
    digits = re.sub("[,_]", "", match["digits"])
    return Decimal(digits + (match["exponent"] or "")) * _FACTORS[match["suffix"].lower()]
