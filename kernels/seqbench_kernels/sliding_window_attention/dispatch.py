"""The implementations by the names that transformers gives them, and which of them runs."""

from collections.abc import Callable, Mapping
from importlib.util import find_spec

import torch
from torch import Tensor

from seqbench_kernels.dispatch import REFERENCE, Operation, Path
from seqbench_kernels.sliding_window_attention.flash import flash_attention
from seqbench_kernels.sliding_window_attention.flex import flex_attention
from seqbench_kernels.sliding_window_attention.library import library_attention
from seqbench_kernels.sliding_window_attention.reference import sliding_window_attention_reference

_FLASH, _FLEX, _LIBRARY = "flash_attention_2", "flex_attention", "sdpa"

_ATTENTION: Mapping[str, Callable[..., Tensor]] = {
    _FLASH: flash_attention,
    _FLEX: flex_attention,
    _LIBRARY: library_attention,
    REFERENCE: sliding_window_attention_reference,
}

# What transformers calls them.
_IMPLEMENTATIONS: Mapping[str, str] = {_LIBRARY: _LIBRARY, "eager": REFERENCE, _FLASH: _FLASH, _FLEX: _FLEX}

# Sizes of a head that the kernels of flash-attn have (2.8: up to 256, in steps of 8), and the least of FlexAttention's.
_FLASH_HEADS, _FLEX_LEAST_HEAD = range(8, 257, 8), 16


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

    Arguments and result as `sliding_window_attention_reference`. A path that SEQBENCH_KERNELS or `request_paths` asks
    for wins over `implementation`.

    Args:
        query: (batch, heads, length, head_dim).
        key: (batch, key/value heads, prefix + length, head_dim).
        value: as `key`.
        window: how many keys a query sees at most; None for all earlier ones.
        prefix_valid: (batch, prefix) bool or None.
        dropout: probability of dropping an attention weight.
        implementation: "sdpa" is the default and goes by the device. With a window on CUDA it is flash-attn where that
            is installed and the tensors are in half precision, else FlexAttention; everywhere else it is torch's
            scaled_dot_product_attention, with a window in blocks, whose time and memory are linear in the length.
            "eager" is the definition written out, quadratic in both; "flash_attention_2" is the package flash-attn, on
            CUDA in half precision; "flex_attention" is torch's FlexAttention, on CUDA.

    Raises ValueError for another implementation, and for tensors that the chosen one cannot serve.
    """
    # One token has no more than a window of scores: nothing is left for a kernel to spare. The length is asked first
    # because torch.compile can branch on a comparison of lengths, but has no value of it.
    in_blocks = query.shape[2] > 1 and window is not None
    path = attention_path(query.device, query.dtype, query.shape[3], in_blocks, dropout > 0, implementation)
    return _ATTENTION[path](query, key, value, window, prefix_valid, dropout)


# Of its arguments and the request alone; torch.compile takes the name as it finds it when it traces a model.
@torch.compiler.assume_constant_result
def attention_path(
    device: torch.device, dtype: torch.dtype, head_dim: int, in_blocks: bool, dropout: bool, implementation: str
) -> str:
    """The name of the path that runs, which is noted as taken; arguments as `sliding_window_attention`.

    `in_blocks` says that a window limits what several tokens see.
    """
    if implementation not in _IMPLEMENTATIONS:
        raise ValueError(
            f"attention implementation {implementation!r} is not supported; choose {', '.join(_IMPLEMENTATIONS)}"
        )
    if OPERATION.requested() is not None:
        return OPERATION.choose(device, dtype)
    path = _IMPLEMENTATIONS[implementation]
    if implementation == _LIBRARY and in_blocks:
        path = _by_device(device, dtype, head_dim, dropout)
    OPERATION.taken.add(path)
    return path


def _by_device(device: torch.device, dtype: torch.dtype, head_dim: int, dropout: bool) -> str:
    available = OPERATION.available(device, dtype)
    if _FLASH in available and head_dim in _FLASH_HEADS:
        return _FLASH
    if _FLEX in available and head_dim >= _FLEX_LEAST_HEAD and not dropout:
        return _FLEX
    return _LIBRARY


def _without_flash_attn(device: torch.device, dtype: torch.dtype) -> str | None:
    if device.type != "cuda":
        return "flash-attn runs on CUDA devices only"
    if dtype not in (torch.float16, torch.bfloat16):
        return "flash-attn computes in float16 and bfloat16"
    return None if find_spec("flash_attn") is not None else "the package flash-attn is not installed"


def _without_flex_attention(device: torch.device, dtype: torch.dtype) -> str | None:
    if device.type == "cpu":
        return "FlexAttention has no backward pass on a CPU"
    if device.type != "cuda":
        return "its kernels are made for CUDA devices"
    if dtype not in (torch.float16, torch.bfloat16, torch.float32):
        return "FlexAttention computes in float32, float16 and bfloat16"
    return None


def _cases(device: torch.device) -> Mapping[str, Callable[[], tuple[object, ...]]]:
    """A window of 128 at the shape of the published 119M models, and the smallest preset's."""
    return {
        f"{heads} heads of {size}, window {window}, {batch} x {length}": _case(
            device, batch, heads, length, size, window
        )
        for batch, heads, length, size, window in (
            (1, 12, 512, 64, 128),
            (1, 12, 2048, 64, 128),
            (64, 2, 40, 32, 4),
        )
    }


def _case(
    device: torch.device, batch: int, heads: int, length: int, head_dim: int, window: int
) -> Callable[[], tuple[object, ...]]:
    def arguments() -> tuple[object, ...]:
        generator = torch.Generator(device).manual_seed(0)
        shape = (batch, length, heads, head_dim)
        query, key, value = (
            torch.randn(shape, generator=generator, device=device).requires_grad_().transpose(1, 2) for _ in range(3)
        )
        return query, key, value, window

    return arguments


OPERATION = Operation(
    "sliding_window_attention",
    sliding_window_attention,
    (
        Path(_FLASH, _without_flash_attn),
        Path(_FLEX, _without_flex_attention),
        Path(_LIBRARY),
        Path(REFERENCE, by_default=False),
    ),
    _cases,
)
