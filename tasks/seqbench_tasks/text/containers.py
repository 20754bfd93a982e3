"""Files that are no text, by their first bytes, whatever their names say."""

import tarfile

# How many bytes have to be known.
BEGINNING = 512
# By their own specifications. None of these is text: where a name may stand at the beginning of one, more is asked for.
_MAGIC = (
    (b"\x1f\x8b", "a gzip file", ".gz"),
    (b"BZh", "a bzip2 file", ".bz2"),
    (b"\xfd7zXZ\0", "an xz file", ".xz"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard file", ".zst"),
    (b"PK\x03\x04", "a zip archive", ".zip"),
    (b"PK\x05\x06", "a zip archive", ".zip"),
    (b"PAR1", "a Parquet file", ".parquet"),
    (b"ARROW1", "an Arrow file", ""),
    (b"FEA1", "a Feather file", ""),
    (b"\x04\x22\x4d\x18", "an LZ4 file", ""),
    (b"\x1f\x9d", "a compress file", ""),
    (b"LZIP", "an lzip file", ""),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", ""),
    (b"Rar!\x1a\x07", "a rar archive", ""),
    (b"Obj\x01", "an Avro file", ""),
    (b"ORC", "an ORC file", ""),
    (b"SQLite format 3\0", "an SQLite database", ""),
    (b"\x89HDF\r\n", "an HDF5 file", ""),
    (b"\x93NUMPY", "a NumPy file", ""),
)
# Where a tar archive says so (POSIX.1-2017 pax, ustar), and the older kind has nothing.
_TAR_MAGIC = slice(257, 262)


def container_of(beginning: bytes) -> str | None:
    """What a file is that begins so, in words that say what to do; None for a text.

    Args:
        beginning: the first `BEGINNING` bytes, or all where there are fewer.
    """
    if not _has_binary(beginning):
        return None
    found = next(((what, suffix) for magic, what, suffix in _MAGIC if beginning.startswith(magic)), None)
    if found is None and _is_tar(beginning):
        found = "a tar archive", ".tar"
    if found is None and _is_arrow_stream(beginning):
        found = "an Arrow stream", ""
    if found is None:
        return None
    what, suffix = found
    advice = f"give its name the ending {suffix}" if suffix else "make it a text, JSON lines or Parquet"
    return f"it is {what} by its first bytes, and no text; {advice}"


def _has_binary(beginning: bytes) -> bool:
    """Whether there are control characters that no text has, or bytes that are no UTF-8 (but for a cut at the end)."""
    if any(byte < 9 or 14 <= byte < 27 for byte in beginning):
        return True
    try:
        beginning[:-3].decode()
    except UnicodeDecodeError as error:
        return error.start < len(beginning) - 6
    return False


def _is_arrow_stream(beginning: bytes) -> bool:
    """Whether it begins with a message and its length, a schema's being far from 16 MB (Arrow columnar format, IPC)."""
    return beginning.startswith(b"\xff\xff\xff\xff") and beginning[7:8] == b"\0"


def _is_tar(beginning: bytes) -> bool:
    if beginning[_TAR_MAGIC] == b"ustar":
        return True
    try:
        return bool(tarfile.TarInfo.frombuf(beginning, "utf-8", "surrogateescape").name)
    except (tarfile.TarError, ValueError):
        return False
