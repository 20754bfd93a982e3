"""A corpus that is fetched from the Hugging Face hub, as far as it is needed."""

import contextlib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from seqbench.contracts.suggestions import did_you_mean
from seqbench.errors import RequestError
from seqbench_tasks.text.bad_records import BadRecords
from seqbench_tasks.text.cache import cache_folder
from seqbench_tasks.text.config import HUB_PREFIX, PYTHON_STDLIB, CorpusConfig
from seqbench_tasks.text.corpus import Corpus
from seqbench_tasks.text.files import read_record, write_record
from seqbench_tasks.text.held_out import HeldOutRule
from seqbench_tasks.text.hub_rows import HubRows
from seqbench_tasks.text.json_lines import DEFAULT_FIELD
from seqbench_tasks.text.local import folder_digest
from seqbench_tasks.text.splits import split_called
from seqbench_tasks.text.store import DocumentStore
from seqbench_tasks.text.streamed import StreamedCorpus

if TYPE_CHECKING:
    from datasets import IterableDatasetDict

# Raise it whenever the same data set would be read to other documents.
_VERSION = 1
# One request that is not repeated: the library's own go on trying for half a minute without a network.
_SECONDS = 5.0


@dataclass(frozen=True)
class HubDataset:
    """A data set of the hub and how its texts are found.

    Attributes:
        name: owner/name.
        config: of those that it has; empty for the only one.
        text_field: column of the text.
        revision: branch or commit; empty for the newest.
        data_files: split -> files, where the data set does not say.
        advice: what else the user may do when it cannot be fetched.
    """

    name: str
    config: str = ""
    text_field: str = DEFAULT_FIELD
    revision: str = ""
    data_files: Mapping[str, str] | None = None
    advice: str = ""


# By the name that may stand for them. Data sets that are loaded by a script, as deepmind/pg19 is, cannot be read by
# today's `datasets`: a copy in Parquet is named instead.
KNOWN_DATASETS = {
    "pg19": HubDataset("emozilla/pg19"),
    "fineweb-edu": HubDataset("HuggingFaceFW/fineweb-edu", config="sample-10BT"),
    "wikitext": HubDataset("EleutherAI/wikitext_document_level", config="wikitext-103-raw-v1", text_field="page"),
    "enwik8": HubDataset(
        "LTCB/enwik8",
        revision="refs/convert/parquet",
        data_files={"train": "enwik8-raw/train/*.parquet"},
        advice="or download http://mattmahoney.net/dc/enwik8.zip and give its path with --data",
    ),
}


def open_hub(config: CorpusConfig, needs_text: bool) -> Corpus:
    """The corpus of the data set that `config.data` names behind "hub:".

    A folder of that name in the working directory is taken instead of the hub, as `datasets` does.

    Raises RequestError when there is none, or what is needed first cannot be fetched.
    """
    dataset = _dataset_of(config)
    revision, names = _resolve(dataset)
    bad = BadRecords(config.on_bad_record)
    stores: dict[str, DocumentStore] = {}
    for name in names:
        split = split_called(name)
        if split is not None and split not in stores:
            stores[split] = _store(replace(dataset, revision=revision), name, bad)
    if not stores:
        raise RequestError(f"{config.data} has only {', '.join(names)}, and none of these is train, validation or test")
    identity = {"hub": dataset.name, "config": dataset.config, "field": dataset.text_field, "revision": revision}
    return StreamedCorpus(stores, HeldOutRule.of(config), config.data, identity, needs_text, bad).divided()


def _dataset_of(config: CorpusConfig) -> HubDataset:
    """The data set that the config names, with what it says of it."""
    name = config.data.removeprefix(HUB_PREFIX)
    if name in KNOWN_DATASETS:
        dataset = KNOWN_DATASETS[name]
    elif name.count("/") == 1:
        dataset = HubDataset(name)
    else:
        raise RequestError(
            f"{config.data}: a data set of the hub is called <owner/name>{did_you_mean(name, KNOWN_DATASETS)}\n"
            f"these are known by one word: {', '.join(KNOWN_DATASETS)}"
        )
    return replace(
        dataset, config=config.hub_config or dataset.config, text_field=config.text_field or dataset.text_field
    )


def _store(dataset: HubDataset, split: str, bad: BadRecords) -> DocumentStore:
    """The store of one split of a data set whose revision is known."""
    key = (_VERSION, dataset.name, dataset.config, dataset.text_field, dataset.revision, dataset.data_files, split)
    label = f"{HUB_PREFIX}{dataset.name}/{split}"
    source = HubRows(label, dataset.text_field, lambda: _load(dataset)[split])
    return DocumentStore(cache_folder() / _digest(key), source, label, bad)


def _load(dataset: HubDataset) -> "IterableDatasetDict":
    """The splits of a data set, not fetched yet."""
    # Takes seconds to import.
    from datasets import load_dataset

    is_folder = Path(dataset.name).is_dir()
    return load_dataset(
        dataset.name,
        dataset.config or None,
        revision=None if is_folder else dataset.revision or None,
        data_files=dataset.data_files,
        streaming=True,
    )


def _resolve(dataset: HubDataset) -> tuple[str, list[str]]:
    """The commit that a data set is at, and the names of its splits; without a network those that it had before.

    For a folder, the hash of its files.
    """
    if Path(dataset.name).is_dir():
        return folder_digest(Path(dataset.name)), _split_names(dataset)
    known = cache_folder() / f"{_digest((dataset.name, dataset.config, dataset.revision))}.json"
    try:
        from huggingface_hub import dataset_info

        revision = dataset_info(dataset.name, revision=dataset.revision or None, timeout=_SECONDS).sha or ""
    # Without a network every layer below has its own kind of error.
    except Exception as error:
        found = _recorded(known)
        if found is None:
            raise _unreachable(dataset, error) from error
        return found
    found = _recorded(known)
    if found is None or found[0] != revision:
        found = revision, _split_names(replace(dataset, revision=revision))
        # Without it the hub is asked again.
        with contextlib.suppress(OSError):
            write_record(known, found)
    return found


def _recorded(path: Path) -> tuple[str, list[str]] | None:
    try:
        revision, splits = read_record(path)
        return revision, splits
    except (OSError, ValueError):
        return None


def _split_names(dataset: HubDataset) -> list[str]:
    try:
        return list(map(str, _load(dataset)))
    except Exception as error:
        raise _unreachable(dataset, error) from error


def _unreachable(dataset: HubDataset, error: Exception) -> RequestError:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    advice = f"\n{dataset.advice}" if dataset.advice else ""
    return RequestError(
        f"{HUB_PREFIX}{dataset.name} cannot be read from the hub ({type(error).__name__}: {' '.join(lines[:2])})\n"
        f"download its files where there is a network and give their folder with --data; for text that needs no "
        f"download type --data {PYTHON_STDLIB}{advice}"
    )


def _digest(key: object) -> str:
    return hashlib.sha256(json.dumps(key).encode()).hexdigest()[:32]
