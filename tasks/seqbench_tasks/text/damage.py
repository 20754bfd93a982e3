"""Bytes that are not what a file's name promises."""

import lzma
import struct
import tarfile
import zipfile
import zlib

import pyarrow

# A text is packed 2 to 5 times, a log perhaps 50 times; a bomb of a few megabytes unpacks to all of the disk. The least
# keeps short texts of one letter, which gzip packs a thousand times.
MOST_TIMES = 250
LEAST_BYTES = 2**28


class Damage(Exception):
    """What a reader here finds wrong; the message says where."""


# What readers raise for bytes that are not what the file's name promises: parsers stumble with errors of many kinds.
DAMAGE = (
    Damage,
    OSError,
    EOFError,
    MemoryError,
    lzma.LZMAError,
    zlib.error,
    struct.error,
    tarfile.TarError,
    zipfile.BadZipFile,
    pyarrow.ArrowException,
    ArithmeticError,
    LookupError,
    # NotImplementedError and RecursionError among them.
    RuntimeError,
    # UnicodeDecodeError among them.
    ValueError,
)


def described(error: BaseException) -> str:
    """What is wrong, in words, with one of `DAMAGE`."""
    cause = str(error) if isinstance(error, Damage) else f"{type(error).__name__}: {error}"
    return f"it is damaged or incomplete, or not what its name says ({cause})"


def require_plausible(packed: int, unpacked: int) -> None:
    """Raise Damage when so many bytes do not unpack to so many bytes of text."""
    if unpacked > max(LEAST_BYTES, MOST_TIMES * packed):
        raise Damage(
            f"{packed:,} bytes unpack to more than {unpacked:,}, {MOST_TIMES} times as much: no text packs so tightly"
        )
