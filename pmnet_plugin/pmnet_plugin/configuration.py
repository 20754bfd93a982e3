"""The published configuration of PMNet, as Hugging Face stores it."""

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedConfig

from pmnet_plugin.settings import PMNetSettings
from seqbench.contracts import describe_settings
from seqbench.contracts.suggestions import did_you_mean
from seqbench.errors import RequestError
from seqbench.nn import STATE_NAMES

# Written into config.json by some version of transformers, or read by it, besides what its class declares today and
# the fields of generation.
_OF_TRANSFORMERS = {
    "add_cross_attention",
    "attn_implementation",
    "auto_map",
    "cross_attention_hidden_size",
    "custom_pipelines",
    "experts_implementation",
    "finetuning_task",
    "gradient_checkpointing",
    "is_decoder",
    "model_type",
    "name_or_path",
    "num_labels",
    "per_layer_config",
    "prefix",
    "pruned_heads",
    "quantization_config",
    "sep_token_id",
    "task_specific_params",
    "tf_legacy_loss",
    "tie_encoder_decoder",
    "tie_last_hidden_states",
    "tokenizer_class",
    "torch_dtype",
    "torchscript",
    "transformers_weights",
    "use_bfloat16",
}
# What this implementation would otherwise silently ignore.
_FIXED: Mapping[str, Any] = {
    "hidden_act": "silu",
    "attention_bias": False,
    "rope_scaling": None,
    "use_sliding_window": True,
    "max_window_layers": 0,
}


