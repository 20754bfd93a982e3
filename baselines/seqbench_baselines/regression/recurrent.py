"""What mesanet and gka share: two matrices per head, of keys and keys and of keys and values, and a solve to read."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqbench.contracts import setting
from seqbench.mixers import Chunk, Mixer, Tree, causal_taps
from seqbench.nn import RMSNorm
from seqbench_kernels import decayed_linear_attention as reads
from seqbench_kernels import ridge_solves as solves


@dataclass(frozen=True)
class RecurrentRegressionSettings:
    """Of the memories."""

    num_heads: int = setting(4, "heads, each with two memories", minimum=1)
    head_dim: int = setting(16, "size of a query, key or value: rows and columns of a head's memories", minimum=1)


class RecurrentRegression(Mixer[Any]):
    """H = exp(g) H + b k k^T, U = exp(g) U + b k v^T, x = (H + ridge)^(-1) q, and out(norm(U^T x')).

    A subclass says queries, keys, gates and ridge, and what x' is.
    """

    short_convolution_inside = True
    defaults = {"short_convolution": 4}  # noqa: RUF012 (a class-level constant of the contract)
    # The projections behind short convolutions and SiLU, by the first letter of their names.
    convolved: ClassVar[str]

    def __init__(self, hidden_size: int, settings: Any) -> None:
        super().__init__(hidden_size, settings)
        width, taps = settings.num_heads * settings.head_dim, settings.short_convolution
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(hidden_size, width, bias=False) for _ in range(3))
        for name in self.convolved if taps else ():
            self.add_module(f"{name}_conv1d", nn.Conv1d(width, width, taps, groups=width, bias=False))
        self.o_norm = RMSNorm(settings.head_dim, settings.norm_epsilon)
        self.o_proj = nn.Linear(width, hidden_size, bias=False)

    @classmethod
    def iterations_of(cls, settings: Any) -> int:
        """Steps of a solve; 0 where it is exact."""
        raise NotImplementedError

    def regress(
        self, heads: tuple[Tensor, Tensor, Tensor], hidden: Tensor, memories: tuple[Tensor, Tensor] | None, chunk: Chunk
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """What is read, (batch, length, heads, head_dim), and H and U, from q, k and v of that shape in fp32."""
        raise NotImplementedError

    def gated(self, read: Tensor, hidden: Tensor) -> Tensor:
        """`read` (batch, length, heads x head_dim), normalised per head, times a gate; ungated, as it stands."""
        del hidden
        return read

    def forward(self, hidden: Tensor, state: Tree, chunk: Chunk) -> tuple[Tensor, Tree]:
        """The memories after the last real token and the inputs that the convolutions reach back to are carried on."""
        memories, before = (None, None) if state is None else (state["memories"], state["inputs"])
        names = self.convolved
        inputs = torch.cat([self.get_submodule(f"{name}_proj")(hidden) for name in names], dim=-1)
        mixed, after = self._convolve(inputs, before, chunk)
        projected = dict(zip(names, F.silu(mixed).chunk(len(names), dim=-1), strict=True))
        value = projected["v"] if "v" in projected else self.v_proj(hidden)
        size = self.settings.head_dim
        heads = (projected["q"], projected["k"], value)
        query, key, value = (tensor.float().unflatten(-1, (-1, size)) for tensor in heads)
        read, memories = self.regress((query, key, value), hidden, memories, chunk)
        normalised = self.o_norm(read).flatten(2).to(hidden.dtype)
        return self.o_proj(self.gated(normalised, hidden)), {"memories": memories, "inputs": after}

    def _convolve(self, inputs: Tensor, before: Tensor | None, chunk: Chunk) -> tuple[Tensor, Tensor | None]:
        """The short convolution of every channel, and the inputs that the next chunk begins with."""
        taps = self.settings.short_convolution
        if taps == 0:
            return inputs, None
        weight = torch.cat([self.get_parameter(f"{name}_conv1d.weight").squeeze(1) for name in self.convolved])
        return causal_taps(inputs, before, weight.to(inputs.dtype)), chunk.newest(inputs, before, taps - 1)

    @classmethod
    def flops(cls, settings: Any, length: int) -> int:
        """Linear maps; states and solves by formula; the products of the chunked reading."""
        with torch.device("meta"):
            layer = cls(settings.hidden_size, settings)
        maps = sum(module.weight.numel() for module in layer.modules() if isinstance(module, nn.Linear))
        heads, size = settings.num_heads, settings.head_dim
        solved = solves.forward_flops(length, heads, size, cls.iterations_of(settings))
        return 2 * length * maps + solved + reads.forward_flops(length, heads, size, size)

    @classmethod
    def confounds(cls, settings: Any) -> dict[str, str]:
        """The size of the memories, and by which paths they are computed."""
        size = settings.head_dim
        return {
            "state": f"{settings.num_heads} times two memories of {size} x {size} per layer",
            "kernel path": f"{solves.ridge_solves_path('cpu')}; {reads.decayed_linear_attention_path('cpu')}",
        }
