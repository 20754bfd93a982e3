"""A decoder kit for plugin authors: attention, norms, feed-forward layers, caches, inert padding."""

from seqbench.nn.attention import Attention
from seqbench.nn.cache import AttentionCache, ChunkPlan, advance, plan_chunk
from seqbench.nn.layers import RMSNorm, SwiGLU
from seqbench.nn.padding import RowPacking, pack_rows
from seqbench.nn.rotary import apply_rotary, rotary_tables
from seqbench.nn.settings import (
    DecoderSettings,
    at_width,
    attended_pairs,
    attention_state_bytes,
    decoder_flops,
    decoder_parameter_group,
    shared_fields,
)

__all__ = [
    "Attention",
    "AttentionCache",
    "ChunkPlan",
    "DecoderSettings",
    "RMSNorm",
    "RowPacking",
    "SwiGLU",
    "advance",
    "apply_rotary",
    "at_width",
    "attended_pairs",
    "attention_state_bytes",
    "decoder_flops",
    "decoder_parameter_group",
    "pack_rows",
    "plan_chunk",
    "rotary_tables",
    "shared_fields",
]
