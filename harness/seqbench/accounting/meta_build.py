"""A model built without memory, to count what it has before any is taken."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from transformers import PreTrainedModel

from seqbench.contracts import ModelPlugin
from seqbench.errors import RequestError

# The largest mixtures of experts have some fifty thousand; more than twice that is a mistyped number of layers, and
# building all of those would take minutes.
MOST_TENSORS = 120_000


def build_without_memory(plugin: ModelPlugin[Any], config: Any) -> PreTrainedModel:
    """The plugin's model on the meta device. Raises RequestError when it has more than `MOST_TENSORS` tensors."""
    with torch.device("meta"), _counted_tensors(plugin.name):
        return plugin.build(config)


@contextmanager
def _counted_tensors(name: str) -> Iterator[None]:
    count = 0

    def registered(module: nn.Module, key: str, parameter: nn.Parameter) -> None:
        nonlocal count
        del module, key, parameter
        count += 1
        if count > MOST_TENSORS:
            raise RequestError(
                f"model {name} would have more than {MOST_TENSORS:,} weight tensors; choose fewer layers or a smaller"
                " preset"
            )

    hook = register_module_parameter_registration_hook(registered)
    try:
        yield
    finally:
        hook.remove()
