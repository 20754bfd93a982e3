"""What models and tasks say of themselves in the same way: words, and documented settings."""

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from seqbench.contracts import check_settings, describe_settings
from seqbench.testing.report import ClauseFailure


def require_words(plugin: Any, names: Sequence[str]) -> None:
    """Each of these attributes is a line of text."""
    for name in names:
        value = getattr(plugin, name, None)
        if not isinstance(value, str) or not value.strip() or "\n" in value:
            raise ClauseFailure(f"{name} is {value!r}, expected one line of text")


def require_settings(config_class: type, config: Any) -> None:
    """`config` is a frozen dataclass of documented fields in their ranges, and its values can be stored."""
    if not issubclass(type(config), config_class):
        raise ClauseFailure(f"{config!r} is no {config_class.__qualname__}, the config_class")
    frozen = getattr(getattr(config_class, "__dataclass_params__", None), "frozen", False)
    if not frozen:
        raise ClauseFailure(f"{config_class.__qualname__} is no frozen dataclass", "declare it @dataclass(frozen=True)")
    for field in dataclasses.fields(config):
        if not field.metadata.get("help"):
            raise ClauseFailure(
                f"{config_class.__qualname__}.{field.name} is not documented",
                f"declare it as {field.name}: ... = setting(default, help)",
            )
    describe_settings(config_class)
    check_settings(config)
    try:
        json.dumps(dataclasses.asdict(config), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ClauseFailure(
            f"the settings cannot be written as JSON: {error}",
            "a run's identity is made of them: whole numbers, numbers, text, true or false, and tuples of these",
        ) from error
