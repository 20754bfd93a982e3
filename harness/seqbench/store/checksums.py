"""SHA256SUMS: what the files of a folder hashed to when they were written, in the format of `sha256sum --check`."""

import hashlib
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath

from seqbench.store.damage import DamagedFile
from seqbench.store.reader import digest_of, read_bytes

CHECKSUMS = "SHA256SUMS"

_LINE = re.compile(r"(?P<digest>[0-9a-f]{64})  (?P<name>[^\0-\x1f\x7f]+)")


def checksums(folder: Path, names: Iterable[str], coming: Mapping[str, str] | None = None) -> str:
    """Content of SHA256SUMS for files in `folder`.

    Args:
        folder: where the files are, and SHA256SUMS will be.
        names: of the files, relative to the folder.
        coming: name -> text (UTF-8) of files that will be written right afterwards.
    """
    digests = {name: digest_of(folder / name) for name in names}
    digests |= {name: hashlib.sha256(text.encode()).hexdigest() for name, text in (coming or {}).items()}
    return checksum_lines(digests)


def checksum_lines(digests: Mapping[str, str]) -> str:
    """Content of SHA256SUMS: file -> digest."""
    return "".join(f"{digest}  {name}\n" for name, digest in digests.items())


def damaged_files(
    folder: Path, required: Collection[str], looked_at: Callable[[str], bool] = lambda name: True
) -> Iterator[DamagedFile]:
    """Everything in `folder` that is not as SHA256SUMS says, as errors to raise or to tell.

    Args:
        folder: with SHA256SUMS in it.
        required: files that SHA256SUMS must speak of.
        looked_at: whether a file, by its name, is looked at.
    """
    try:
        digests = read_checksums(folder)
    except DamagedFile as damage:
        yield damage
        return
    for name in required:
        if name not in digests and looked_at(name):
            yield DamagedFile(folder / name, f"{CHECKSUMS} does not speak of it")
    for name, digest in digests.items():
        if looked_at(name):
            yield from _differing(folder / name, digest)


def read_checksums(folder: Path) -> dict[str, str]:
    """File -> digest, as SHA256SUMS in `folder` has them. Raises DamagedFile when it is missing or cannot be read."""
    path = folder / CHECKSUMS
    try:
        content = read_bytes(path)
    except FileNotFoundError:
        raise DamagedFile(path, "it is missing") from None
    digests: dict[str, str] = {}
    *lines, rest = content.decode(errors="replace").split("\n")
    if rest or not lines:
        raise DamagedFile(path, "it is cut off")
    for line in lines:
        match = _LINE.fullmatch(line)
        # A name that leads elsewhere, or is written otherwise, is none that was written here.
        if match is None or str(name := PurePosixPath(match["name"])) != match["name"]:
            raise DamagedFile(path, "a line is no checksum")
        if name.is_absolute() or ".." in name.parts or match["name"] in digests:
            raise DamagedFile(path, "a line names a file twice, or one that is elsewhere")
        digests[match["name"]] = match["digest"]
    return digests


def _differing(path: Path, digest: str) -> Iterator[DamagedFile]:
    try:
        if digest_of(path) != digest:
            yield DamagedFile(path, "it differs from its checksum")
    except FileNotFoundError:
        yield DamagedFile(path, "it is missing")
    except DamagedFile as damage:
        yield damage
