"""SHA256SUMS: what the files of a folder hashed to when they were written, in the format of `sha256sum --check`."""

import hashlib
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath

from seqbench.store.damage import DamagedFile

CHECKSUMS = "SHA256SUMS"

_LINE = re.compile(r"(?P<digest>[0-9a-f]{64})  (?P<name>[^\0\n]+)")


def checksums(folder: Path, names: Iterable[str], coming: Mapping[str, str] | None = None) -> str:
    """Content of SHA256SUMS for files in `folder`.

    Args:
        folder: where the files are, and SHA256SUMS will be.
        names: of the files, relative to the folder.
        coming: name -> text (UTF-8) of files that will be written right afterwards.
    """
    digests = {name: _digest(folder / name) for name in names}
    digests |= {name: hashlib.sha256(text.encode()).hexdigest() for name, text in (coming or {}).items()}
    return "".join(f"{digest}  {name}\n" for name, digest in digests.items())


def damaged_files(
    folder: Path, required: Collection[str], only: Collection[str] | None = None
) -> Iterator[DamagedFile]:
    """Everything in `folder` that is not as SHA256SUMS says, as errors to raise or to tell.

    Args:
        folder: with SHA256SUMS in it.
        required: files that SHA256SUMS must speak of.
        only: look at no others.
    """
    path = folder / CHECKSUMS
    try:
        digests = _read(path)
    except DamagedFile as damage:
        yield damage
        return
    for name in required:
        if name not in digests:
            yield DamagedFile(folder / name, f"{CHECKSUMS} does not speak of it")
    for name, digest in digests.items():
        if only is not None and name not in only:
            continue
        if not (folder / name).is_file():
            yield DamagedFile(folder / name, "it is missing")
        elif _digest(folder / name) != digest:
            yield DamagedFile(folder / name, "it differs from its checksum")


def _read(path: Path) -> dict[str, str]:
    if not path.is_file():
        raise DamagedFile(path, "it is missing")
    digests = {}
    *lines, rest = path.read_bytes().decode(errors="replace").split("\n")
    if rest or not lines:
        raise DamagedFile(path, "it is cut off")
    for line in lines:
        match = _LINE.fullmatch(line)
        # A name that leads elsewhere is none that was written here.
        if match is None or PurePosixPath(match["name"]).is_absolute() or ".." in PurePosixPath(match["name"]).parts:
            raise DamagedFile(path, "a line is no checksum")
        digests[match["name"]] = match["digest"]
    return digests


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
