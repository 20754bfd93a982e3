"""Which files of a folder a checkpoint is read from, and the hash of all of them.

transformers reads weights from wherever an index, a link or a config points, and in more formats than one. What it
would read besides what is hashed here is refused before it gets there.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from safetensors import safe_open
from transformers import PreTrainedConfig
from transformers.utils import CONFIG_NAME, GENERATION_CONFIG_NAME, SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME
from transformers.utils.hub import CHAT_TEMPLATE_DIR

from seqbench.errors import RequestError, first_line

# What configs and tokenizers are stored as; nothing that holds code.
TEXT_SUFFIXES = (".bpe", ".jinja", ".json", ".model", ".spm", ".tiktoken", ".txt", ".vocab")
WEIGHT_SUFFIX = ".safetensors"

_ADAPTER = "adapter_config.json"
# Fields that name the place of a config, or the version that wrote it.
_NO_MATTER = ("_commit_hash", "_name_or_path", "name_or_path", "transformers_version")
# Fields of a config that make transformers read or do something else than the folder's files say.
_REFUSED_FIELDS = {
    "quantization_config": "quantised weights are computed with by other packages; save the model dequantised",
    "transformers_weights": f"weights are read from {SAFE_WEIGHTS_NAME} or {SAFE_WEIGHTS_INDEX_NAME} alone",
}


@dataclass(frozen=True)
class WeightFiles:
    """The weights of a checkpoint.

    Attributes:
        entry: the file that transformers begins with: the weights, or the index of the files that hold them.
        files: the files that hold them, each once, by name.
        places: tensor -> file.
    """

    entry: Path
    files: tuple[Path, ...]
    places: Mapping[str, Path]


def find_weights(folder: Path) -> WeightFiles:
    """The files that weights are read from: .safetensors files inside `folder`, whose tensors are those of the index.

    Raises RequestError, naming the file, for weights that are not there or cannot be read, for whatever lies elsewhere
    or is no .safetensors file, and for an adapter, which transformers would put on the weights where peft is installed.
    """
    if (folder / _ADAPTER).is_file():
        raise RequestError(
            f"{folder / _ADAPTER} makes the folder an adapter to another model; merge it into that model and save the"
            " whole"
        )
    if (folder / CONFIG_NAME).is_file():
        require_plain_config(_read_json(_inside(folder, CONFIG_NAME)), folder / CONFIG_NAME)
    entry = folder / SAFE_WEIGHTS_NAME
    if entry.is_file():
        _require_inside(entry, folder)
        return WeightFiles(entry, (entry,), dict.fromkeys(_tensors(entry), entry))
    entry = folder / SAFE_WEIGHTS_INDEX_NAME
    if not entry.is_file():
        pickled = any(folder.glob("*.bin"))
        advice = "; a .bin file is a pickle, which is not read: save the model again with transformers"
        raise RequestError(
            f"there are no weights in {folder}: neither {SAFE_WEIGHTS_NAME} nor {SAFE_WEIGHTS_INDEX_NAME}"
            + (advice if pickled else "")
        )
    _require_inside(entry, folder)
    places = {tensor: _shard(entry, name) for tensor, name in _weight_map(entry).items()}
    files = tuple(sorted(set(places.values())))
    for file in files:
        _require_listed(entry, file, {tensor for tensor, place in places.items() if place == file})
    return WeightFiles(entry, files, places)


def has_weights(folder: Path) -> bool:
    """Whether every file that weights are read from is there, whatever it holds."""
    if (folder / SAFE_WEIGHTS_NAME).is_file():
        return True
    index = folder / SAFE_WEIGHTS_INDEX_NAME
    if not index.is_file():
        return False
    try:
        return all((folder / str(name)).is_file() for name in _weight_map(index).values())
    except RequestError:
        # It is there, and told of by whoever reads it.
        return True


def checkpoint_digest(folder: Path, config: PreTrainedConfig) -> str:
    """SHA-256 over everything that decides what the checkpoint in `folder` computes, but for its place.

    That is its config as it is stored and as it was resolved (`config`, with the defaults of what is not stored), its
    generation config, its weights, and every other file of text in it: which of them a tokenizer reads depends on its
    class. Raises RequestError as `find_weights` does.
    """
    weights = find_weights(folder)
    resolved = plain_config(config.to_dict())
    require_plain_config(resolved, folder / CONFIG_NAME)
    parts = [("resolved config", _digest_of_data(resolved))]
    for name in (CONFIG_NAME, GENERATION_CONFIG_NAME):
        if (folder / name).is_file():
            parts.append((name, _digest_of_data(plain_config(_read_json(_inside(folder, name))))))
    if weights.entry not in weights.files:
        places = {tensor: file.name for tensor, file in weights.places.items()}
        parts.append((weights.entry.name, _digest_of_data(places)))
    parts += [(str(path.relative_to(folder)), _digest_of_file(path)) for path in (*weights.files, *_texts(folder))]
    return _digest_of_data(parts)


def require_plain_config(config: Any, path: Path) -> None:
    """Raise RequestError for fields that make transformers do something else than read the folder's weights.

    `config` is the content of the file `path`.
    """
    if not isinstance(config, Mapping):
        raise RequestError(f"{path} cannot be read: it is no JSON object")
    for field, reason in _REFUSED_FIELDS.items():
        if config.get(field) is not None:
            raise RequestError(f"{path} has the field {field}, which is not followed: {reason}")


def plain_config(config: Any) -> Any:
    """A config as plain data, without those fields that say where it lies or what wrote it."""
    if isinstance(config, Mapping):
        return {str(key): plain_config(value) for key, value in config.items() if key not in _NO_MATTER}
    if isinstance(config, list | tuple):
        return [plain_config(value) for value in config]
    if isinstance(config, set | frozenset):
        return sorted(map(str, config))
    return config if isinstance(config, str | int | float | bool | None) else str(config)


def _texts(folder: Path) -> Iterator[Path]:
    """The files beside config and weights that a tokenizer may read."""
    told = (CONFIG_NAME, GENERATION_CONFIG_NAME)
    for path in sorted([*folder.iterdir(), *(folder / CHAT_TEMPLATE_DIR).glob("*.jinja")]):
        is_index = path.name.endswith(".index.json")
        if path.suffix in TEXT_SUFFIXES and path.name not in told and not is_index and path.is_file():
            _require_inside(path, folder)
            yield path


def _weight_map(index: Path) -> dict[str, Any]:
    """Tensor -> name of the file that holds it."""
    content = _read_json(index)
    found = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(found, dict) or not found:
        raise _unreadable(index, "it has no weight_map with the names of tensors and their files")
    return found


def _shard(index: Path, name: Any) -> Path:
    """The file called `name` beside an index. Raises RequestError unless it is a .safetensors file there."""
    if not isinstance(name, str) or PurePath(name).name != name or not name.endswith(WEIGHT_SUFFIX):
        raise RequestError(f"{index} names {name!r}; only {WEIGHT_SUFFIX} files beside it are read")
    if not (index.parent / name).is_file():
        raise RequestError(f"{index} names {name}, which is not there; copy or download it again")
    return _inside(index.parent, name)


def _require_listed(index: Path, file: Path, listed: set[str]) -> None:
    """Raise RequestError unless the file holds those tensors and no others, of which transformers would choose one."""
    held = _tensors(file)
    for tensor in sorted(listed - held):
        raise RequestError(f"{file} lacks {tensor}, which it holds according to {index.name}")
    for tensor in sorted(held - listed):
        raise RequestError(f"{file} holds {tensor}, which is not its own according to {index.name}")


def _tensors(file: Path) -> set[str]:
    """Names of the tensors in a file; names, shapes and the length of the file are checked on opening."""
    try:
        with safe_open(file, "pt") as opened:
            return set(opened.keys())
    # Each damage has its own kind of error, of two libraries.
    except Exception as error:
        raise _unreadable(file, first_line(error)) from error


def _inside(folder: Path, name: str) -> Path:
    """The file of that name, once it is known to lie in the folder."""
    _require_inside(folder / name, folder)
    return folder / name


def _require_inside(path: Path, folder: Path) -> None:
    """Raise RequestError for a link that leads out of the folder, other than into the files of a hub's cache."""
    target = path.resolve()
    if not any(target.is_relative_to(home) for home in _homes(folder, target)):
        raise RequestError(f"{path} is a link to {target}, outside of the folder; copy the file into it")


def _homes(folder: Path, target: Path) -> Iterable[Path]:
    """Where files of the folder may lie: in it, or in the folder of a hub's cache that its links lead to."""
    yield folder.resolve()
    for parent in folder.absolute().parents:
        if parent.name == "snapshots":
            yield (parent.parent / "blobs").resolve()
    if target.parent.name == "blobs" and target.parent.parent.name.startswith("models--"):
        yield target.parent


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise _unreadable(path, first_line(error)) from error


def _digest_of_file(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise _unreadable(path, first_line(error)) from error


def _digest_of_data(data: Any) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def _unreadable(file: Path, reason: str) -> RequestError:
    return RequestError(f"{file} cannot be read: {reason}\nit may be incomplete or damaged; copy or download it again")
