"""A decoder kit for plugin authors: attention, norms, feed-forward layers, caches, inert padding, and the bases that
make a model one of transformers: `generate` from a carried state, strict loading, a head.
"""

from seqbench.nn.alibi import alibi_slopes, head_windows, score_mask
from seqbench.nn.attention import Attention, AttentionParts
from seqbench.nn.cache import AttentionCache, ChunkPlan, KeyValueRing, advance, plan_chunk
from seqbench.nn.calls import (
    STATE_NAME,
    STATE_NAMES,
    BackboneOutput,
    CausalOutput,
    StateUnderBothNames,
    kept_positions,
    name_both_ways,
    state_argument,
    state_of,
    take_state,
    transformers_call,
)
from seqbench.nn.decoding import DecodingSteps, Workspace
from seqbench.nn.generation import CarriedStateGeneration
from seqbench.nn.language_model import (
    CausalCall,
    CausalLanguageModel,
    DecoderPreTrainedModel,
    refuse_state_with_checkpointing,
)
from seqbench.nn.layers import RMSNorm, SwiGLU, rms_norm, widen
from seqbench.nn.loading import StrictLoading
from seqbench.nn.modes import evaluation_mode
from seqbench.nn.padding import RowPacking, pack_rows
from seqbench.nn.rotary import apply_rotary, rotary_tables
from seqbench.nn.settings import (
    LARGEST_DEPTH,
    DecoderSettings,
    at_width,
    attended_pairs,
    attention_flops,
    attention_state_bytes,
    decoder_flops,
    decoder_parameter_group,
    shared_fields,
)
from seqbench.nn.state import CarriedState

__all__ = [
    "LARGEST_DEPTH",
    "STATE_NAME",
    "STATE_NAMES",
    "Attention",
    "AttentionCache",
    "AttentionParts",
    "BackboneOutput",
    "CarriedState",
    "CarriedStateGeneration",
    "CausalCall",
    "CausalLanguageModel",
    "CausalOutput",
    "ChunkPlan",
    "DecoderPreTrainedModel",
    "DecoderSettings",
    "DecodingSteps",
    "KeyValueRing",
    "RMSNorm",
    "RowPacking",
    "StateUnderBothNames",
    "StrictLoading",
    "SwiGLU",
    "Workspace",
    "advance",
    "alibi_slopes",
    "apply_rotary",
    "at_width",
    "attended_pairs",
    "attention_flops",
    "attention_state_bytes",
    "decoder_flops",
    "decoder_parameter_group",
    "evaluation_mode",
    "head_windows",
    "kept_positions",
    "name_both_ways",
    "pack_rows",
    "plan_chunk",
    "refuse_state_with_checkpointing",
    "rms_norm",
    "rotary_tables",
    "score_mask",
    "shared_fields",
    "state_argument",
    "state_of",
    "take_state",
    "transformers_call",
    "widen",
]
