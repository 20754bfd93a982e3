"""Norms of the gradient by module, for any model."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn


def module_of(parameter_name: str, base_prefix: str = "") -> str:
    """The module whose gradient a parameter's gradient is counted in.

    The path up to one component beyond its first number, so that each part of each layer is one module:
    "layers.3.attention.query.weight" belongs to "layers.3.attention", and so does every other parameter below it.
    Without a number it is the path of the module that holds the parameter. `base_prefix` is what all paths of the inner
    model start with (`base_model_prefix` of a PreTrainedModel) and is left out.
    """
    path = parameter_name.split(".")
    if len(path) > 1 and path[0] == base_prefix:
        path = path[1:]
    number = next((place for place, component in enumerate(path) if component.isdecimal()), None)
    if number is None:
        return ".".join(path[:-1] or path)
    return ".".join(path[: number + 2])


def group_by_module(model: nn.Module) -> dict[str, list[nn.Parameter]]:
    """Trainable parameters by `module_of` their names, in the order of the model; a tied one stands once."""
    prefix = getattr(model, "base_model_prefix", "")
    groups: dict[str, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups.setdefault(module_of(name, prefix), []).append(parameter)
    return groups


def module_gradient_norms(groups: Mapping[str, Sequence[nn.Parameter]], device: torch.device) -> Tensor:
    """2-norm of the present gradient of each group, (groups,) fp32 on the device; nothing waits for it.

    The squares add up to the square of the whole gradient's norm. A parameter without a gradient counts as zero.
    """
    norms = [
        torch.nn.utils.get_total_norm([each.grad for each in parameters if each.grad is not None])
        for parameters in groups.values()
    ]
    return torch.stack([norm.to(device, torch.float32) for norm in norms])
