"""What stands behind the colon of `hf:...`: a model type, a folder, or a name on the hub."""

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from transformers import AutoConfig, PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from seqbench.contracts.suggestions import did_you_mean
from seqbench.errors import RequestError, first_line
from seqbench.plugins.hub import checkpoint_folder, is_hub_id, require_reachable
from seqbench_baselines.hugging_face.settings import require_depth


@dataclass(frozen=True)
class ModelSource:
    """A resolved name.

    Attributes:
        label: as the user typed it, with the prefix.
        config: the checkpoint's config, or the defaults of the type.
        checkpoint: folder to load weights from; None for a type, which starts from random weights.
    """

    label: str
    config: PreTrainedConfig
    checkpoint: Path | None


def resolve_source(text: str) -> ModelSource:
    """Find out what `text` names; a model type wins over a folder of that name (type ./name for the folder).

    Raises RequestError when it names nothing, cannot be read, or is not a causal language model.
    """
    label = f"hf:{text}"
    if text in CONFIG_MAPPING_NAMES:
        _require_causal(text, label)
        return ModelSource(label, AutoConfig.for_model(text), None)
    folder = Path(text).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise RequestError(
                f"{label}: there is no config.json in that folder; name the folder that holds the checkpoint"
            )
        return _checkpoint(folder, label)
    if folder.exists():
        raise RequestError(f"{label} is a file; name the folder that holds config.json and the weights")
    if is_hub_id(text):
        require_reachable(text, label, "type hf:<its folder>")
        # From here on a folder: the hub may hold another model of that name by the time that weights are loaded.
        return _checkpoint(checkpoint_folder(text), label)
    if "/" in text or text.startswith((".", "~")):
        raise RequestError(f"{label}: there is no such folder")
    raise RequestError(
        f"{label}: unknown model type{did_you_mean(text, MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)}\n"
        "type hf:<model type> (such as hf:llama), hf:<folder> or hf:<owner>/<name> on the hub"
    )


def _checkpoint(folder: Path, label: str) -> ModelSource:
    with suppress(OSError, ValueError):
        require_depth(json.loads((folder / "config.json").read_bytes()), f"{label}: its config.json")
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    # transformers raises errors of many kinds for a config that is damaged, foreign or beyond its version.
    except Exception as error:
        raise RequestError(f"{label}: its config.json cannot be used: {first_line(error)}") from error
    _require_causal(config.model_type, label)
    return ModelSource(label, config, folder)


def _require_causal(model_type: str, label: str) -> None:
    if model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise RequestError(
            f"{label}: transformers has no causal language model of type {model_type!r}"
            f"{did_you_mean(model_type, MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)}"
        )
