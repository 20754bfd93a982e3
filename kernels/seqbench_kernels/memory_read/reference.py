"""The definition of the memory read (PMNet, arXiv 2605.13370), differentiable by autograd."""

import math

import torch.nn.functional as F
from torch import Tensor


def memory_read_reference(query: Tensor, slots: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Each token's heads attend over the slots of its group; `memory_read` says what the arguments are.

    Keys and values are projections of every slot, [K_n ; V_n] = W slots_n + b, all key heads before all value heads;
    s = softmax_n(sum_j cos(phi(q_j) - phi(K_nj)) / sqrt(M)) with phi(x) = pi tanh(x); the result is sum_n s_n V_n.
    The projection runs in the dtype of `weight`, scores, softmax and mix in fp32, or in fp64 when `slots` are.
    """
    heads, angles = query.shape[-2:]
    projected = F.linear(slots.to(weight.dtype), weight, bias).to(slots.dtype)
    keys, values = (part.unflatten(-1, (heads, angles)) for part in projected.chunk(2, dim=-1))
    difference = math.pi * (query.to(slots.dtype).tanh().unsqueeze(-3) - keys.tanh())
    weights = (difference.cos().sum(dim=-1) / math.sqrt(angles)).softmax(dim=-2)
    mixed = (weights.unsqueeze(-1) * values).sum(dim=-3)
    return mixed.flatten(-2).to(weight.dtype)
