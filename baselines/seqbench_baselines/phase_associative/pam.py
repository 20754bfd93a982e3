"""The plugin `pam`."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import initialization as init

from seqbench.contracts import Classification, Flops, setting
from seqbench.errors import RequestError
from seqbench.mixers import Chunk, Mixer, MixerPlugin, Tree
from seqbench_baselines.phase_associative.block import ComplexLayer
from seqbench_baselines.phase_associative.complex_layers import ComplexLinear, ComplexNorm, size_of
from seqbench_baselines.phase_associative.rotations import as_complex, channel_rotations, turned
from seqbench_kernels.decayed_linear_attention import (
    decayed_linear_attention,
    decayed_linear_attention_path,
    forward_flops,
)

# Below it a decay is 0 in fp32; its logarithm stays finite.
_LEAST_DECAY = 1e-30


@dataclass(frozen=True)
class PAMSettings:
    """Of the memory."""

    num_heads: int = setting(2, "heads, each with a memory", minimum=1)
    head_dim: int = setting(16, "size of a head's queries, keys and values", minimum=1)


class PhaseAssociativeMemory(Mixer[Any]):
    """S_t = d_t S_(t-1) + conj(k_t) (1 - p_t) v_t^T, o_t = S_t^T q_t / sqrt(head_dim), complex, per head.

    p protects: the decay is d = exp(-dt) (1 - p) + p. Positions turn channel c of q and k, each c at a rate of its own.
    """

    settings_class = PAMSettings
    defaults = {"position_encoding": "rotary", "intermediate_size": 96}  # noqa: RUF012
    positions = ("rotary",)
    parameter_groups = {"": "memory"}  # noqa: RUF012

    def __init__(self, hidden_size: int, settings: Any) -> None:
        super().__init__(hidden_size, settings)
        channels, inner, heads = hidden_size // 2, settings.num_heads * settings.head_dim, settings.num_heads
        self.qkv_proj, self.o_proj = ComplexLinear(channels, 3 * inner), ComplexLinear(inner, channels)
        self.dt_proj, self.protect_gate = nn.Linear(hidden_size, heads), nn.Linear(channels, heads)
        self.dt_bias = nn.Parameter(torch.empty(heads))

    def initialise(self) -> None:
        """As published: what is new is protected little, and what is old fades slowly."""
        init.constant_(self.dt_bias, -4.0)
        init.constant_(self.protect_gate.bias, -3.0)

    def forward(self, hidden: Tensor, state: Tree, chunk: Chunk) -> tuple[Tensor, Tree]:
        """The memory is carried on, (batch, heads, key, value, 2)."""
        heads = (self.settings.num_heads, self.settings.head_dim)
        parts = self.qkv_proj(hidden).float().unflatten(-1, (2, 3, *heads))
        query, key, value = (parts[:, :, :, index] for index in range(3))
        if self.settings.position_encoding == "rotary":
            tables = channel_rotations(chunk, heads[1])
            query, key = (turned(tensor, tables) for tensor in (query, key))
        step = F.softplus(self.dt_proj(hidden).float() + self.dt_bias.float())
        protected = self.protect_gate(size_of(hidden)).float().sigmoid()
        decay = (-step).exp() * (1 - protected) + protected
        read, memory = decayed_linear_attention(
            as_complex(query) * heads[1] ** -0.5,
            as_complex(chunk.fill(key, 0.0)),
            as_complex(value * (1 - protected)[:, :, None, :, None]),
            chunk.fill(decay.clamp(min=_LEAST_DECAY).log(), 0.0),
            None if state is None else torch.view_as_complex(state.to(value.dtype).contiguous()),
        )
        joined = torch.cat((read.real.flatten(2), read.imag.flatten(2)), dim=-1)
        return self.o_proj(joined.to(hidden.dtype)), torch.view_as_real(memory)

    @classmethod
    def check(cls, settings: Any) -> None:
        """The residual stream is one of complex numbers, which have a norm of their own."""
        if settings.hidden_size % 2:
            raise RequestError(f"hidden_size={settings.hidden_size} is odd: it counts real and imaginary parts")
        if settings.norm != "rms":
            raise RequestError(f"norm={settings.norm}: complex numbers are normalised by their sizes; take norm=rms")

    @classmethod
    def flops(cls, settings: Any, length: int) -> int:
        """Maps, a complex product being four, and those of the chunked recurrence."""
        width, heads, size = settings.hidden_size, settings.num_heads, settings.head_dim
        maps = 2 * width * 4 * heads * size + width * heads + width // 2 * heads
        return 2 * length * maps + forward_flops(length, heads, size, size, is_complex=True)

    @classmethod
    def matrix_parts(cls, settings: Any, parameter_name: str) -> tuple[int, ...] | None:
        """Queries, keys and values are maps of their own."""
        fused = parameter_name.startswith("qkv_proj")
        return (settings.num_heads * settings.head_dim,) * 3 if fused else None

    @classmethod
    def confounds(cls, settings: Any) -> dict[str, str]:
        """What of the published model this is."""
        return {
            "state": f"{settings.num_heads} complex memories of {settings.head_dim} x {settings.head_dim} per layer",
            "feed-forward": "complex gated unit" if settings.feed_forward != "none" else "none",
            "norm": "of complex numbers, before each part and before the head",
            "initialisation": "complex maps orthogonal, others normal",
            "kernel path": decayed_linear_attention_path("cpu"),
        }


class PAMPlugin(MixerPlugin):
    """Phase-Associative Memory (github.com/gowrav-vishwakarma/qllm2), torch code: a complex matrix per head.

    S_t = d S_(t-1) + conj(k) (1 - p) v^T with d = exp(-dt) (1 - p) + p, o_t = S_t^T q / sqrt(head_dim): p protects what
    is stored, one number per head and token. All is complex: the residual stream, of which hidden_size counts real and
    imaginary parts, the norms, the feed-forward layers before each memory. The paper's figures are of another code path
    (MLX), with p per channel, paired frequencies and other first values: this is the torch one, without its dropout.
    """

    name = "pam"
    summary = "decoder of complex matrix memories with protection from decay (PAM; rotary positions)"
    version = "1"
    classification = Classification(None, 2026, memory=("matrix",), written=("decay",))
    mixer, layer_class = PhaseAssociativeMemory, ComplexLayer
    preset_settings = {  # noqa: RUF012 (a class-level constant of the contract)
        "tiny": {"intermediate_size": 96},
        "30m": {"hidden_size": 704, "intermediate_size": 1056, "num_heads": 4, "head_dim": 32},
        "119m": {"hidden_size": 1344, "intermediate_size": 2016, "num_heads": 6, "head_dim": 64},
    }

    @classmethod
    def embedding_norm(cls, settings: Any) -> nn.Module:
        """The embeddings are normalised."""
        return ComplexNorm(settings.hidden_size // 2)

    @classmethod
    def final_norm(cls, settings: Any) -> nn.Module:
        """A complex map between two norms."""
        channels = settings.hidden_size // 2
        return nn.Sequential(ComplexNorm(channels), ComplexLinear(channels, channels, bias=True), ComplexNorm(channels))

    def flops(self, config: Any, sequence_length: int) -> Flops:
        """Complex feed-forward layers, and the map before the head."""
        # A complex map of n to m numbers is a real one of 2 n to 2 m, and hidden_size is 2 n already.
        as_real = dataclasses.replace(config, intermediate_size=2 * config.intermediate_size)
        counted = super().flops(as_real, sequence_length).forward
        return Flops({**counted, "head": counted["head"] + 2 * sequence_length * config.hidden_size**2})
