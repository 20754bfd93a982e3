"""The memory read with Triton kernels where work is elementwise or fused, and the library's products elsewhere.

Forward: the key projection is one matrix product whose tiles end as a row of scores each (`key_scores`); the softmax
over the slots (`slot_softmax`); the slots mixed by its weights (`mix_slots`); one product per head for the values.
Backward: the products of the value projection; the gradient of the scores (`score_gradients`); the key projection once
more, whose tiles now end as gradients of the keys, the query and the bias (`key_gradients`); two products from those
for the weight and the slots; and what reaches the slots through the mix (`slot_gradients`). Between forward and
backward only the softmax weights are kept. Within either, tokens are taken in chunks, so that the gradients of the keys
and copies of the slots in the dtype of the products have a bounded size.

Products have the dtype of the weight and accumulate in fp32 (fp32 operands are not rounded to tf32 by our kernels);
angles, scores, softmax and the mix are fp32. Tested through Triton's interpreter, and compiled ahead of time for
compute capabilities 8.0 and 9.0; a test that needs a CUDA device compares compiled results, and has not been run so
far.
"""

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from seqbench_kernels.triton_support import INTERPRETED, on_device_of

# Of the largest buffer, the gradients of keys: 4,096 tokens at M 512, N 4, R 4 in bf16. The key projection of so many
# has 2,048 blocks, enough to fill a GPU about eight times over.
_CHUNK_BYTES = 2**26

# Multiply and add as one instruction, whatever the installed Triton does unasked.
_OPTIONS = {"enable_fp_fusion": True}


