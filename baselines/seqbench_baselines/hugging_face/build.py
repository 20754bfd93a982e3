"""Building a model of transformers from settings, with weights or without."""

from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from seqbench.errors import RequestError, first_line
from seqbench.plugins.checkpoint_files import find_weights
from seqbench_baselines.hugging_face.settings import SHAPE_FIELDS, HuggingFaceSettings, checked_overrides
from seqbench_baselines.hugging_face.source import ModelSource

# What transformers' configs and constructors raise for values that do not go together.
_REFUSALS = (ValueError, TypeError, AttributeError, RuntimeError, AssertionError, KeyError, StrictDataclassError)


def transformers_config(source: ModelSource, settings: HuggingFaceSettings) -> PreTrainedConfig:
    """The transformers config that the settings describe. Raises RequestError for what it cannot follow."""
    overrides = checked_overrides(settings, source.config, source.label)
    if source.checkpoint is not None:
        return _checkpoint_config(source, settings, overrides)
    shape = settings.shape()
    for name in shape:
        if not hasattr(source.config, name):
            raise RequestError(f"{source.label} has no field {name}; leave model.{name} at none")
    # Special ids would be ordinary bytes here, and a padding id is an embedding that never learns.
    special: dict[str, Any] = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"))
    # Encoders among the causal models attend to the future unless they are told that they decode.
    decoder = {"is_decoder": True} if "is_decoder" in source.config.to_dict() else {}
    fields = {"vocab_size": settings.vocab_size, **shape}
    try:
        config = AutoConfig.for_model(source.config.model_type, **{**special, **decoder, **fields, **overrides})
    except _REFUSALS as error:
        raise RequestError(f"{source.label}: transformers refuses this config: {first_line(error)}") from error
    for name, value in fields.items():
        if getattr(config, name) != value:
            raise RequestError(
                f"{source.label} derives {name} from its other fields: {getattr(config, name)}, not {value}"
            )
    return config


def _checkpoint_config(
    source: ModelSource, settings: HuggingFaceSettings, overrides: dict[str, Any]
) -> PreTrainedConfig:
    for name in SHAPE_FIELDS:
        wanted, stored = getattr(settings, name), getattr(source.config, name, None)
        if wanted is not None and wanted != stored:
            raise RequestError(
                f"{source.label} is a checkpoint with {name} {stored}, which cannot be set to {wanted}; leave"
                f" model.{name} out"
            )
    # A copy: models change the config that they are built from.
    config = type(source.config).from_dict({**source.config.to_dict(), **overrides})
    if hasattr(config, "is_decoder"):
        config.is_decoder = True
    return config


def build_native(source: ModelSource, settings: HuggingFaceSettings) -> PreTrainedModel:
    """A model of transformers on the current default device, in the current default dtype."""
    # A model without values cannot hold a checkpoint's.
    if source.checkpoint is None or torch.get_default_device().type == "meta":
        return build_unloaded(source, settings)
    config = transformers_config(source, settings)
    _require_size(source, settings, config)
    return _load(source, source.checkpoint, config)


def build_unloaded(source: ModelSource, settings: HuggingFaceSettings) -> PreTrainedModel:
    """The same model with random weights, also where there is a checkpoint."""
    config = transformers_config(source, settings)
    _require_size(source, settings, config)
    return AutoModelForCausalLM.from_config(config, dtype=torch.get_default_dtype())


def _load(source: ModelSource, checkpoint: Path, config: PreTrainedConfig) -> PreTrainedModel:
    try:
        find_weights(checkpoint)
    except RequestError as error:
        raise RequestError(f"{source.label}: its weights cannot be loaded: {error}") from error
    try:
        # With the report asked for, the call returns a pair, which its annotation does not say.
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            checkpoint,
            config=config,
            dtype=torch.get_default_dtype(),
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
    except (*_REFUSALS, OSError, SafetensorError) as error:
        raise RequestError(
            f"{source.label}: its weights cannot be loaded: {first_line(error)}\n"
            "the folder may be incomplete or damaged; copy or download it again"
        ) from error
    model, report = loaded
    missing = sorted(report["missing_keys"])
    if missing:
        raise RequestError(
            f"{source.label}: the checkpoint holds no weights for {len(missing)} parameters, {missing[0]} first;"
            " it is not a checkpoint of this causal language model"
        )
    return model


def _require_size(source: ModelSource, settings: HuggingFaceSettings, config: PreTrainedConfig) -> None:
    """Count parameters before any memory is taken: some configs keep huge defaults for the fields that nobody named."""
    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, dtype=torch.get_default_dtype())
    except _REFUSALS as error:
        raise RequestError(f"{source.label}: transformers cannot build this config: {first_line(error)}") from error
    count = sum(parameter.numel() for parameter in model.parameters())
    if count <= settings.parameter_limit:
        return
    largest = sorted(model.named_parameters(), key=lambda entry: -entry[1].numel())[:3]
    sizes = {size for _, parameter in largest for size in parameter.shape}
    fields = {
        name: value
        for name, value in config.to_dict().items()
        if isinstance(value, int) and not isinstance(value, bool) and value > 64 and value in sizes
    }
    tensors = "; ".join(f"{name} {tuple(parameter.shape)}" for name, parameter in largest)
    raise RequestError(
        f"{source.label} would have {count:,} parameters, more than model.parameter_limit"
        f" ({settings.parameter_limit:,})\n"
        f"its largest are {tensors}\n"
        f"fields of such a size: {', '.join(f'{name} {value}' for name, value in fields.items()) or 'none'};"
        " make them smaller with --set model.FIELD=... or --set model.overrides={...}, or raise the limit"
    )
