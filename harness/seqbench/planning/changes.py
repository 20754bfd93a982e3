"""Changes of documented fields, as `--set KEY=VALUE` says them: whose field a key names, and that it names one."""

from collections.abc import Mapping

from seqbench.contracts import describe_settings
from seqbench.errors import RequestError

# What the field calls them -> the trainer's fields.
TRAINER_ALIASES = {"lr": "learning_rate"}

_OWNERS = ("model", "task", "trainer")


def sort_changes(changes: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Owner ("model", "task", "trainer") -> field -> text, of changes by key: "model.x", "task.x", "trainer.x" or "x".

    Raises RequestError for another owner, and for a field that is named twice.
    """
    sorted_changes: dict[str, dict[str, str]] = {owner: {} for owner in _OWNERS}
    spelt: dict[tuple[str, str], str] = {}
    for key, text in changes.items():
        owner, field = _owner_and_field(key)
        if owner not in sorted_changes:
            raise RequestError(
                f"--set {key}={text}: a key is model.FIELD, task.FIELD or a field of the trainer, not {owner!r}.FIELD"
            )
        if (owner, field) in spelt:
            raise RequestError(f"--set {spelt[owner, field]} and {key} are the same field; give it once")
        spelt[owner, field] = key
        sorted_changes[owner][field] = text
    return sorted_changes


def trainer_field(key: str) -> str | None:
    """The field of the trainer that a key of `--set` names, whatever its spelling; None for another owner's."""
    owner, field = _owner_and_field(key)
    return field if owner == "trainer" else None


def require_owners(changes: Mapping[str, Mapping[str, str]], configs: Mapping[str, type]) -> None:
    """Raise RequestError for a field that its owner lacks and another one has, with what to type instead.

    Args:
        changes: as from `sort_changes`.
        configs: owner -> the class of its config.
    """
    known = {owner: describe_settings(config) for owner, config in configs.items()}
    for owner, fields in changes.items():
        for field, text in fields.items():
            others = [other for other in known if field in known[other]]
            if field in known[owner] or not others:
                continue
            lines = " or ".join(f"--set {'' if other == 'trainer' else f'{other}.'}{field}={text}" for other in others)
            raise RequestError(
                f"the {owner} has no field {field!r}, and the {' and the '.join(others)} {_has(others)}; type {lines}"
            )


def _has(owners: list[str]) -> str:
    return "has one" if len(owners) == 1 else "have one"


def _owner_and_field(key: str) -> tuple[str, str]:
    owner, dot, field = key.partition(".")
    if not dot:
        owner, field = "trainer", key
    return owner, TRAINER_ALIASES.get(field, field) if owner == "trainer" else field
