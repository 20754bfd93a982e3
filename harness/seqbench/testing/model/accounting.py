"""Clauses on what a plugin declares of its size and cost: parameters by group, and FLOPs."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from seqbench.accounting.counting import EMBEDDING_GROUP, count_parameters
from seqbench.testing.model.subject import VOCABULARY, ModelSubject
from seqbench.testing.report import ClauseFailure
from seqbench.testing.tensors import random_tokens

# Multiples of every common window, where no block is filled up, and above the 64 tokens up to which some models compute
# a scan through products of matrices (a scan is none, and is not declared).
_LENGTHS = (192, 384)


def parameters(subject: ModelSubject) -> None:
    """The groups sum to all parameters; twice the vocabulary doubles the group "embedding" and no other."""
    model = subject.fresh()
    for name, _ in model.named_parameters():
        group = subject.plugin.parameter_group(name)
        if not isinstance(group, str) or not group:
            raise ClauseFailure(f"parameter_group({name!r}) is {group!r}, expected the name of a group")
    counts = count_parameters(subject.plugin, model)
    total = sum(parameter.numel() for parameter in model.parameters())
    if sum(counts.values()) != total:
        raise ClauseFailure(f"the groups sum to {sum(counts.values()):,} parameters and the model has {total:,}")
    larger_model = subject.plugin.build(subject.plugin.with_vocabulary(subject.config, 2 * VOCABULARY))
    larger = count_parameters(subject.plugin, larger_model)
    expected = {**counts, EMBEDDING_GROUP: 2 * counts.get(EMBEDDING_GROUP, 0)}
    if larger != expected or not counts.get(EMBEDDING_GROUP):
        wrong = {name for name in {*larger, *expected} if larger.get(name) != expected.get(name)} or {EMBEDDING_GROUP}
        found = "; ".join(
            f"{name!r} from {counts.get(name, 0):,} to {larger.get(name, 0):,} (expected {expected.get(name, 0):,})"
            for name in sorted(wrong)
        )
        raise ClauseFailure(
            f"twice the vocabulary ({VOCABULARY} to {2 * VOCABULARY} ids) changes {found}",
            f"parameter_group names {EMBEDDING_GROUP!r} for matrices with one row per token id, and for nothing else",
        )


def flops(subject: ModelSubject) -> None:
    """The declared forward FLOPs are those that torch's counter sees on the math attention path, on an equal mask.

    The counter sees whole rectangles of query-key products, a plugin declares the pairs inside the mask. So the pairs
    that the mask of an attention call hides are taken off the counter's sum, and everything else is compared as it is.
    A plugin with `counts_masked_products` is held to the counter's sum. One forward pass of one sequence; scans and
    elementwise work are no matrix products and are not counted.
    """
    model = subject.fresh().eval()
    # The fused product of transformers' expert layers is unknown to the counter.
    if hasattr(model.config, "_experts_implementation"):
        model.config._experts_implementation = "eager"
    # Fewer positions than that: other multiples of 16.
    lengths = _LENGTHS if subject.long >= max(_LENGTHS) else (subject.long // 32 * 16, subject.long // 16 * 16)
    for length in lengths:
        declared = subject.plugin.flops(subject.config, length)
        for component, count in declared.forward.items():
            if not isinstance(count, int) or count < 0:
                raise ClauseFailure(f"flops().forward[{component!r}] is {count!r}, expected a whole number")
        whole, masked, operations = count_flops(model, random_tokens(1, length, VOCABULARY))
        expected, other = (whole, masked) if subject.plugin.counts_masked_products else (masked, whole)
        if declared.forward_total == expected:
            continue
        difference = declared.forward_total / expected - 1 if expected else math.inf
        hint = "count 2 per multiply-accumulate of every matrix product, heads and projections included"
        if declared.forward_total == other:
            hint = (
                "what is declared follows the other convention: set counts_masked_products to"
                f" {not subject.plugin.counts_masked_products}"
            )
        raise ClauseFailure(
            f"at {length} tokens flops() declares {declared.forward_total:,} ({_listed(declared.forward)}) and torch"
            f" counts {expected:,} ({_listed(operations)}): {difference:+.2%}",
            hint,
        )


def count_flops(model: torch.nn.Module, tokens: Tensor) -> tuple[int, int, Mapping[str, int]]:
    """Forward FLOPs as the counter sees them, the same with attention inside its masks, and the former by operation."""
    attention = _AttentionCalls()
    with torch.no_grad(), _reference_path(), FlopCounterMode(display=False) as counter, attention:
        model(tokens)
    operations = counter.get_flop_counts().get("Global", {})
    total = counter.get_total_flops()
    return total, total - attention.masked, {str(name).split(".")[-1]: count for name, count in operations.items()}


@contextmanager
def _reference_path() -> Iterator[None]:
    """Attention as two products, and no recurrent layers of oneDNN, which are single operations to the counter."""
    enabled = torch._C._get_mkldnn_enabled()
    torch._C._set_mkldnn_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch._C._set_mkldnn_enabled(enabled)


class _AttentionCalls(TorchFunctionMode):
    """Sums up the FLOPs of query-key pairs that the masks of attention calls hide."""

    masked = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.scaled_dot_product_attention:
            self.masked += _hidden_flops(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _hidden_flops(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    **_: Any,
) -> int:
    """FLOPs of the two products over the pairs outside the mask; argument names are torch's."""
    visible = torch.ones((*query.shape[:-1], key.shape[-2]), dtype=torch.bool)
    if attn_mask is not None:
        # A mask that is added hides with the lowest numbers there are.
        visible &= attn_mask if attn_mask.dtype == torch.bool else attn_mask > torch.finfo(attn_mask.dtype).min / 2
    if is_causal:
        visible = visible.tril()
    return 2 * (query.shape[-1] + value.shape[-1]) * int((~visible).sum())


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())
