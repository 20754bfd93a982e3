"""Parameters and FLOPs: what is counted, and under which convention."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from seqbench.contracts import ModelPlugin

if TYPE_CHECKING:
    from transformers import PreTrainedModel

EMBEDDING_GROUP = "embedding"

# How FLOPs are counted; stored with every result, so that figures under another convention are not mistaken for these.
FLOP_CONVENTION = (
    "matmul-1: 2 per multiply-accumulate of matrix products, attention inside its mask; backward = 2 x forward;"
    " no elementwise work"
)


def count_parameters(plugin: ModelPlugin[Any], model: PreTrainedModel) -> dict[str, int]:
    """Parameters by the plugin's groups; shared parameters once, so that the groups sum to the total."""
    counts: Counter[str] = Counter()
    for name, parameter in model.named_parameters():
        counts[plugin.parameter_group(name)] += parameter.numel()
    return dict(counts)


def parameter_bytes(model: PreTrainedModel) -> int:
    """Bytes of all parameters, shared ones once."""
    return sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())


def non_embedding(parameters: dict[str, int]) -> int:
    """Parameters outside the vocabulary matrices."""
    return sum(count for group, count in parameters.items() if group != EMBEDDING_GROUP)
