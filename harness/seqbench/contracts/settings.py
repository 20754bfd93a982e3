"""Documented, typed and range-checked fields for the frozen configs of models, tasks and the trainer.

A config is a frozen dataclass whose fields are declared with `setting`. The same declaration serves `bench show`
(name, type, default, help), `--set key=value` (parsing and checking) and validation of configs made in Python.
"""

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from seqbench.contracts.quantities import LARGEST_WHOLE, whole_number
from seqbench.errors import RequestError

Config = TypeVar("Config")

_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


@dataclass(frozen=True)
class SettingInfo:
    """What is known of one field: its type, default, help text and the values that are allowed."""

    name: str
    type: Any
    default: Any
    help: str
    minimum: float | None
    maximum: float | None
    choices: tuple[Any, ...] | None

    @property
    def type_name(self) -> str:
        """The type in words, as shown to the user."""
        return _type_name(self.type)

    @property
    def allowed(self) -> str:
        """The allowed values in words, or an empty string when the type alone decides."""
        if self.choices is not None:
            return "one of " + ", ".join(map(str, self.choices))
        if self.minimum is not None and self.maximum is not None:
            return f"from {self.minimum} to {self.maximum}"
        if self.minimum is not None:
            return f"at least {self.minimum}"
        if self.maximum is not None:
            return f"at most {self.maximum}"
        return ""


def setting(
    default: Any,
    help: str,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    choices: tuple[Any, ...] | None = None,
) -> Any:
    """Declare a documented config field; `minimum` and `maximum` are inclusive and hold for every entry of a tuple."""
    metadata = {"help": help, "minimum": minimum, "maximum": maximum, "choices": choices}
    return dataclasses.field(default=default, metadata=metadata)


def describe_settings(config_class: type) -> dict[str, SettingInfo]:
    """All fields of a config class, in order of declaration."""
    hints = typing.get_type_hints(config_class)
    infos = {}
    for field in dataclasses.fields(config_class):
        if "help" not in field.metadata:
            raise TypeError(f"{config_class.__name__}.{field.name} is not declared with setting(default, help)")
        infos[field.name] = SettingInfo(
            name=field.name, type=hints[field.name], default=field.default, **field.metadata
        )
    return infos


def check_settings(config: Any) -> None:
    """Raise RequestError for the first field of `config` whose value has the wrong type or is out of range.

    Call it from the config's `__post_init__`, before checks across fields.
    """
    for info in describe_settings(type(config)).values():
        value = getattr(config, info.name)
        if not _has_type(value, info.type):
            raise RequestError(f"{info.name} must be {info.type_name}, not {value!r}")
        for entry in value if isinstance(value, tuple) else (value,):
            _check_range(info, entry)


def with_settings(config: Config, changes: Mapping[str, str], owner: str) -> Config:
    """A copy of `config` with the fields in `changes` parsed from text and checked.

    `owner` says whose fields these are ("task x") in messages. Raises RequestError for an unknown field, a value
    of the wrong type or out of range, and for combinations that the config's own checks refuse.
    """
    from seqbench.contracts.suggestions import did_you_mean

    infos = describe_settings(type(config))
    values = {}
    for name, text in changes.items():
        if name not in infos:
            raise RequestError(
                f"{owner} has no field {name!r}{did_you_mean(name, infos)}\nits fields are: {', '.join(infos)}"
            )
        values[name] = _parse(text, infos[name], owner)
    try:
        changed = dataclasses.replace(config, **values)  # type: ignore[type-var]
        # A config that does not check itself is checked all the same.
        check_settings(changed)
    except (RequestError, ValueError) as error:
        raise RequestError(f"{owner}: {error}") from error
    return changed


def _check_range(info: SettingInfo, entry: Any) -> None:
    if entry is None:
        return
    # A NaN compares false with every bound, and no setting has a use for infinity.
    if isinstance(entry, float) and not math.isfinite(entry):
        raise RequestError(f"{info.name} must be a finite number, not {entry!r}")
    below = info.minimum is not None and entry < info.minimum
    above = info.maximum is not None and entry > info.maximum
    unlisted = info.choices is not None and entry not in info.choices
    if below or above or unlisted:
        raise RequestError(f"{info.name} must be {info.allowed}, not {entry!r}")
    if isinstance(entry, int) and abs(entry) > LARGEST_WHOLE:
        raise RequestError(f"{info.name} must be at most {LARGEST_WHOLE:,} in size, not {entry}")


def _parse(text: str, info: SettingInfo, owner: str) -> Any:
    try:
        return _parse_as(text.strip(), info.type)
    except ValueError:
        bounds = f" ({info.allowed})" if info.allowed else ""
        raise RequestError(f"{owner}: {info.name} takes {info.type_name}{bounds}, not {text!r}") from None


def _parse_as(text: str, kind: Any) -> Any:
    options = _optional_type(kind)
    if options is not None:
        return None if text.lower() in ("none", "null") else _parse_as(text, options)
    if typing.get_origin(kind) is tuple:
        entry_kind = typing.get_args(kind)[0]
        return tuple(_parse_as(part.strip(), entry_kind) for part in text.split(","))
    if kind is bool:
        if text.lower() in _TRUE + _FALSE:
            return text.lower() in _TRUE
        raise ValueError(text)
    if kind is int:
        return whole_number(text)
    if kind is float:
        return float(text)
    return text


def _has_type(value: Any, kind: Any) -> bool:
    inner = _optional_type(kind)
    if inner is not None:
        return value is None or _has_type(value, inner)
    if typing.get_origin(kind) is tuple:
        entry_kind = typing.get_args(kind)[0]
        return isinstance(value, tuple) and len(value) > 0 and all(_has_type(entry, entry_kind) for entry in value)
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, kind)


def _optional_type(kind: Any) -> Any:
    """The T of `T | None`, or None when `kind` is not optional."""
    if typing.get_origin(kind) not in (typing.Union, types.UnionType):
        return None
    return next(argument for argument in typing.get_args(kind) if argument is not type(None))


def _type_name(kind: Any) -> str:
    inner = _optional_type(kind)
    if inner is not None:
        return f"{_type_name(inner)}, or none"
    if typing.get_origin(kind) is tuple:
        return f"a comma-separated list, each {_type_name(typing.get_args(kind)[0])}"
    return {int: "a whole number", float: "a number", bool: "true or false", str: "text"}.get(kind, str(kind))