class PMNetConfig(PreTrainedConfig):
    """Configuration of a PMNet model; every published field is declared, so that config.json survives load and save.

    Beyond the usual decoder fields:
        sliding_window: tokens seen by attention, the query's own included, in every layer.
        memory_write_period: layers i with i mod period = 0 write to the memory.
        num_memory: slots per group, and branching factor of the tree.
        memory_size: phase angles per slot.
        num_memory_read_heads: read heads.
        memory_cumsum: false is the ablation "no-recurrence": nothing is summed over earlier tokens.

    Not published, and at their defaults what was published:
        use_memory: false is the ablation "no-memory": neither write nor read modules exist.
        memory_tree: "routed", or "flat" for one group per level (ablation "flat-memory").
        memory_dynamics: "unitary", or "relaxed" for complex sums with a free magnitude (ablation "non-unitary").
        zeroed_anchors: "none", or the levels whose anchors count as zero: "root", "leaf" or "all".
        gradient_scale: "sqrt-count" or "none".

    Raises RequestError for an unknown field and for a value that is of the wrong type, out of range or not supported;
    read from a file, the message names it.
    """

    model_type = "PMNet"
    keys_to_ignore_at_inference = STATE_NAMES

    vocab_size: int = 384
    hidden_size: int = 512
    intermediate_size: int = 1024
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    num_key_value_heads: int = 12
    head_dim: int = 64
    hidden_act: str = "silu"
    max_position_embeddings: int = 40960
    initializer_range: float = 0.02
    rms_norm_eps: float = 1e-6
    use_cache: bool = True
    tie_word_embeddings: bool = True
    rope_theta: float = 1e6
    rope_scaling: dict[str, Any] | None = None
    attention_bias: bool = False
    attention_dropout: float = 0.0
    use_sliding_window: bool = True
    sliding_window: int = 128
    max_window_layers: int = 0
    layer_types: list[str] | None = None
    memory_write_period: int = 3
    num_memory: int = 4
    memory_size: int = 512
    num_memory_read_heads: int = 4
    memory_cumsum: bool = True
    use_memory: bool = True
    memory_tree: str = "routed"
    memory_dynamics: str = "unitary"
    zeroed_anchors: str = "none"
    gradient_scale: str = "sqrt-count"
    pad_token_id: int | None = None
    bos_token_id: int | None = 254
    eos_token_id: int | list[int] | None = 255

    def __post_init__(self, **kwargs: Any) -> None:
        _refuse_unknown(kwargs)
        for dtype in (self.dtype, kwargs.get("torch_dtype")):
            _check_dtype(dtype)
        if kwargs.get("model_type", self.model_type) != self.model_type:
            raise RequestError(f"model_type must be {self.model_type}, not {kwargs['model_type']!r}")
        self._check()
        if self.layer_types is None:
            self.layer_types = ["sliding_attention"] * self.num_hidden_layers
        super().__post_init__(**kwargs)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *arguments: Any, **kwargs: Any) -> Any:
        """As transformers has it; a RequestError for one of the fields names the file."""
        source = str(pretrained_model_name_or_path)
        # Handed on, because nothing else tells `from_dict` where the fields come from.
        kwargs.setdefault("name_or_path", source)
        try:
            return super().from_pretrained(pretrained_model_name_or_path, *arguments, **kwargs)
        # From within transformers: JSON that is no object, or a value for which transformers has a use of its own.
        except (AttributeError, TypeError) as error:
            raise RequestError(f"{_config_file(source)} does not hold the fields of a config: {error}") from error

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """As transformers has it; a RequestError for one of the fields names the file when they come from one."""
        source = kwargs.get("name_or_path")
        try:
            made = super().from_dict(config_dict, **kwargs)
            # Fields among the keyword arguments have been set one by one, after the check of the others.
            (made[0] if isinstance(made, tuple) else made)._check()
        except RequestError as error:
            if source is None:
                raise
            raise RequestError(f"{_config_file(str(source))}: {error}") from error
        return made

    def _check(self) -> None:
        """Raise RequestError for the first field whose value cannot be."""
        self.to_settings()
        for name, value in _FIXED.items():
            found = getattr(self, name)
            if found != value or type(found) is not type(value):
                raise RequestError(f"{name} must be {value!r}, the only value that PMNet supports, not {found!r}")
        if self.layer_types not in (None, ["sliding_attention"] * self.num_hidden_layers):
            raise RequestError(
                f"layer_types must be 'sliding_attention' for each of the {self.num_hidden_layers} layers, not"
                f" {self.layer_types!r}"
            )
        if not _is_count(self.max_position_embeddings):
            raise RequestError(
                f"max_position_embeddings must be a whole number above zero, not {self.max_position_embeddings!r}"
            )
        if not isinstance(self.use_cache, bool):
            raise RequestError(f"use_cache must be true or false, not {self.use_cache!r}")
        for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
            _check_token_ids(name, getattr(self, name))

    def to_settings(self) -> PMNetSettings:
        """The settings that this config shares with the plugin. Raises RequestError for values they do not allow."""
        return PMNetSettings(**{name: getattr(self, name) for name in describe_settings(PMNetSettings)})

    @property
    def hierarchy_depth(self) -> int:
        """H, the number of levels of the memory tree: ceil(layers / write period)."""
        return self.to_settings().hierarchy_depth

    def groups_at(self, level: int) -> int:
        """Number of groups at a level of the tree."""
        return self.to_settings().groups_at(level)


def _config_file(source: str) -> str:
    """The file that the config of `source` (a file, a folder or a name on the hub) was read from."""
    path = Path(source).expanduser()
    if path.is_file():
        return str(path)
    return str(path / "config.json") if path.is_dir() else f"{source}/config.json"


def _refuse_unknown(names: Iterable[str]) -> None:
    own = {field.name for field in dataclasses.fields(PMNetConfig)}
    of_transformers = _OF_TRANSFORMERS | GenerationConfig().to_dict().keys()
    for name in names:
        # Names with an underscore are transformers' private ones.
        if name not in of_transformers and not name.startswith("_"):
            raise RequestError(f"PMNet's config has no field {name!r}{did_you_mean(name, own)}")


def _check_dtype(dtype: Any) -> None:
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if dtype is not None and not (isinstance(found, torch.dtype) and found.is_floating_point):
        raise RequestError(f"dtype must be a floating-point type such as float32 or bfloat16, not {dtype!r}")


def _check_token_ids(name: str, value: Any) -> None:
    """A token id, or none; several may end a sequence."""
    ids = value if name == "eos_token_id" and isinstance(value, list) else [value]
    if value is not None and not all(_is_count(token_id, least=0) for token_id in ids):
        raise RequestError(f"{name} must be a whole number from zero on, or none, not {value!r}")


def _is_count(value: Any, least: int = 1) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
