"""Weights that are whole and fit the model, or a clear refusal."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import try_to_load_from_cache
from safetensors import safe_open
from transformers import PreTrainedConfig
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, WEIGHTS_INDEX_NAME, WEIGHTS_NAME

from seqbench.errors import RequestError
from seqbench.hub import first_line, is_hub_id

# In the order in which transformers looks for them.
_ENTRIES = (SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME, WEIGHTS_NAME, WEIGHTS_INDEX_NAME)
# Arguments that make transformers read other files than those.
_OTHER_FILES = ("gguf_file", "state_dict", "variant")


class StrictLoading:
    """`from_pretrained` that refuses what transformers passes over.

    transformers draws random numbers for tensors that a checkpoint lacks, drops those that the model lacks, and takes
    the defaults of the config class where there is no config.json. Name this class before the model class among the
    bases.
    """

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *arguments: Any, **options: Any) -> Any:
        """As transformers has it, with all of its arguments.

        Raises RequestError, naming file and tensor, for weights that are not there, cannot be read, or are not exactly
        those of the model. `ignore_mismatched_sizes=True` lets tensors of another shape pass; they are drawn anew.
        """
        wants_report = options.pop("output_loading_info", False)
        any_shape = options.pop("ignore_mismatched_sizes", False)
        source = pretrained_model_name_or_path
        if "config" not in options:
            _require_config(source, options)
        try:
            # With the report asked for, the call returns a pair; shapes are compared below, where they can be named.
            model, report = super().from_pretrained(  # type: ignore[misc]
                source, *arguments, output_loading_info=True, ignore_mismatched_sizes=True, **options
            )
        except RequestError:
            raise
        except Exception as error:
            _explain(source, options, error)
            raise
        folder = _folder(source, options)
        if not any_shape:
            _require_shapes(folder, source, report["mismatched_keys"], model.config)
        name = cls.__name__
        _require_none(report["missing_keys"], folder, source, f"lacks {{}}, which a {name} with this config has")
        _require_none(
            report["unexpected_keys"], folder, source, f"holds {{}}, which a {name} with this config does not have"
        )
        return (model, report) if wants_report else model


def _folder(source: Any, options: Mapping[str, Any]) -> Path | None:
    """Where the checkpoint's files are: the folder of that name, or the one that a model of the hub was stored in."""
    if source is None:
        return None
    inner = options.get("subfolder") or ""
    folder = Path(source)
    if folder.is_dir():
        return folder / inner
    if not is_hub_id(str(source)):
        return None
    file = f"{inner}/config.json" if inner else "config.json"
    cached = try_to_load_from_cache(
        str(source), file, cache_dir=options.get("cache_dir"), revision=options.get("revision")
    )
    return Path(cached).parent if isinstance(cached, str) else None


def _require_config(source: Any, options: Mapping[str, Any]) -> None:
    folder = _folder(source, options)
    if folder is not None and not (folder / "config.json").is_file():
        raise RequestError(f"there is no {folder / 'config.json'}; name the folder of a checkpoint")


def _explain(source: Any, options: Mapping[str, Any], error: Exception) -> None:
    """Raise RequestError when the checkpoint's place or one of its files is to blame for `error`."""
    folder = _folder(source, options)
    if folder is None:
        if isinstance(error, OSError) and source is not None and not Path(source).exists():
            raise RequestError(
                f"{source} is neither a folder here nor a model that was found on the hub ({first_line(error)})"
            ) from error
        return
    if options.get("use_safetensors") is False or any(options.get(name) is not None for name in _OTHER_FILES):
        return
    entry = _entry(folder)
    if entry is not None:
        for file in _files(entry):
            _require_readable(file)
    elif Path(source).is_dir():
        raise RequestError(
            f"there are no weights in {folder}: neither {SAFE_WEIGHTS_NAME} nor {SAFE_WEIGHTS_INDEX_NAME}"
        ) from error


def _entry(folder: Path) -> Path | None:
    """The file that transformers begins with: the weights, or the index of files that hold them."""
    return next((folder / name for name in _ENTRIES if (folder / name).is_file()), None)


def _files(entry: Path) -> list[Path]:
    """The files of weights. Raises RequestError for an index that is damaged or names a file that is not there."""
    if entry.suffix != ".json":
        return [entry]
    files = [entry.parent / name for name in sorted(set(_weight_map(entry).values()))]
    for file in files:
        if not file.is_file():
            raise RequestError(f"{entry} names {file.name}, which is not there; copy or download it again")
    return files


def _weight_map(index: Path) -> dict[str, str]:
    """Tensor -> name of the file that holds it."""
    try:
        return dict(json.loads(index.read_text())["weight_map"])
    except (ValueError, KeyError, TypeError) as error:
        raise _unreadable(index, error) from error


def _require_readable(file: Path) -> None:
    try:
        if file.suffix == ".safetensors":
            # Names, shapes and the length of the file are checked on opening.
            with safe_open(file, "pt"):
                pass
        else:
            torch.load(file, map_location="meta", weights_only=True)
    # Each damage has its own kind of error, of three libraries.
    except Exception as error:
        raise _unreadable(file, error) from error


def _unreadable(file: Path, error: Exception) -> RequestError:
    return RequestError(
        f"{file} cannot be read: {first_line(error)}\nit may be incomplete or damaged; copy or download it again"
    )


def _require_shapes(folder: Path | None, source: Any, mismatched: Any, config: PreTrainedConfig) -> None:
    for name, stored, wanted in sorted(mismatched):
        where = "the config" if folder is None else str(folder / "config.json")
        field = _field_that_says(config, stored, wanted)
        cause = where if field is None else f"{field} in {where}"
        shapes = f"has the shape {tuple(stored)}, but {cause} makes it {tuple(wanted)}"
        raise RequestError(f"{_place(folder, source, name)}: {name} {shapes}")


def _field_that_says(config: PreTrainedConfig, stored: Any, wanted: Any) -> str | None:
    """The field of the config that the one differing size of a shape comes from; None when it is not clear."""
    if len(stored) != len(wanted):
        return None
    sizes = [ours for theirs, ours in zip(stored, wanted, strict=True) if theirs != ours]
    fields = [name for name, value in config.to_dict().items() if type(value) is int and value == sizes[0]]
    return fields[0] if len(sizes) == len(fields) == 1 else None


def _require_none(names: Any, folder: Path | None, source: Any, complaint: str) -> None:
    found = sorted(names)
    if found:
        more = f" and {len(found) - 1} more" if len(found) > 1 else ""
        raise RequestError(f"{_place(folder, source, found[0])} {complaint.format(found[0] + more)}")


def _place(folder: Path | None, source: Any, tensor: str) -> str:
    """The file that holds a tensor, or the one that should say where it is."""
    entry = None if folder is None else _entry(folder)
    if entry is None:
        return "the state_dict" if source is None else f"the checkpoint {source}"
    if entry.suffix != ".json":
        return str(entry)
    file = _weight_map(entry).get(tensor)
    return str(entry if file is None else entry.parent / file)
