"""`--init`: a run that starts from the weights of a checkpoint instead of random ones."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import AutoTokenizer, PreTrainedConfig, PreTrainedModel

from seqbench.accounting.meta_build import build_without_memory
from seqbench.contracts import ModelPlugin
from seqbench.errors import RequestError, first_line
from seqbench.plugins.checkpoint_files import checkpoint_digest, find_weights
from seqbench.plugins.hub import checkpoint_folder
from seqbench.store.run_folder import RunFolder

# What transformers raises for files that are damaged, foreign or incomplete.
_UNREADABLE = (OSError, ValueError, TypeError, KeyError, AttributeError, RuntimeError)
_REFUSED = (*_UNREADABLE, SafetensorError, StrictDataclassError)

# Fields of a config that say nothing of what the model computes from tokens.
_OUTSIDE_THE_MODEL = {
    "_name_or_path",
    "architectures",
    "bos_token_id",
    "dtype",
    "eos_token_id",
    "max_position_embeddings",
    "pad_token_id",
    "transformers_version",
    "use_cache",
}


@dataclass(frozen=True)
class InitialWeights:
    """A checkpoint to start from.

    Attributes:
        name: as the user typed it.
        folder: where config.json and the weights are.
        settings: the plugin's settings that describe it.
        sha256: `checkpoint_digest` of the folder; part of a run's identity, so that the place is not.
    """

    name: str
    folder: Path
    settings: Any
    sha256: str


def find_initial_weights(name: str, plugin: ModelPlugin[Any]) -> InitialWeights:
    """The checkpoint called `name` (a folder, a run's folder, or a model on the hub) as `plugin` understands it.

    Raises RequestError naming file and field when there is none, or the plugin cannot be that model.
    """
    folder = checkpoint_folder(name)
    if (folder / "run.json").is_file():
        folder = folder / "model"
    if not (folder / "config.json").is_file():
        raise RequestError(f"--init {name}: there is no {folder / 'config.json'}; name the folder of a checkpoint")
    if folder.name == "model":
        # The folder of a run keeps checksums of what is in it.
        damage = next(RunFolder(folder.parent).damages(), None)
        if damage is not None:
            raise damage
    config = _read_config(folder, plugin)
    try:
        settings = plugin.settings_from(config)
    except RequestError as error:
        raise RequestError(f"{folder / 'config.json'}: {error}") from error
    _require_same_model(folder, plugin, settings, config)
    _require_tokenizer(folder, config)
    return InitialWeights(name, folder, settings, checkpoint_digest(folder, config))


def load_weights(model: PreTrainedModel, folder: Path) -> PreTrainedModel:
    """A model of the class and config of `model`, in fp32, with the weights that are stored in `folder`.

    Raises RequestError unless the files hold exactly the parameters of the model.
    """
    find_weights(folder)
    try:
        # With the report asked for, the call returns a pair, which its annotation does not say.
        loaded: Any = type(model).from_pretrained(
            folder,
            config=model.config,
            dtype=torch.float32,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
    except RequestError:
        raise
    except _REFUSED as error:
        raise RequestError(
            f"the weights in {folder} cannot be loaded: {first_line(error)}\n"
            "a file may be incomplete or damaged; copy or download it again"
        ) from error
    model, report = loaded
    for kind in ("missing", "unexpected", "mismatched"):
        # A mismatched entry is a tuple of name and shapes.
        entries = sorted(map(str, report[f"{kind}_keys"]))
        if entries:
            raise RequestError(f"the weights in {folder} are not those of this model: {kind} {entries[0]}")
    return model


def _read_config(folder: Path, plugin: ModelPlugin[Any]) -> PreTrainedConfig:
    """The checkpoint's config as the class of the plugin's models reads it."""
    path = folder / "config.json"
    usual = type(build_without_memory(plugin, plugin.presets[plugin.default_preset]).config)
    formats = {known.model_type: known for known in (usual, *plugin.other_formats)}
    try:
        stored, _ = PreTrainedConfig.get_config_dict(folder)
        found = stored.get("model_type")
        if found not in formats:
            raise RequestError(
                f"{path}: model_type is {found!r}, and model {plugin.name} starts from"
                f" {' or '.join(map(repr, formats))}"
            )
        return formats[found].from_pretrained(folder)
    except RequestError:
        raise
    except _REFUSED as error:
        raise RequestError(f"{path} cannot be used: {first_line(error)}") from error


def _require_same_model(folder: Path, plugin: ModelPlugin[Any], settings: Any, config: PreTrainedConfig) -> None:
    """Raise RequestError when the plugin's settings cannot express a field of the checkpoint's config."""
    built = build_without_memory(plugin, settings).config.to_dict()
    for field, value in config.to_dict().items():
        if field not in _OUTSIDE_THE_MODEL and field in built and built[field] != value:
            raise RequestError(
                f"{folder / 'config.json'}: {field} is {value!r}, and model {plugin.name} would have {built[field]!r}"
            )


def _require_tokenizer(folder: Path, config: PreTrainedConfig) -> None:
    """Raise RequestError when a tokenizer lies beside the weights whose ids the model does not have."""
    path = folder / "tokenizer_config.json"
    if not path.is_file():
        return
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except RequestError:
        raise
    except _REFUSED as error:
        raise RequestError(f"{path} cannot be used: {first_line(error)}") from error
    if len(tokenizer) > config.vocab_size:
        raise RequestError(
            f"{path}: the tokenizer has {len(tokenizer):,} ids and the model only {config.vocab_size:,}"
            f" (vocab_size in {folder / 'config.json'}); they do not belong together"
        )
