"""What stored JSON has to look like, declared, so that whoever reads a field of it need not ask whether it is there."""

import math
from collections.abc import Callable, Mapping
from typing import Any

# Returns when the value fits, and raises Misfit otherwise.
Check = Callable[[Any], None]

# Integers that an array of 64 bits takes.
LARGEST_INTEGER = 2**63 - 1


class Misfit(ValueError):
    """A value is not of the declared form. The message says where and how."""

    def __init__(self, what: str, *places: str) -> None:
        super().__init__(f"{'.'.join(places)} {what}" if places else f"it {what}")
        self.what, self.places = what, places

    def at(self, place: str) -> "Misfit":
        """The same, told from one level above."""
        return Misfit(self.what, place, *self.places)


def anything(value: Any) -> None:
    """Fits."""


def text(value: Any) -> None:
    """Any text that can be printed: halves of characters, which JSON can express, cannot."""
    if not isinstance(value, str):
        raise Misfit("is no text")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise Misfit("holds half a character") from None


def boolean(value: Any) -> None:
    """True or false."""
    if not isinstance(value, bool):
        raise Misfit("is neither true nor false")


def integer(lowest: int = 0, highest: int = LARGEST_INTEGER) -> Check:
    """A whole number in a range."""

    def check(value: Any) -> None:
        if not isinstance(value, int) or isinstance(value, bool) or not lowest <= value <= highest:
            raise Misfit("is no whole number, or out of range")

    return check


def number(lowest: float = -math.inf, highest: float = math.inf) -> Check:
    """A number in a range that fits into a float."""

    def check(value: Any) -> None:
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise Misfit("is no number")
        try:
            fits = lowest <= float(value) <= highest
        except OverflowError:
            fits = False
        if not fits:
            raise Misfit("is out of range")

    return check


def digest(value: Any) -> None:
    """64 hexadecimal digits."""
    if not isinstance(value, str) or len(value) != 64 or not set(value) <= set("0123456789abcdef"):
        raise Misfit("is no SHA-256")


def one_of(*words: str) -> Check:
    """One of these words."""

    def check(value: Any) -> None:
        if value not in words:
            raise Misfit(f"is none of {', '.join(words)}")

    return check


def optional(inner: Check) -> Check:
    """`inner`, or null."""

    def check(value: Any) -> None:
        if value is not None:
            inner(value)

    return check


def any_of(*inner: Check) -> Check:
    """What at least one of them fits."""

    def check(value: Any) -> None:
        for each in inner:
            try:
                return each(value)
            except Misfit as error:
                last = error
        raise last

    return check


def items(inner: Check) -> Check:
    """A list in which all fit `inner`."""

    def check(value: Any) -> None:
        if not isinstance(value, list):
            raise Misfit("is no list")
        for index, entry in enumerate(value):
            _at(f"[{index}]", inner, entry)

    return check


def mapping(inner: Check = anything) -> Check:
    """An object in which all values fit `inner`."""

    def check(value: Any) -> None:
        if not isinstance(value, dict):
            raise Misfit("is no object")
        for name, entry in value.items():
            _at(name, inner, entry)

    return check


def record(required: Mapping[str, Check], possible: Mapping[str, Check] | None = None) -> Check:
    """An object that has all the `required` fields, and may have the `possible` and others."""
    fields = {**(possible or {}), **required}

    def check(value: Any) -> None:
        if not isinstance(value, dict):
            raise Misfit("is no object")
        for name in required:
            if name not in value:
                raise Misfit("is missing", name)
        for name in fields.keys() & value.keys():
            _at(name, fields[name], value[name])

    return check


def by_field(field: str, forms: Mapping[str, Check], otherwise: Check | None = None) -> Check:
    """An object whose text `field` says which of the forms it has; `otherwise` is that of unknown words."""

    def check(value: Any) -> None:
        record({field: text if otherwise is not None else one_of(*forms)})(value)
        (forms.get(value[field]) or otherwise or anything)(value)

    return check


def _at(place: str, check: Check, value: Any) -> None:
    try:
        check(value)
    except Misfit as error:
        raise error.at(place) from None
