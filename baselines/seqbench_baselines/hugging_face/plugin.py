"""The plugin behind `--model hf:...`."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from seqbench.contracts import Flops, ModelPlugin, WidthAxis
from seqbench.errors import RequestError
from seqbench.nn import state_of
from seqbench.plugins.checkpoint_files import checkpoint_digest, plain_config
from seqbench_baselines.hugging_face.build import build_native, transformers_config
from seqbench_baselines.hugging_face.call import adapt
from seqbench_baselines.hugging_face.carried_state import attends_to_everything
from seqbench_baselines.hugging_face.generation import generation_fault
from seqbench_baselines.hugging_face.measure import measured_flops, measured_state_bytes
from seqbench_baselines.hugging_face.settings import SHAPE_FIELDS, HuggingFaceSettings
from seqbench_baselines.hugging_face.source import resolve_source
from seqbench_baselines.hugging_face.tiny import tiny_settings
from seqbench_baselines.hugging_face.tokens import load_tokenizer

# The first of these that occurs in a parameter's name is its group.
_GROUPS = {
    "norm": "norm",
    "ln_": "norm",
    "attn": "attention",
    "attention": "attention",
    "mlp": "mlp",
    "expert": "mlp",
    "feed_forward": "mlp",
    "fc": "mlp",
    "mixer": "mixer",
    "position": "positions",
    "wpe": "positions",
}
_NO_STATE = "none"
# Clauses of `bench check` that need a state to look at.
_STATE_CLAUSES = ("chunked", "state-bytes", "state-detached", "padding-state")


class HuggingFacePlugin(ModelPlugin[HuggingFaceSettings]):
    """A causal language model of transformers: a model type with random weights, or a checkpoint with its own.

    Named by what follows the colon: a model type (hf:llama), a folder (hf:./my-model), or a name on the hub
    (hf:owner/model). Code that comes with a checkpoint is never run. A checkpoint keeps its shape, and its vocabulary
    may be larger than the task's: the first ids are used.

    FLOPs and state bytes are measured on a forward pass without values. Attention counts as many products as
    transformers computes, the full square, also where a mask hides half of it.
    """

    name = "hf"
    summary = "any causal language model of transformers, as hf:<model type>, hf:<folder> or hf:<hub id>"
    version = "2"
    config_class = HuggingFaceSettings
    presets: Mapping[str, HuggingFaceSettings] = {"tiny": HuggingFaceSettings()}  # type: ignore[misc]
    default_preset: str = "tiny"  # type: ignore[misc]
    width_axis = WidthAxis("hidden_size", 8)
    fine_axis: WidthAxis | None = None  # type: ignore[misc]
    counts_masked_products = True

    def __init__(self, source: str) -> None:
        """Resolve `source`, the text after the colon. Raises RequestError when nothing usable stands behind it."""
        self._source = resolve_source(source)
        config = self._source.config
        if self._source.checkpoint is None:
            self.presets = {"tiny": tiny_settings(config)}
        else:
            stored = {name: getattr(config, name, None) for name in SHAPE_FIELDS}
            shape: dict[str, Any] = {name: value for name, value in stored.items() if isinstance(value, int)}
            self.presets = {"checkpoint": HuggingFaceSettings(vocab_size=config.vocab_size, **shape)}
            self.default_preset = "checkpoint"
        if self.presets[self.default_preset].intermediate_size is not None:
            self.fine_axis = WidthAxis("intermediate_size", 1)

    def build(self, config: HuggingFaceSettings) -> PreTrainedModel:
        """The model in the default dtype: freshly initialised for a type, with its weights for a checkpoint."""
        return adapt(build_native(self._source, config), self._source.label, config.vocab_size)

    def with_vocabulary(self, config: HuggingFaceSettings, vocab_size: int) -> HuggingFaceSettings:
        """`config` for that many ids. Raises RequestError for a checkpoint that knows fewer."""
        known = self._source.config.vocab_size
        if self._source.checkpoint is not None and vocab_size > known:
            raise RequestError(
                f"{self._source.label} knows {known:,} token ids and the task has {vocab_size:,}; choose a checkpoint"
                " with a vocabulary of that size or more"
            )
        return dataclasses.replace(config, vocab_size=vocab_size)

    def parameter_group(self, parameter_name: str) -> str:
        """Name "embedding" for the vocabulary matrices, else by the name: "attention", "mlp", "norm", ..."""
        if parameter_name in self._vocabulary_matrices:
            return "embedding"
        return next((group for part, group in _GROUPS.items() if part in parameter_name.lower()), "other")

    def flops(self, config: HuggingFaceSettings, sequence_length: int) -> Flops:
        """Measured by torch's counter with the math attention backend."""
        return Flops(measured_flops(self._source, config, sequence_length))

    def state_bytes(self, config: HuggingFaceSettings, sequence_length: int) -> int:
        """Bytes of the tensors in the model's own cache; 0 when it keeps none that could be used."""
        if self._carried_state.startswith(_NO_STATE):
            return 0
        return measured_state_bytes(self._source, config, sequence_length)

    def attention_reach(self, config: HuggingFaceSettings) -> int | None:
        """Layers x (window - 1) when every layer has a sliding window, else None."""
        native = transformers_config(self._source, config)
        window = _window_of_every_layer(native)
        return None if window is None else native.num_hidden_layers * (window - 1)

    def receptive_field(self, config: HuggingFaceSettings) -> int | None:
        """The attention reach and the token itself; None when unbounded or unknown."""
        reach = self.attention_reach(config)
        return None if reach is None else reach + 1

    def confounds(self, config: HuggingFaceSettings) -> dict[str, str]:
        """What transformers' config tells of them."""
        native = transformers_config(self._source, config)
        taps = getattr(native, "conv_kernel", None)
        parameters = getattr(native, "rope_parameters", None) or {}
        theta = parameters.get("rope_theta")
        own, initial = f"as {native.model_type} in transformers", f"of {native.model_type} in transformers"
        if self._source.checkpoint is not None:
            initial = f"weights of {self._source.label}"
        return {
            "short convolution": f"{taps} taps" if isinstance(taps, int) else "none declared",
            "position encoding": f"rotary, theta {theta:g}" if theta else own,
            "depth": f"{native.num_hidden_layers} layers",
            "feed-forward": own,
            "norm": own,
            "initialisation": initial,
            "kernel path": "transformers, scaled_dot_product_attention where the model has attention",
            "carried state": self._carried_state,
            "FLOP count": "attention as the full square, as torch's counter sees it",
        }

    def checkpoint_sha256(self) -> str | None:
        """Of everything in the checkpoint's folder that is read; None for a model type."""
        return None if self._source.checkpoint is None else self._checkpoint_digest

    def resolved_config(self, config: HuggingFaceSettings) -> Mapping[str, Any]:
        """The config in transformers, with all of its defaults, which the next release may change."""
        resolved: dict[str, Any] = plain_config(transformers_config(self._source, config).to_dict())
        return resolved

    def tokenizer(self) -> PreTrainedTokenizerBase | None:
        """The tokenizer beside the checkpoint's weights; None where there is none, and for a model type."""
        return self._tokenizer

    def settings_from(self, native: PreTrainedConfig) -> HuggingFaceSettings:
        """Not used: raises RequestError, since a checkpoint of transformers is a model of its own here."""
        raise RequestError(
            f"a checkpoint of transformers ({native.model_type}) is a model by itself: type --model hf:<its folder or"
            " hub id>, without --init"
        )

    @functools.cached_property
    def exemptions(self) -> Mapping[str, str]:  # type: ignore[override]
        """What follows from starting at a checkpoint, and from how the architecture carries its state; it is tried."""
        reasons = {"init": "a checkpoint is named itself, as hf:<folder> or hf:<hub id>"}
        if self._source.checkpoint is not None:
            fixed = "a checkpoint keeps its shape, its vocabulary and its weights"
            reasons |= dict.fromkeys(("width", "parameters", "seeded-initialisation"), fixed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model: Any = self.build(self.presets[self.default_preset])
        try:
            model.try_continuation()
        except RequestError as error:
            return reasons | dict.fromkeys((*_STATE_CLAUSES, "generate"), str(error))
        with torch.no_grad():
            state = state_of(model.eval()(torch.zeros(1, 2, dtype=torch.int64), use_cache=True))
        fault = generation_fault(model)
        if fault is not None:
            reasons["generate"] = fault
        if not attends_to_everything(state):
            reasons["padding-state"] = (
                "transformers cannot keep padding out of the state of this architecture; it is refused"
            )
        return reasons

    @functools.cached_property
    def _tokenizer(self) -> PreTrainedTokenizerBase | None:
        folder = self._source.checkpoint
        return None if folder is None else load_tokenizer(folder, self._source.label)

    @functools.cached_property
    def _checkpoint_digest(self) -> str:
        assert self._source.checkpoint is not None
        return checkpoint_digest(self._source.checkpoint, self._source.config)

    @functools.cached_property
    def _vocabulary_matrices(self) -> frozenset[str]:
        with torch.device("meta"):
            model = build_native(self._source, self.presets[self.default_preset])
        modules = [model.get_input_embeddings(), model.get_output_embeddings()]
        matrices = {id(module.weight) for module in modules if module is not None}
        names = model.named_parameters(remove_duplicate=False)
        return frozenset(name for name, parameter in names if id(parameter) in matrices)

    @functools.cached_property
    def _carried_state(self) -> str:
        """How a model of this kind continues a sequence: for a type, a small one is tried."""
        if self._source.checkpoint is not None:
            return "tried when first used; refused where it is not exact"
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model: Any = self.build(self.presets["tiny"])
        try:
            mode = model.try_continuation()
        except RequestError as error:
            return f"{_NO_STATE}: {error}"
        return "exact in chunks of any length" if mode == "chunks" else "exact, but fed one token at a time (slow)"


def _window_of_every_layer(config: PreTrainedConfig) -> int | None:
    window = getattr(config, "sliding_window", None)
    if not isinstance(window, int) or getattr(config, "use_sliding_window", True) is False:
        return None
    kinds = getattr(config, "layer_types", None)
    return window if kinds is None or set(kinds) == {"sliding_attention"} else None
