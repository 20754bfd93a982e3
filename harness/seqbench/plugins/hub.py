"""Checkpoints by name: a folder here, or a model on the Hugging Face hub."""

import re
from pathlib import Path, PurePosixPath

from huggingface_hub import model_info, snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError
from transformers.utils.hub import CHAT_TEMPLATE_DIR

from seqbench.errors import RequestError, first_line
from seqbench.plugins.checkpoint_files import TEXT_SUFFIXES, WEIGHT_SUFFIX, has_weights

# One request that is not repeated: the library's own go on trying for half a minute without a network.
_SECONDS = 5.0
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_SUFFIXES = (*TEXT_SUFFIXES, WEIGHT_SUFFIX)


def is_hub_id(name: str) -> bool:
    """Whether `name` reads <owner>/<model>."""
    return _HUB_ID.fullmatch(name) is not None


def checkpoint_folder(name: str) -> Path:
    """The folder of the checkpoint called `name`: a folder here, or <owner>/<model>[/<folder>] on the hub, downloaded.

    Raises RequestError when there is none, or the hub cannot be asked.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if folder.exists():
        raise RequestError(f"{name} is a file; name the folder that holds config.json and the weights")
    owner_and_model, inner = "/".join(name.split("/")[:2]), "/".join(name.split("/")[2:])
    if not is_hub_id(owner_and_model):
        raise RequestError(f"there is no folder {name}")
    config = f"{inner}/config.json" if inner else "config.json"
    cached = try_to_load_from_cache(owner_and_model, config)
    if isinstance(cached, str) and has_weights(Path(cached).parent):
        return Path(cached).parent
    require_reachable(owner_and_model, name, "give the folder that you downloaded it to")
    return _download(owner_and_model, inner, name)


def require_reachable(hub_id: str, label: str, advice: str) -> None:
    """Raise RequestError, beginning with `label`, unless the model is in the cache or the hub answers for it.

    `advice` says what to type where there is no network.
    """
    if isinstance(try_to_load_from_cache(hub_id, "config.json"), str):
        return
    try:
        model_info(hub_id, timeout=_SECONDS)
    except GatedRepoError as error:
        raise RequestError(f"{label}: the hub wants its terms accepted and a login (type hf auth login)") from error
    except RepositoryNotFoundError as error:
        raise RequestError(
            f"{label}: neither a folder here nor a model on the hub (a private one needs a login: type hf auth login)"
        ) from error
    # Without a network every layer below has its own kind of error.
    except Exception as error:
        raise RequestError(
            f"{label}: there is no folder of that name, and the hub cannot be reached ({first_line(error)})\n"
            f"download the checkpoint where there is a network and {advice}"
        ) from error


def _download(hub_id: str, inner: str, label: str) -> Path:
    """Fetch the files of one folder of the repository; other folders may hold other models."""
    try:
        siblings = model_info(hub_id, timeout=_SECONDS).siblings or []
        inside = [PurePosixPath(file.rfilename) for file in siblings]
        places = (PurePosixPath(inner), PurePosixPath(inner) / CHAT_TEMPLATE_DIR)
        wanted = [path for path in inside if path.parent in places and path.suffix in _SUFFIXES]
        if places[0] / "config.json" not in wanted:
            folders = sorted({str(path.parent) for path in inside if path.name == "config.json"})
            raise RequestError(f"{label}: no config.json there; folders that hold one: {', '.join(folders) or 'none'}")
        return Path(snapshot_download(hub_id, allow_patterns=list(map(str, wanted)))) / inner
    except RequestError:
        raise
    except Exception as error:
        raise RequestError(f"{label}: the download failed ({first_line(error)}); type the command again") from error
