"""What autograd keeps of a forward pass for the backward pass."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.multiprocessing.reductions import StorageWeakRef


def saved_bytes(model: nn.Module, forward: Callable[[], Any]) -> int:
    """Bytes that are kept for the backward pass when `forward` has returned.

    Each storage counts once, whole, however many tensors share it; parameters and buffers of `model` are left out, and
    so is what was saved and let go of before the end. Tensors that an operation keeps otherwise than by
    `save_for_backward` are not seen, the inputs of a checkpointed segment among them.
    """
    own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    seen: list[tuple[StorageWeakRef, int, int]] = []

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            seen.append((StorageWeakRef(storage), storage.data_ptr(), storage.nbytes()))
        # Without its history: an operation that keeps its own result would keep itself alive.
        return tensor.detach()

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        output = forward()
    alive = {address: size for storage, address, size in seen if not storage.expired()}
    del output
    return sum(alive.values())
