"""The implementations by the names that transformers gives them."""

from collections.abc import Callable, Mapping

from torch import Tensor

from seqbench_kernels.sliding_window_attention.flash import flash_attention
from seqbench_kernels.sliding_window_attention.library import library_attention
from seqbench_kernels.sliding_window_attention.reference import sliding_window_attention_reference

_IMPLEMENTATIONS: Mapping[str, Callable[..., Tensor]] = {
    "sdpa": library_attention,
    "eager": sliding_window_attention_reference,
    "flash_attention_2": flash_attention,
}


def sliding_window_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    window: int | None,
    prefix_valid: Tensor | None = None,
    dropout: float = 0.0,
    implementation: str = "sdpa",
) -> Tensor:
    """Attention of each query over the last `window` keys, its own included.

    Arguments and result as `sliding_window_attention_reference`.

    Args:
        query: (batch, heads, length, head_dim).
        key: (batch, key/value heads, prefix + length, head_dim).
        value: as `key`.
        window: how many keys a query sees at most; None for all earlier ones.
        prefix_valid: (batch, prefix) bool or None.
        dropout: probability of dropping an attention weight.
        implementation: "sdpa" goes through torch's scaled_dot_product_attention, with a window in blocks, whose time
            and memory are linear in the length; "eager" is the definition written out, quadratic in both;
            "flash_attention_2" is the package flash-attn, on CUDA in half precision.

    Raises ValueError for another implementation.
    """
    attend = _IMPLEMENTATIONS.get(implementation)
    if attend is None:
        raise ValueError(
            f"attention implementation {implementation!r} is not supported; choose {', '.join(_IMPLEMENTATIONS)}"
        )
    return attend(query, key, value, window, prefix_valid, dropout)