def read_forward(query: Tensor, slots: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Read every token's slots.

    Args:
        query: (tokens, R, M), before phi, fp32 or bf16.
        slots: (tokens, N, 2M) fp32.
        weight: (2 R M, 2M), R key heads and then R value heads, fp32 or bf16.
        bias: (2 R M), fp32 or bf16.

    Returns:
        Values (tokens, R M) in the dtype of `weight`, and softmax weights (tokens, R, N) fp32.
    """
    query, slots, weight, bias = (tensor.contiguous() for tensor in (query, slots, weight, bias))
    shape = _Shape.of(query, slots, weight.dtype)
    values = torch.empty(shape.tokens, shape.width, dtype=weight.dtype, device=weight.device)
    softmax_weights = torch.empty(shape.tokens, shape.heads, shape.slots, dtype=torch.float32, device=weight.device)
    with on_device_of(weight):
        for start, stop in shape.chunks():
            part = slice(start, stop)
            _forward_chunk(shape, query[part], slots[part], weight, bias, softmax_weights[part], values[part])
    return values, softmax_weights


def read_backward(
    gradient: Tensor, query: Tensor, slots: Tensor, weight: Tensor, bias: Tensor, softmax_weights: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of `query`, `slots` (fp32), `weight` and `bias`, in their shapes and dtypes.

    `gradient` is that of the values, (tokens, R M), and `softmax_weights` the second result of `read_forward`.
    """
    gradient, query, slots, weight, bias, softmax_weights = (
        tensor.contiguous() for tensor in (gradient.to(weight.dtype), query, slots, weight, bias, softmax_weights)
    )
    shape = _Shape.of(query, slots, weight.dtype)
    query_gradient, slots_gradient = torch.empty_like(query), torch.empty_like(slots)
    # Chunks are added up in fp32: each one's product is rounded to the dtype of the weight only once.
    weight_gradient = torch.zeros_like(weight, dtype=torch.float32)
    bias_gradient = torch.zeros_like(bias, dtype=torch.float32)
    with on_device_of(weight):
        for start, stop in shape.chunks():
            part = slice(start, stop)
            _backward_chunk(
                shape,
                gradient[part],
                query[part],
                slots[part],
                weight,
                bias,
                softmax_weights[part],
                query_gradient[part],
                slots_gradient[part],
                weight_gradient,
                bias_gradient,
            )
    return query_gradient, slots_gradient, weight_gradient.to(weight.dtype), bias_gradient.to(bias.dtype)


@dataclass(frozen=True)
class _Shape:
    """Sizes of a call, and the blocks its kernels work in."""

    tokens: int
    heads: int
    size: int
    slots: int
    dtype: torch.dtype

    @staticmethod
    def of(query: Tensor, slots: Tensor, dtype: torch.dtype) -> "_Shape":
        tokens, heads, size = query.shape
        return _Shape(tokens, heads, size, slots.shape[1], dtype)

    @property
    def width(self) -> int:
        return self.heads * self.size

    @property
    def padded(self) -> int:
        return _power_of_two(self.slots)

    def chunks(self) -> list[tuple[int, int]]:
        """Where spans of tokens start and stop."""
        per_chunk = max(1, _CHUNK_BYTES // (self.slots * self.width * self.dtype.itemsize))
        return list(pairwise([*range(0, self.tokens, per_chunk), self.tokens]))

    def sizes(self) -> dict[str, int]:
        return {"HEADS": self.heads, "SIZE": self.size, "SLOTS": self.slots}

    def products(self, tokens: int) -> dict[str, int]:
        """Blocks of the key projection for so many tokens, and how they are launched.

        At M 512, N 4, R 4 in bf16, compiled for compute capability 9.0: 96 KiB of shared memory, and 98 and 128
        registers a thread without spills, so that two blocks fit on a multiprocessor and the elementwise end of one
        runs beside the product of the other. (At once for all columns `key_gradients` takes 246 registers, and blocks
        of 128 by 256 take 242 to 255 and 144 KiB.) For 8.0: 64 KiB, 182 and 174 registers. Products in fp32 do not use
        the matrix units and hold their operands in registers.
        """
        half = self.dtype != torch.float32
        most_rows, most_columns, most_inner = (128, 128, 64) if half else (64, 64, 32)
        rows = max(self.padded, min(most_rows, max(16, _power_of_two(tokens * self.padded))))
        # The width that leaves the fewest columns of a head's last block idle, the larger of two that leave as many.
        widths = (most_columns, most_columns // 2, most_columns // 4)
        columns = min(widths, key=lambda width: (_blocks(self.size, width) * width, -width))
        columns = max(16, min(columns, _power_of_two(self.size), most_rows * most_columns // rows))
        return {
            "TOKENS": rows // self.padded,
            "COLUMNS": columns,
            "INNER": max(16, min(most_inner, _power_of_two(2 * self.size))),
            "PADDED": self.padded,
            "AT_ONCE": 16,
            # The interpreter's arithmetic in bf16 is wrong.
            "UPCAST": INTERPRETED,
            "num_warps": 8 if rows * columns > 4096 else 4,
            "num_stages": 3,
            **_OPTIONS,
        }

    def elementwise(self) -> dict[str, int]:
        """Blocks of kernels that read each slot once: 4,096 elements, 32 a thread."""
        # A load of 16 bytes by each of 128 threads, so that a thread has the same channels of all slots and sums them.
        loaded = 128 * 16 // self.dtype.itemsize
        channels = max(16, min(loaded, 4096 // self.padded, _power_of_two(2 * self.size)))
        return {
            "TOKENS": max(1, 4096 // (channels * self.padded)),
            "CHANNELS": channels,
            "PADDED": self.padded,
            **_OPTIONS,
        }


def _forward_chunk(
    shape: _Shape,
    query: Tensor,
    slots: Tensor,
    weight: Tensor,
    bias: Tensor,
    softmax_weights: Tensor,
    values: Tensor,
) -> None:
    from seqbench_kernels.memory_read import triton_kernels as kernels

    tokens, width = len(query), shape.width
    slots = slots.to(shape.dtype)
    blocks = shape.products(tokens)
    head_blocks = _blocks(shape.size, blocks["COLUMNS"])
    partial_scores = torch.empty(head_blocks, *softmax_weights.shape, dtype=torch.float32, device=slots.device)
    kernels.key_scores[(_blocks(tokens, blocks["TOKENS"]) * shape.heads * head_blocks,)](
        query, slots, weight, bias, partial_scores, tokens,
        **shape.sizes(), **blocks,
    )  # fmt: skip
    rows, per_program = tokens * shape.heads, max(1, 1024 // shape.padded)
    kernels.slot_softmax[(_blocks(rows, per_program),)](
        partial_scores, softmax_weights, rows, 1 / math.sqrt(shape.size),
        BLOCKS=head_blocks, SLOTS=shape.slots, PADDED=shape.padded, ROWS=per_program, **_OPTIONS,
    )  # fmt: skip
    mixed = _mix(shape, softmax_weights, slots)
    torch.baddbmm(
        bias[width:].to(shape.dtype).view(shape.heads, 1, shape.size),
        mixed,
        _by_head(weight[width:], shape).transpose(1, 2),
        out=values.view(tokens, shape.heads, shape.size).transpose(0, 1),
    )


def _backward_chunk(
    shape: _Shape,
    gradient: Tensor,
    query: Tensor,
    slots: Tensor,
    weight: Tensor,
    bias: Tensor,
    softmax_weights: Tensor,
    query_gradient: Tensor,
    slots_gradient: Tensor,
    weight_gradient: Tensor,
    bias_gradient: Tensor,
) -> None:
    from seqbench_kernels.memory_read import triton_kernels as kernels

    tokens, width = len(query), shape.width
    slots = slots.to(shape.dtype)
    elementwise, device = shape.elementwise(), slots.device
    token_blocks = _blocks(tokens, elementwise["TOKENS"])
    channel_blocks = _blocks(2 * shape.size, elementwise["CHANNELS"])

    by_head = gradient.view(tokens, shape.heads, shape.size).transpose(0, 1)
    mixed = _mix(shape, softmax_weights, slots)
    _by_head(weight_gradient[width:], shape).add_(torch.bmm(by_head.transpose(1, 2), mixed))
    bias_gradient[width:].add_(gradient.sum(dim=0, dtype=torch.float32))
    del mixed
    mixed_gradient = torch.bmm(by_head, _by_head(weight[width:], shape))

    # The gradient of a cosine of half turns has a factor pi.
    scale = math.pi / math.sqrt(shape.size)
    score_gradient = torch.empty_like(softmax_weights)
    kernels.score_gradients[(token_blocks,)](
        mixed_gradient, slots, softmax_weights, score_gradient, tokens, scale,
        PADDED_HEADS=_power_of_two(shape.heads), **shape.sizes(), **elementwise,
    )  # fmt: skip

    blocks = shape.products(tokens)
    product_blocks = _blocks(tokens, blocks["TOKENS"])
    key_gradient = torch.empty(tokens * shape.slots, width, dtype=shape.dtype, device=device)
    key_bias_gradient = torch.empty(product_blocks, width, dtype=torch.float32, device=device)
    kernels.key_gradients[(product_blocks * shape.heads * _blocks(shape.size, blocks["COLUMNS"]),)](
        query, slots, weight, bias, score_gradient,
        key_gradient, query_gradient, key_bias_gradient, tokens,
        **shape.sizes(), **blocks,
    )  # fmt: skip
    bias_gradient[:width].add_(key_bias_gradient.sum(dim=0))
    weight_gradient[:width].add_(key_gradient.t() @ slots.view(-1, 2 * shape.size))
    by_keys = key_gradient @ weight[:width]
    kernels.slot_gradients[(token_blocks * channel_blocks,)](
        by_keys, mixed_gradient, softmax_weights, slots_gradient, tokens, **shape.sizes(), **elementwise
    )


def _mix(shape: _Shape, softmax_weights: Tensor, slots: Tensor) -> Tensor:
    """sum_n s_n slots_n, (R, tokens, 2M) in the dtype of the products."""
    from seqbench_kernels.memory_read import triton_kernels as kernels

    tokens, elementwise = len(slots), shape.elementwise()
    mixed = torch.empty(shape.heads, tokens, 2 * shape.size, dtype=shape.dtype, device=slots.device)
    blocks = _blocks(tokens, elementwise["TOKENS"]) * _blocks(2 * shape.size, elementwise["CHANNELS"])
    kernels.mix_slots[(blocks,)](softmax_weights, slots, mixed, tokens, **shape.sizes(), **elementwise)
    return mixed


def _by_head(rows: Tensor, shape: _Shape) -> Tensor:
    return rows.view(shape.heads, shape.size, 2 * shape.size)


def _blocks(number: int, size: int) -> int:
    """How many blocks of a size hold a number."""
    return -(-number // size)


def _power_of_two(number: int) -> int:
    """The smallest that is not less."""
    return 1 << (number - 1).bit_length()
