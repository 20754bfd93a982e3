"""FLOPs and state bytes of a model of transformers, measured on one forward pass without values."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedConfig

from seqbench.errors import RequestError, first_line
from seqbench_baselines.hugging_face.build import build_unloaded, transformers_config
from seqbench_baselines.hugging_face.carried_state import state_of, state_size
from seqbench_baselines.hugging_face.settings import HuggingFaceSettings
from seqbench_baselines.hugging_face.source import ModelSource

Measured = TypeVar("Measured")

# Equally spaced, and longer than any short convolution that a state may hold.
_SHORT_LENGTHS = (16, 32, 48)

_LINEAR, _BATCHED, _CONVOLUTION = "linear layers", "batched products", "convolutions"
_COMPONENTS = {
    "mm": _LINEAR,
    "addmm": _LINEAR,
    "bmm": _BATCHED,
    "baddbmm": _BATCHED,
    "convolution": _CONVOLUTION,
    "_convolution": _CONVOLUTION,
}


def measured_flops(source: ModelSource, settings: HuggingFaceSettings, length: int) -> Mapping[str, int]:
    """Forward FLOPs that torch's counter sees for one sequence, by kind of operation, with attention as products."""
    counter = _first_that_works(source, length, lambda device: _count(source, settings, length, device))
    flops: Counter[str] = Counter()
    for operation, count in counter.get_flop_counts().get("Global", {}).items():
        name = str(operation).split(".")[-1]
        flops[_COMPONENTS.get(name, name)] += count
    return dict(flops)


def measured_state_bytes(source: ModelSource, settings: HuggingFaceSettings, length: int) -> int:
    """Bytes of the tensors that one sequence's state holds after so many tokens; 0 when the model returns none.

    Recurrent models of transformers loop over tokens, which takes minutes at 65,536. Where nothing in the config is a
    window, three short lengths on one line give the line for any other.
    """
    if length > max(_SHORT_LENGTHS) and not _has_window(transformers_config(source, settings)):
        first, second, third = (_state_bytes_at(source, settings, short) for short in _SHORT_LENGTHS)
        if third - second == second - first:
            per_token = (second - first) // (_SHORT_LENGTHS[1] - _SHORT_LENGTHS[0])
            return first + per_token * (length - _SHORT_LENGTHS[0])
    return _state_bytes_at(source, settings, length)


def _state_bytes_at(source: ModelSource, settings: HuggingFaceSettings, length: int) -> int:
    found = _first_that_works(
        source, length, lambda device: state_of(_forward(source, settings, length, device, use_cache=True))
    )
    return 0 if found is None else state_size(found[1])


def _has_window(config: PreTrainedConfig) -> bool:
    """Whether any attention of the model sees a bounded number of tokens, by the names that transformers uses."""
    fields = config.to_dict()
    return any(value for name, value in fields.items() if "window" in name or "chunk" in name)


def _count(source: ModelSource, settings: HuggingFaceSettings, length: int, device: str) -> FlopCounterMode:
    counter = FlopCounterMode(display=False)
    with counter:
        # Without a cache, transformers looks into the positions for packed sequences, and "meta" has no values.
        _forward(source, settings, length, device, use_cache=device == "meta")
    return counter


def _first_that_works(source: ModelSource, length: int, measure: Callable[[str], Measured]) -> Measured:
    """Measure without values, and where the computation depends on them (experts chosen by value) on the CPU."""
    failure: Exception | None = None
    for device in ("meta", "cpu"):
        try:
            return measure(device)
        except (RuntimeError, NotImplementedError, ValueError, TypeError, AttributeError) as error:
            failure = error
    assert failure is not None
    raise RequestError(
        f"{source.label} cannot be measured: its forward pass on {length:,} tokens fails ({first_line(failure)})"
    ) from failure


def _forward(source: ModelSource, settings: HuggingFaceSettings, length: int, device: str, use_cache: bool) -> Any:
    # The weights do not matter, so that a checkpoint's are not loaded; random ones leave the caller's generator alone.
    with torch.random.fork_rng(devices=[]), torch.device(device):
        model = build_unloaded(source, settings)
    # The fused product of expert layers is unknown to the counter.
    if hasattr(model.config, "_experts_implementation"):
        model.config._experts_implementation = "eager"
    tokens = torch.zeros(1, length, dtype=torch.int64, device=device)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        return model.eval()(input_ids=tokens, use_cache=use_cache, return_dict=True)
