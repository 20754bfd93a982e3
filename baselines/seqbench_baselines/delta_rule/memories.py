"""What the delta rules share: short convolutions, normalised keys, a matrix per head, and how it fades."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import initialization as init

from seqbench.contracts import setting
from seqbench.mixers import Chunk, Mixer, Tree, causal_taps
from seqbench.nn import RMSNorm
from seqbench_baselines.delta_rule.lengths import of_length
from seqbench_kernels.delta_rule import delta_rule, delta_rule_path

# Added to the sum of squares of queries and keys, inside the root.
_LENGTH_EPSILON = 1e-6


@dataclass(frozen=True)
class DeltaRuleSettings:
    """Of the memory."""

    num_heads: int = setting(4, "heads of queries and keys", minimum=1)
    head_dim: int = setting(16, "size of a query or key: rows of a head's memory", minimum=1)
    value_head_dim: int = setting(16, "size of a value: columns of a head's memory", minimum=1)
    value_heads_per_key: int = setting(1, "value heads, each with a memory, that share a query and key head", minimum=1)
    negative_eigenvalues: bool = setting(
        False, "whether a write may overshoot what its key recalls, with a strength up to 2 where it is 1 otherwise"
    )


class DeltaMemories(Mixer[Any]):
    """S <- diag(exp g) S; u = b (v - S^T k); S <- S + k u^T; o = S^T q, per value head and sequence.

    q, k and v are SiLU of projections behind short convolutions; q and k have length 1, and q is divided by the root of
    its size. What is here begins with the projections and ends with o, which every subclass normalises and maps back.
    """

    short_convolution_inside = True
    defaults = {"short_convolution": 4}  # noqa: RUF012 (a class-level constant of the contract)

    # What the confounds say of the first values of decays.
    first_decays = ""

    def __init__(self, hidden_size: int, settings: Any) -> None:
        super().__init__(hidden_size, settings)
        self.value_heads = settings.num_heads * settings.value_heads_per_key
        self.keys, self.values = settings.num_heads * settings.head_dim, self.value_heads * settings.value_head_dim
        self.q_proj = nn.Linear(hidden_size, self.keys, bias=False)
        if settings.short_convolution > 0:
            self.q_conv1d, self.k_conv1d, self.v_conv1d = (
                nn.Conv1d(size, size, settings.short_convolution, groups=size, bias=False)
                for size in (self.keys, self.keys, self.values)
            )
        self.o_norm = RMSNorm(settings.value_head_dim, settings.norm_epsilon)
        self.o_proj = nn.Linear(self.values, hidden_size, bias=False)

    def recur(
        self, inputs: Tensor, strength: Tensor, log_decay: Tensor | None, state: Tree, chunk: Chunk
    ) -> tuple[Tensor, Tree]:
        """What is read, (batch, length, value heads, value_head_dim) in fp32, and what is carried on.

        Args:
            inputs: (batch, length, 2 keys + values), projections to queries, keys and values.
            strength: (batch, length, value heads), before the sigmoid.
            log_decay: (batch, length, value heads) or (batch, length, value heads, head_dim); None for no decay.
            state: the memory after the last real token, and the inputs that the convolutions reach back to.
            chunk: of the rows of `inputs`.
        """
        memory, before = (None, None) if state is None else (state["memory"], state["inputs"])
        mixed, after = self._convolved(inputs, before, chunk)
        query, key, value = self._heads(F.silu(mixed))
        written = strength.float().sigmoid() * (2 if self.settings.negative_eigenvalues else 1)
        decay = None if log_decay is None else chunk.fill(log_decay, 0.0)
        read, memory = delta_rule(query, key, value, decay, chunk.fill(written, 0.0), memory)
        return read, {"memory": memory, "inputs": after}

    def _convolved(self, inputs: Tensor, before: Tensor | None, chunk: Chunk) -> tuple[Tensor, Tensor | None]:
        """The short convolution of every channel, and the inputs that the next chunk begins with."""
        taps = self.settings.short_convolution
        if taps == 0:
            return inputs, None
        weight = torch.cat([layer.weight.squeeze(1) for layer in (self.q_conv1d, self.k_conv1d, self.v_conv1d)])
        return causal_taps(inputs, before, weight.to(inputs.dtype)), chunk.newest(inputs, before, taps - 1)

    def _heads(self, mixed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of every value head, in fp32; queries and keys of their lengths."""
        size = self.settings.head_dim
        directions = mixed[..., : 2 * self.keys].float().unflatten(-1, (-1, size))
        # Queries are divided by the root of their size.
        lengths = directions.new_ones(2 * self.settings.num_heads, 1)
        lengths[: self.settings.num_heads] = size**-0.5
        query, key = of_length(directions, lengths, _LENGTH_EPSILON).split(self.settings.num_heads, dim=2)
        if self.settings.value_heads_per_key > 1:
            query, key = (t.repeat_interleave(self.settings.value_heads_per_key, dim=2) for t in (query, key))
        value = mixed[..., 2 * self.keys :].float().unflatten(-1, (self.value_heads, -1))
        return query, key, value

    @classmethod
    def confounds(cls, settings: Any) -> dict[str, str]:
        """How large the memory is, its gates' first values, and the path of the rule."""
        return {
            "state": f"{settings.num_heads * settings.value_heads_per_key} memories of {settings.head_dim} x"
            f" {settings.value_head_dim} per layer",
            "initialisation": f"normal, deviation {settings.initializer_range:g}{cls.first_decays}",
            "kernel path": delta_rule_path("cpu"),
        }


def fading(steps: Tensor, A_log: Tensor, dt_bias: Tensor) -> Tensor:
    """Log decays -A softplus(steps + dt_bias) of the last dimension's heads, in fp32."""
    return -A_log.float().exp() * F.softplus(steps.float() + dt_bias.float())


FIRST_DECAYS = "; decays of rate A, uniform from {} to 16, and steps log-uniform from 0.001 to 0.1"


def initial_decays(A_log: Tensor, dt_bias: Tensor, slowest: float) -> None:
    """First values of the gates of decay: A uniform up to 16, and steps log-uniform from 0.001 to 0.1.

    As Mamba-2 has them. log_decay = -A softplus(x + dt_bias) with softplus(dt_bias) the step.

    Args:
        A_log: logarithms of A, filled in place.
        dt_bias: filled in place.
        slowest: the smallest A.
    """
    # A itself must not be 0, which the lower end of a draw may be.
    A = 16 - (16 - slowest) * torch.rand_like(A_log, dtype=torch.float32)
    init.copy_(A_log, A.log())
    step = 0.001 * 100 ** torch.rand_like(dt_bias, dtype=torch.float32)
    init.copy_(dt_bias, step + (-torch.expm1(-step)).log())
