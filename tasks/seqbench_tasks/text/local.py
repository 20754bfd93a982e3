"""A corpus of files on this machine."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from seqbench.errors import RequestError
from seqbench_tasks.text.bad_records import BadRecords
from seqbench_tasks.text.cache import cache_folder
from seqbench_tasks.text.complete import CompleteCorpus
from seqbench_tasks.text.config import CorpusConfig
from seqbench_tasks.text.corpus import Corpus
from seqbench_tasks.text.documents import DocumentFile, DocumentTable, TextFile
from seqbench_tasks.text.formats import is_archive, is_packed
from seqbench_tasks.text.held_out import SPLITS, HeldOutRule
from seqbench_tasks.text.names import printable
from seqbench_tasks.text.open_files import stamp_of, unreadable
from seqbench_tasks.text.packed import PackedFile, PackedFiles
from seqbench_tasks.text.scan import TextFacts, scan_file
from seqbench_tasks.text.scan_memory import ScanMemory
from seqbench_tasks.text.splits import named_splits
from seqbench_tasks.text.store import DocumentStore
from seqbench_tasks.text.streamed import StreamedCorpus
from seqbench_tasks.text.walk import files_in, is_folder, located

# Packed files of more than this are unpacked only as far as training gets: all of it would take ten minutes and tens of
# gigabytes of the disk.
_STREAMED_FROM_BYTES = 2**33


@dataclass(frozen=True)
class _Place:
    """A file of the corpus: where it is, what to call it, and the split that its name stands for."""

    path: Path
    name: str
    split: str | None


def open_local(config: CorpusConfig, needs_text: bool) -> Corpus:
    """The corpus of the file or folder that `config.data` names.

    Raises RequestError when there is none, nothing in it is text, or a record is bad and that is fatal.
    """
    root = located(config.data)
    bad, memory = BadRecords(config.on_bad_record), ScanMemory(root)
    places, notes = _places(root, bad)
    if _is_streamed(places):
        return _open_streamed(places, config, needs_text, memory, bad)
    files: list[DocumentFile] = []
    splits_of_files: list[str | None] = []
    for place in places:
        found = _document_files(place, config, memory, bad)
        files += found
        splits_of_files += [place.split] * len(found)
    memory.keep()
    table = DocumentTable.of(files, needs_text, bad)
    if not len(table):
        raise RequestError("\n".join([f"{printable(str(root))} holds no text that can be used", *bad.notes()]))
    named = [splits_of_files[number] for number in table.file_numbers]
    if len(places) == 1 and places[0].path == root and is_archive(root.name):
        # Behind the archive's name stands the path in it.
        named = named_splits([document.name.removeprefix(f"{places[0].name}/") for document in table])
    splits = _split_by_name(table, named, HeldOutRule.of(config))
    return CompleteCorpus(splits, config.data, {"bad_records": bad.count}, [*notes, *bad.notes()])


def text_file(path: Path, name: str, memory: ScanMemory, bad: BadRecords) -> list[TextFile]:
    """A file as one document called `name`, or nothing when it is bad and that is not fatal."""
    found = _looked_at(path, memory, bad)
    if found is None:
        return []
    facts, stamp = found
    fault = facts.fault()
    if fault is not None:
        bad.add(str(path), fault)
        return []
    return [TextFile(path, name, facts, stamp)]


def folder_digest(root: Path) -> str:
    """A hash of the names and contents of all files in a folder. Raises RequestError when one cannot be read."""
    lines = []
    for path in files_in(root, BadRecords("refuse")):
        try:
            lines.append(f"{path.relative_to(root).as_posix()} {scan_file(path).sha256}\n")
        except OSError as error:
            raise RequestError(f"{printable(str(path))}: {unreadable(error)}") from error
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def _looked_at(path: Path, memory: ScanMemory, bad: BadRecords) -> tuple[TextFacts, tuple[int, int]] | None:
    """The facts of a file and its stamp before; None when it cannot be read and that is not fatal."""
    try:
        stamp = stamp_of(path)
        return memory.facts(path), stamp
    except OSError as error:
        bad.add(str(path), unreadable(error))
        return None


def _places(root: Path, bad: BadRecords) -> tuple[list[_Place], list[str]]:
    """The files of a corpus, and what is to be said of those that are left out.

    Where some are called train, validation or test, only those count.
    """
    if not is_folder(root):
        return [_Place(root, printable(root.name), None)], []
    paths = files_in(root, bad)
    if not paths and not bad.count:
        raise RequestError(f"{printable(str(root))} is empty; name a file, or a folder with files of text")
    names = [path.relative_to(root).as_posix() for path in paths]
    places = [
        _Place(path, printable(name), split)
        for path, name, split in zip(paths, names, named_splits(names), strict=True)
    ]
    named = [place for place in places if place.split is not None]
    if not named or len(named) == len(places):
        return places, []
    unused = len(places) - len(named)
    return named, [f"{unused:,} files are not used: only what is called train, validation or test is."]


def _document_files(place: _Place, config: CorpusConfig, memory: ScanMemory, bad: BadRecords) -> Sequence[DocumentFile]:
    """What holds the documents of a file: itself, or the store that it is unpacked into."""
    if not is_packed(place.path.name):
        return text_file(place.path, place.name, memory, bad)
    source = _packed(place, config, memory, bad)
    if source is None:
        return []
    return DocumentStore(cache_folder() / source.key, source, place.name, bad).all_segments()


def _packed(place: _Place, config: CorpusConfig, memory: ScanMemory, bad: BadRecords) -> PackedFile | None:
    """A file as the source of a store; None when it cannot be read and that is not fatal."""
    found = _looked_at(place.path, memory, bad)
    return None if found is None else PackedFile(place.path, found[0].sha256, found[1], config.text_field)


def _is_streamed(places: Sequence[_Place]) -> bool:
    sizes = [place.path.stat().st_size for place in places if is_packed(place.path.name) and place.path.exists()]
    # The names in a single archive may stand for splits, and are known when it has been read.
    single = len(places) == 1 and is_archive(places[0].name)
    return not single and sum(sizes) > _STREAMED_FROM_BYTES


def _open_streamed(
    places: Sequence[_Place], config: CorpusConfig, needs_text: bool, memory: ScanMemory, bad: BadRecords
) -> Corpus:
    """A corpus of files that are unpacked as training needs them, in the order of their names."""
    stores, identity = {}, {}
    for split in SPLITS:
        files = [
            (place.name, source)
            for place in places
            if place.split == split or (place.split is None and split == "train")
            if (source := _packed(place, config, memory, bad)) is not None
        ]
        if files:
            chain = PackedFiles(files)
            stores[split], identity[split] = DocumentStore(cache_folder() / chain.key, chain, "", bad), chain.key
    memory.keep()
    rule = HeldOutRule.of(config)
    return StreamedCorpus(stores, rule, config.data, {"files": identity}, needs_text, bad).divided()


def _split_by_name(table: DocumentTable, named: Sequence[str | None], rule: HeldOutRule) -> dict[str, DocumentTable]:
    """Documents in the splits that are named for them; what is held out and not named is taken from training.

    Where no document has a name, the rule divides all of them.
    """
    if not any(named):
        return rule.divide(table)
    splits = {split: table.select(np.flatnonzero([name == split for name in named])) for split in SPLITS}
    missing = [split for split in SPLITS[1:] if not len(splits[split])]
    if missing and len(splits["train"]):
        taken = rule.only(missing).divide(splits["train"])
        splits.update({split: taken[split] for split in ("train", *missing)})
    return splits
