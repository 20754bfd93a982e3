"""Fresh memory that shows when a result was never written."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor


@contextmanager
def filled_with_nan() -> Iterator[None]:
    """Inside, tensors that torch hands out unwritten are full of NaN, those of integers of their minimum."""

    def filling(create: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def create_filled(*args: Any, **options: Any) -> Tensor:
            tensor = create(*args, **options)
            if tensor.dtype == torch.bool:
                return tensor
            unwritten = (
                torch.nan if tensor.is_floating_point() or tensor.is_complex() else torch.iinfo(tensor.dtype).min
            )
            return tensor.fill_(unwritten)

        return create_filled

    with ExitStack() as patches:
        for owner, name in ((torch, "empty"), (torch, "empty_like"), (Tensor, "new_empty")):
            patches.enter_context(patch.object(owner, name, filling(getattr(owner, name))))
        yield
