"""Weights that are whole and fit the model, or a clear refusal."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache
from transformers import PreTrainedConfig

from seqbench.errors import RequestError, first_line
from seqbench.plugins.checkpoint_files import WeightFiles, find_weights, has_weights
from seqbench.plugins.hub import is_hub_id

# Arguments that make transformers read other files than those of `find_weights`.
_OTHER_FILES = ("gguf_file", "variant")


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
        _require_safetensors(options)
        if "config" not in options:
            _require_config(source, options)
            cls._require_sound_config(source, options)
        weights = _weights(source, options)
        try:
            # With the report asked for, the call returns a pair; shapes are compared below, where they can be named.
            model, report = super().from_pretrained(  # type: ignore[misc]
                source,
                *arguments,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                **options,
                use_safetensors=True,
            )
        except RequestError:
            raise
        except Exception as error:
            _require_place(source, options, error)
            raise
        # A model of the hub lies in the cache from here on.
        weights = weights or _weights(source, options)
        if not any_shape:
            _require_shapes(weights, source, report["mismatched_keys"], model.config)
        name = cls.__name__
        _require_none(report["missing_keys"], weights, source, f"lacks {{}}, which a {name} with this config has")
        _require_none(
            report["unexpected_keys"], weights, source, f"holds {{}}, which a {name} with this config does not have"
        )
        return (model, report) if wants_report else model

    @classmethod
    def _require_sound_config(cls, source: Any, options: Mapping[str, Any]) -> None:
        """Raise what the config class finds wrong with a folder's config.json, before anything behind it is missed."""
        folder = _folder(source, options)
        if folder is not None and (folder / "config.json").is_file():
            try:
                cls.config_class.from_pretrained(folder)  # type: ignore[attr-defined]
            except RequestError:
                raise
            except Exception:
                # Of another library: it comes again where the model is loaded, and is told there.
                return


def _require_safetensors(options: dict[str, Any]) -> None:
    """Raise RequestError for arguments that ask for other files; takes the one out that asks for these."""
    for name in _OTHER_FILES:
        if options.get(name) is not None:
            raise RequestError(
                f"{name}={options[name]!r}: only .safetensors files of the usual names are read; leave it out"
            )
    if options.pop("use_safetensors", None) is False:
        raise RequestError("use_safetensors=False: a .bin file is a pickle, which is not read; leave it out")


def _weights(source: Any, options: Mapping[str, Any]) -> WeightFiles | None:
    """The files that hold the weights; None for those that are given, or not yet here. Raises as `find_weights`."""
    folder = _folder(source, options)
    if folder is None or options.get("state_dict") is not None:
        return None
    return find_weights(folder) if Path(source).is_dir() or has_weights(folder) else None


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


def _require_place(source: Any, options: Mapping[str, Any], error: Exception) -> None:
    """Raise RequestError when nothing is behind the name of the checkpoint, as `error` says."""
    found = source is None or _folder(source, options) is not None or Path(source).exists()
    if isinstance(error, OSError) and not found:
        raise RequestError(
            f"{source} is neither a folder here nor a model that was found on the hub ({first_line(error)})"
        ) from error


def _require_shapes(weights: WeightFiles | None, source: Any, mismatched: Any, config: PreTrainedConfig) -> None:
    for name, stored, wanted in sorted(mismatched):
        where = "the config" if weights is None else str(weights.entry.parent / "config.json")
        field = _field_that_says(config, stored, wanted)
        cause = where if field is None else f"{field} in {where}"
        shapes = f"has the shape {tuple(stored)}, but {cause} makes it {tuple(wanted)}"
        raise RequestError(f"{_place(weights, source, name)}: {name} {shapes}")


def _field_that_says(config: PreTrainedConfig, stored: Any, wanted: Any) -> str | None:
    """The field of the config that the one differing size of a shape comes from; None when it is not clear."""
    if len(stored) != len(wanted):
        return None
    sizes = [ours for theirs, ours in zip(stored, wanted, strict=True) if theirs != ours]
    fields = [name for name, value in config.to_dict().items() if type(value) is int and value == sizes[0]]
    return fields[0] if len(sizes) == len(fields) == 1 else None


def _require_none(names: Any, weights: WeightFiles | None, source: Any, complaint: str) -> None:
    found = sorted(names)
    if found:
        more = f" and {len(found) - 1} more" if len(found) > 1 else ""
        raise RequestError(f"{_place(weights, source, found[0])} {complaint.format(found[0] + more)}")


def _place(weights: WeightFiles | None, source: Any, tensor: str) -> str:
    """The file that holds a tensor, or the one that should say where it is."""
    if weights is None:
        return "the state_dict" if source is None else f"the checkpoint {source}"
    return str(weights.places.get(tensor, weights.entry))
