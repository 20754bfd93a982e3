"""The preset `tiny` for a model type: about 200 thousand parameters with a byte vocabulary."""

import json
from typing import Any

from transformers import PreTrainedConfig

from seqbench_baselines.hugging_face.settings import HuggingFaceSettings

_SHAPE = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 32,
}
# Where the shape above is not enough: other fields that hold a width of their own, or that must fit it.
_BY_TYPE: dict[str, dict[str, Any]] = {
    "falcon_mamba": {"num_hidden_layers": 8, "intermediate_size": None},
    "mamba": {"num_hidden_layers": 8, "intermediate_size": None},
    "mamba2": {
        "num_hidden_layers": 8,
        "num_heads": 8,
        "head_dim": 16,
        "n_groups": 1,
        "state_size": 16,
        "chunk_size": 32,
    },
    "gpt2": {"n_inner": 128},
    "mixtral": {"num_local_experts": 4, "intermediate_size": 64},
    "opt": {"word_embed_proj_dim": 64, "ffn_dim": 128, "max_position_embeddings": 512},
}


def tiny_settings(config: PreTrainedConfig) -> HuggingFaceSettings:
    """The small shape in those fields that `config`, a type's default, has."""
    fields = {name: value for name, value in _SHAPE.items() if hasattr(config, name)}
    fields |= _BY_TYPE.get(config.model_type, {})
    fields = {name: value for name, value in fields.items() if value is not None}
    overrides = {name: fields.pop(name) for name in list(fields) if name not in _SHAPE}
    return HuggingFaceSettings(**fields, overrides=json.dumps(overrides))
