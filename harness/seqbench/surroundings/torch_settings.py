"""Settings of torch that hold for a whole process and decide numbers: as a fresh process has them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import reduce
from typing import Any, NamedTuple

import torch


class _Setting(NamedTuple):
    """How one of them is read and written, and what a fresh process has."""

    read: Callable[[], Any]
    write: Callable[[Any], object]
    fresh: Any


def _attribute(path: str, fresh: Any) -> _Setting:
    """A setting that is an attribute of torch, named by its path from there."""
    *owners, name = path.split(".")

    def owner() -> Any:
        return reduce(getattr, owners, torch)

    return _Setting(lambda: getattr(owner(), name), lambda value: setattr(owner(), name, value), fresh)


def _autocast(device: str) -> _Setting:
    return _Setting(
        lambda: torch.is_autocast_enabled(device), lambda value: torch.set_autocast_enabled(device, value), False
    )


def _scaled_dot_product(backend: str) -> _Setting:
    """Whether attention may be computed by that backend."""
    cuda: Any = torch.backends.cuda
    return _Setting(getattr(cuda, f"{backend}_sdp_enabled"), getattr(cuda, f"enable_{backend}_sdp"), True)


def _flushes_denormals() -> bool:
    return bool((torch.tensor(1e-40, dtype=torch.float32, device="cpu") * 1 == 0).item())


def _write_deterministic(value: tuple[bool, bool]) -> None:
    torch.use_deterministic_algorithms(value[0], warn_only=value[1])


def _write_default_device(device: torch.device) -> None:
    """None where that says the same: a device that was set, the CPU too, looks at every call of torch, which slows them
    and cannot be compiled.
    """
    torch.set_default_device(None)
    if torch.get_default_device() != device:
        torch.set_default_device(device)


# General ones before those that they change.
_SETTINGS = (
    _Setting(torch.get_default_dtype, torch.set_default_dtype, torch.float32),
    _Setting(torch.get_default_device, _write_default_device, torch.device("cpu")),
    _Setting(torch.is_grad_enabled, torch.set_grad_enabled, True),
    _autocast("cpu"),
    _autocast("cuda"),
    _Setting(_flushes_denormals, torch.set_flush_denormal, False),
    _Setting(
        lambda: (
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
        ),
        _write_deterministic,
        (False, False),
    ),
    # What products of fp32 numbers are computed in; "ieee" is fp32, and so is "none" but where something above says
    # otherwise.
    _attribute("backends.fp32_precision", "none"),
    _attribute("backends.cudnn.fp32_precision", "none"),
    _attribute("backends.cudnn.conv.fp32_precision", "tf32"),
    _attribute("backends.cudnn.rnn.fp32_precision", "tf32"),
    _attribute("backends.mkldnn.fp32_precision", "none"),
    _attribute("backends.mkldnn.conv.fp32_precision", "none"),
    _attribute("backends.mkldnn.rnn.fp32_precision", "none"),
    _attribute("backends.cuda.matmul.fp32_precision", "ieee"),
    _attribute("backends.mkldnn.matmul.fp32_precision", "ieee"),
    _attribute("backends.cuda.matmul.allow_fp16_accumulation", False),
    _attribute("backends.cuda.matmul.allow_fp16_reduced_precision_reduction", True),
    _attribute("backends.cuda.matmul.allow_bf16_reduced_precision_reduction", True),
    _attribute("backends.cudnn.enabled", True),
    _attribute("backends.cudnn.benchmark", False),
    _attribute("backends.cudnn.deterministic", False),
    *map(_scaled_dot_product, ("flash", "mem_efficient", "math", "cudnn")),
)


@contextmanager
def kept_torch_settings() -> Iterator[None]:
    """What is done inside, such as importing a plugin, leaves the settings as they were."""
    older, before = _older_precision(), [setting.read() for setting in _SETTINGS]
    try:
        yield
    finally:
        if older not in (None, _older_precision()):
            torch.set_float32_matmul_precision(older)
        _write(before)


@contextmanager
def fresh_torch_settings() -> Iterator[None]:
    """Inside, the settings of a fresh process hold, whatever callers and plugins have set; afterwards theirs again."""
    with kept_torch_settings():
        torch.set_float32_matmul_precision("highest")
        _write([setting.fresh for setting in _SETTINGS])
        yield


def _older_precision() -> str | None:
    """What the older interface says of fp32 products, which must not contradict the newer one; None where it does."""
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:
        return None


def _write(values: list[Any]) -> None:
    for setting, value in zip(_SETTINGS, values, strict=True):
        if setting.read() != value:
            setting.write(value)
