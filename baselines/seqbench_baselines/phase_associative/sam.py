"""The plugin `sam`."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import initialization as init

from seqbench.contracts import Classification, Flops, setting
from seqbench.errors import RequestError
from seqbench.mixers import Chunk, Mixer, MixerPlugin, Tree
from seqbench.nn import RMSNorm
from seqbench_baselines.phase_associative.block import ScaledLayer
from seqbench_baselines.phase_associative.rotations import pair_rotations, turned_pairs
from seqbench_kernels.decayed_linear_attention import (
    decayed_linear_attention,
    decayed_linear_attention_path,
    forward_flops,
)

# Decays are held inside, as published.
_LEAST_DECAY, _LARGEST_DECAY = 1e-6, 1 - 1e-6
# Of all norms: the precision of fp32, which is torch's when none is said.
_NORM_EPSILON = torch.finfo(torch.float32).eps


@dataclass(frozen=True)
class SAMSettings:
    """Of the memory."""

    num_heads: int = setting(2, "heads, each with a memory", minimum=1)
    head_dim: int = setting(24, "size of a head's queries, keys and values", minimum=1)


class RealAssociativeMemory(Mixer[Any]):
    """S_t = d_t S_(t-1) + k_t ((1 - p_t) v_t)^T, o_t = S_t^T q_t / sqrt(head_dim), per head; p per channel."""

    settings_class = SAMSettings
    defaults = {"position_encoding": "rotary", "intermediate_size": 192, "norm_epsilon": _NORM_EPSILON}  # noqa: RUF012
    positions = ("rotary",)
    parameter_groups = {"": "memory"}  # noqa: RUF012

    def __init__(self, hidden_size: int, settings: Any) -> None:
        super().__init__(hidden_size, settings)
        inner = settings.num_heads * settings.head_dim
        self.qkv = nn.Linear(hidden_size, 3 * inner, bias=False)
        self.out_proj = nn.Linear(inner, hidden_size, bias=False)
        self.dt_proj, self.gsp_proj = nn.Linear(hidden_size, settings.num_heads), nn.Linear(hidden_size, inner)

    def initialise(self) -> None:
        """As published: what is new is protected little, and what is old fades slowly."""
        for layer, bias in ((self.dt_proj, -4.0), (self.gsp_proj, -3.0)):
            init.normal_(layer.weight, std=0.01)
            init.constant_(layer.bias, bias)

    def forward(self, hidden: Tensor, state: Tree, chunk: Chunk) -> tuple[Tensor, Tree]:
        """The memory is carried on."""
        heads = (self.settings.num_heads, self.settings.head_dim)
        query, key, value = self.qkv(hidden).float().unflatten(-1, (3, *heads)).unbind(2)
        if self.settings.position_encoding == "rotary":
            tables = pair_rotations(chunk, heads[1])
            query, key = (turned_pairs(tensor, tables) for tensor in (query, key))
        kept = (-F.softplus(self.dt_proj(hidden).float())).exp().unsqueeze(-1)
        protected = self.gsp_proj(hidden).float().sigmoid().unflatten(-1, heads)
        decay = (kept * (1 - protected) + protected).mean(dim=-1).clamp(_LEAST_DECAY, _LARGEST_DECAY)
        read, memory = decayed_linear_attention(
            query * heads[1] ** -0.5,
            chunk.fill(key, 0.0),
            value * (1 - protected),
            chunk.fill(decay.log(), 0.0),
            state,
        )
        return self.out_proj(read.flatten(2).to(hidden.dtype)), memory

    @classmethod
    def check(cls, settings: Any) -> None:
        """Rotary positions turn pairs of channels."""
        if settings.position_encoding == "rotary" and settings.head_dim % 2:
            raise RequestError(f"head_dim={settings.head_dim} is odd; rotary positions turn pairs of channels")

    @classmethod
    def flops(cls, settings: Any, length: int) -> int:
        """Maps, and the products of the chunked recurrence."""
        width, heads, size = settings.hidden_size, settings.num_heads, settings.head_dim
        return 2 * length * width * heads * (5 * size + 1) + forward_flops(length, heads, size, size)

    @classmethod
    def matrix_parts(cls, settings: Any, parameter_name: str) -> tuple[int, ...] | None:
        """Queries, keys and values are maps of their own."""
        return (settings.num_heads * settings.head_dim,) * 3 if parameter_name == "qkv.weight" else None

    @classmethod
    def confounds(cls, settings: Any) -> dict[str, str]:
        """The size of the memory, and by which path it is computed."""
        return {
            "state": f"{settings.num_heads} memories of {settings.head_dim} x {settings.head_dim} per layer",
            "kernel path": decayed_linear_attention_path("cpu"),
        }


class ProjectedNorm(nn.Module):
    """A linear map and a norm, between the last layer and the head."""

    def __init__(self, settings: Any) -> None:
        super().__init__()
        self.projection = nn.Linear(settings.hidden_size, settings.hidden_size, bias=False)
        self.norm = RMSNorm(settings.hidden_size, settings.norm_epsilon)

    def forward(self, hidden: Tensor) -> Tensor:
        """Of (..., hidden_size)."""
        return self.norm(self.projection(hidden))


class SAMPlugin(MixerPlugin):
    """SAM, what the authors of PAM compare it with: the same decoder in real numbers (qllm2, model_real.py).

    S_t = d S_(t-1) + k ((1 - p) v)^T with d the mean over a head's channels of exp(-dt) (1 - p) + p, o_t = S_t^T q /
    sqrt(head_dim). p is per channel and frequencies are of pairs, as in the authors' MLX code of PAM: it mirrors that
    one and not the torch code that `pam` is, so the two are no clean pair. Our reading: a decay below exp(-20) between
    two tokens is what it is, where the authors stop there.
    """

    name = "sam"
    summary = "decoder of real matrix memories with protection from decay, beside pam (SAM; rotary positions)"
    version = "1"
    classification = Classification(None, 2026, memory=("matrix",), written=("decay",))
    mixer, layer_class = RealAssociativeMemory, ScaledLayer
    preset_settings = {  # noqa: RUF012 (a class-level constant of the contract)
        "tiny": {"intermediate_size": 192},
        "30m": {"num_heads": 6, "head_dim": 48},
        "119m": {"num_heads": 9, "head_dim": 64},
    }

    @classmethod
    def embedding_norm(cls, settings: Any) -> nn.Module:
        """The embeddings are normalised."""
        return RMSNorm(settings.hidden_size, settings.norm_epsilon)

    @classmethod
    def final_norm(cls, settings: Any) -> nn.Module:
        """A map before the last norm."""
        return ProjectedNorm(settings)

    def flops(self, config: Any, sequence_length: int) -> Flops:
        """The map before the head too."""
        counted = super().flops(config, sequence_length).forward
        return Flops({**counted, "head": counted["head"] + 2 * sequence_length * config.hidden_size**2})
