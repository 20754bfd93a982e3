"""Parts of a model that stay in full precision."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor


def full_precision(tensor: Tensor) -> AbstractContextManager[Any]:
    """A region in which autocast leaves products of tensors on that device alone."""
    # Shapes alone, on the device "meta", are in no precision, and autocast does not know of it.
    return nullcontext() if tensor.is_meta else torch.autocast(tensor.device.type, enabled=False)
