"""A model in one precision: calling it, and how far two of its answers may differ."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import PreTrainedModel

from seqbench.nn import state_argument, state_of
from seqbench.testing.tensors import feed

# What the contract allows two computations of the same logits to differ by in fp32, and what remains of it in fp64.
_AGREEMENT = {torch.float32: 1e-4, torch.float64: 1e-7}
# What rounding may change in one and the same computation, over the largest logit: a stabiliser taken from the whole
# sequence (the maximum under an exponential) is no leak.
_SAME_COMPUTATION = {torch.float32: 5e-6, torch.float64: 1e-12}


@dataclass
class Probe:
    """A lively copy of the model in one precision, in evaluation mode.

    Attributes:
        model: a copy of its own, which the clause may do anything with.
        dtype: of the weights, and of all that is computed from them.
        vocabulary: token ids to try it with are below it.
    """

    model: PreTrainedModel
    dtype: torch.dtype
    vocabulary: int

    @property
    def name(self) -> str:
        """Words for messages."""
        return "in fp64" if self.dtype == torch.float64 else "in fp32"

    @contextmanager
    def precision(self) -> Iterator[None]:
        """Whatever the model computes is of its own precision; a model in fp64 casts nothing to fp32."""
        before = torch.get_default_dtype()
        torch.set_default_dtype(self.dtype)
        try:
            with _Widening() if self.dtype == torch.float64 else nullcontext():
                yield
        finally:
            torch.set_default_dtype(before)

    @torch.no_grad()
    def logits(self, tokens: Tensor, mask: Tensor | None = None, training: bool = False) -> Tensor:
        """Logits without a state; in training mode the same random numbers are drawn in every call."""
        self.model.train(training)
        # Not torch.manual_seed, which takes milliseconds to tell every device.
        torch.default_generator.manual_seed(0)
        if self.model.device.type == "cuda":
            torch.cuda.manual_seed(0)
        with self.precision():
            # A copy: a model that writes into its input shall not change what others are given.
            logits = self.model(
                tokens.clone().to(self.model.device),
                attention_mask=None if mask is None else mask.clone().to(self.model.device),
            ).logits
        self.model.eval()
        return logits.cpu()

    @torch.no_grad()
    def carry(self, tokens: Tensor, mask: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Logits and the state behind them, of one chunk with padding."""
        with self.precision():
            output = self.model(
                tokens.clone().to(self.model.device),
                attention_mask=mask.clone().to(self.model.device),
                use_cache=True,
                **{state_argument(self.model): state},
            )
        return output.logits.cpu(), state_of(output)

    def feed(self, tokens: Tensor, sizes: Sequence[int], state: Any = None) -> tuple[Tensor, Any]:
        """Logits and the state behind them, fed in chunks of those sizes."""
        with self.precision():
            logits, state = feed(self.model, tokens.to(self.model.device), sizes, state)
        return logits.cpu(), state

    def agreement(self, logits: Tensor) -> float:
        """How far two ways to compute `logits` may differ."""
        return _AGREEMENT[self.dtype] * max(1.0, _largest(logits) / 10)

    def rounding(self, logits: Tensor) -> float:
        """How far `logits` may differ where the same operations ran on the same numbers."""
        return _SAME_COMPUTATION[self.dtype] * max(1.0, _largest(logits))


def narrowest_in_fp64(model: PreTrainedModel, tokens: Tensor) -> int | None:
    """Bytes of the narrowest floating-point numbers that `model` computes with when it is in fp64.

    None when it does not run: a kernel for fp32 alone, for example.
    """
    probe, widths = Probe(copy.deepcopy(model).double(), torch.float64, int(tokens.max()) + 1), _Widths()
    try:
        with widths:
            probe.logits(tokens)
    # Whatever the architecture raises.
    except Exception:
        return None
    with suppress(Exception), widths:
        probe.feed(tokens, [tokens.shape[1] - 1, 1])
    return widths.narrowest


class _Widening(TorchFunctionMode):
    """Casts to fp32 cast to fp64: norms, softmax and positions are often computed in fp32, whatever the model is in."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.float:
            func = Tensor.double
        args = [_widened(argument) for argument in args]
        return func(*args, **{name: _widened(argument) for name, argument in (kwargs or {}).items()})


def _widened(argument: Any) -> Any:
    return torch.float64 if argument is torch.float32 else argument


class _Widths(TorchDispatchMode):
    """The size in bytes of the narrowest floating-point numbers that any operation yields."""

    narrowest = 8

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        for value in tree_leaves(output):
            if isinstance(value, Tensor) and value.is_floating_point():
                self.narrowest = min(self.narrowest, value.element_size())
        return output


def _largest(logits: Tensor) -> float:
    return logits.detach().abs().nan_to_num(nan=0.0, posinf=0.0, neginf=0.0).max().item()
