"""Settings of a model of transformers: the fields that most types share, and JSON for all others."""

import json
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedConfig

from seqbench.contracts import check_settings, setting
from seqbench.contracts.suggestions import did_you_mean
from seqbench.errors import RequestError
from seqbench.nn import LARGEST_DEPTH

# Fields of this class that bear the name of a field of transformers' configs.
SHAPE_FIELDS = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
)


@dataclass(frozen=True)
class HuggingFaceSettings:
    """Fields of the transformers config; `none` leaves a field to the model type, or says that it has none."""

    vocab_size: int = setting(384, "token ids; follows from the task in a run", minimum=1)
    hidden_size: int | None = setting(None, "size of the residual stream", minimum=1)
    intermediate_size: int | None = setting(None, "width of the feed-forward layers", minimum=1)
    num_hidden_layers: int | None = setting(None, "layers", minimum=1, maximum=LARGEST_DEPTH)
    num_attention_heads: int | None = setting(None, "query heads", minimum=1)
    num_key_value_heads: int | None = setting(None, "key/value heads", minimum=1)
    head_dim: int | None = setting(None, "size of an attention head", minimum=1)
    overrides: str = setting("{}", 'any other fields of the transformers config, as JSON: {"rope_theta": 10000}')
    parameter_limit: int = setting(500_000_000, "refuse to build a model of more parameters than this", minimum=1)

    def __post_init__(self) -> None:
        check_settings(self)
        self.parsed_overrides()

    def shape(self) -> dict[str, int]:
        """The shape fields that are set."""
        return {name: getattr(self, name) for name in SHAPE_FIELDS if getattr(self, name) is not None}

    def parsed_overrides(self) -> dict[str, Any]:
        """The object in `overrides`. Raises RequestError when the text is none."""
        try:
            values = json.loads(self.overrides)
        except json.JSONDecodeError as error:
            raise RequestError(f"overrides takes a JSON object, not {self.overrides!r}: {error}") from error
        if not isinstance(values, dict):
            raise RequestError(f'overrides takes a JSON object like {{"rope_theta": 10000}}, not {self.overrides!r}')
        return values


def checked_overrides(settings: HuggingFaceSettings, config: PreTrainedConfig, label: str) -> dict[str, Any]:
    """The overrides, once every key is known to be a field of `config` that has no setting of its own."""
    overrides = settings.parsed_overrides()
    require_depth(overrides, f"{label}: overrides")
    known = {*config.to_dict(), *config.attribute_map}
    for name in overrides:
        if name in (*SHAPE_FIELDS, "vocab_size"):
            raise RequestError(f"{label}: {name} is a setting of its own; type --set model.{name}=... for it")
        if name not in known:
            raise RequestError(
                f"{label}: overrides names {name!r}, which {type(config).__name__} does not have"
                f"{did_you_mean(name, known)}"
            )
    return overrides


def require_depth(fields: Any, owner: str) -> None:
    """Raise RequestError when one of a config's fields, at any depth of nesting, counts more layers than any model has.

    Many configs of transformers make a list of that length before anything can be looked at.
    """
    entries = fields.items() if isinstance(fields, dict) else enumerate(fields) if isinstance(fields, list) else ()
    for name, value in entries:
        if isinstance(value, int | float) and value > LARGEST_DEPTH and "layer" in str(name):
            raise RequestError(f"{owner}: {name} is {value:,}; at most {LARGEST_DEPTH:,} layers are built")
        require_depth(value, owner)
