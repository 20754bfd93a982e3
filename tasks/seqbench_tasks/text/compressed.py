"""Compressed files, to their last byte: what stands behind a stream is another stream, padding, or damage."""

import bz2
import io
import lzma
import zlib
from collections.abc import Callable
from typing import IO, Any, Protocol, cast

import pyarrow

from seqbench_tasks.text.damage import DAMAGE, Damage, require_plausible

COMPRESSED = (".gz", ".xz", ".bz2", ".zst")
_PIECE = 2**16
# A dictionary of xz that is larger is refused; `xz -9` takes 65 MiB.
_XZ_MEMORY = 2**31
# For zlib: a gzip header and trailer, with their checksums.
_GZIP_WINDOW = 31
# Stream padding of xz comes in units of this many zero bytes (xz file format 2.2).
_XZ_PADDING = 4
# What a stream begins with (RFC 1952 2.3.1, xz file format 2.1.1.1, bzip2's own header).
_MAGIC = {"gzip": b"\x1f\x8b", "xz": b"\xfd7zXZ\0", "bzip2": b"BZh"}


class _Decompressor(Protocol):
    """One stream, as in bz2 and lzma."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class _Gzip:
    """One member of a gzip file; checksum and length are looked at by zlib."""

    def __init__(self) -> None:
        self._stream = zlib.decompressobj(_GZIP_WINDOW)
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._stream.eof

    @property
    def unused_data(self) -> bytes:
        return self._stream.unused_data

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        content = self._stream.decompress(self._stream.unconsumed_tail + data, max(0, max_length))
        # What is full may hold more.
        self.needs_input = not self._stream.unconsumed_tail and len(content) < max_length
        return content


class _Streams(io.RawIOBase):
    """The content of all streams of a file, one behind the other.

    Args:
        source: the compressed bytes.
        kind: what to call a stream.
        begin: makes the decompressor of the next one.
        padding: how many zero bytes may stand behind a stream: a multiple of it; 0 for none.
    """

    def __init__(self, source: IO[bytes], kind: str, begin: Callable[[], _Decompressor], padding: int) -> None:
        super().__init__()
        self._source, self._kind, self._begin, self._padding = source, kind, begin, padding
        self._stream: _Decompressor | None = None
        self._stream_count = 0
        # Compressed bytes that no decompressor has taken yet; how many bytes were read, and how many given out.
        self._pending, self._read, self._unpacked = b"", 0, 0
        self._damage: Damage | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """Raises Damage, and again whenever more is asked for."""
        if self._damage is not None:
            raise self._damage
        try:
            content = self._content(len(buffer))
            self._unpacked += len(content)
            require_plausible(self._read, self._unpacked)
        except Damage as error:
            self._damage = error
            raise
        except DAMAGE as error:
            self._damage = Damage(
                f"its {self._kind} stream is damaged before byte {self._read:,}: {type(error).__name__}: {error}"
            )
            raise self._damage from error
        buffer[: len(content)] = content
        return len(content)

    def _content(self, most: int) -> bytes:
        """Up to `most` bytes, at least one; nothing at the end of the file."""
        while True:
            if self._stream is None and not self._next_stream():
                return b""
            assert self._stream is not None
            data = b""
            if self._stream.needs_input:
                if not self._pending and not self._more():
                    raise Damage(f"its {self._kind} stream ends early, at byte {self._read:,}")
                data, self._pending = self._pending, b""
            content = self._stream.decompress(data, most)
            if self._stream.eof:
                self._pending, self._stream = self._stream.unused_data, None
            if content:
                return content

    def _next_stream(self) -> bool:
        """Begin with the next stream, if there is one."""
        if self._read == 0 and not self._more():
            raise Damage(f"it is empty, and holds no {self._kind} stream")
        behind_another = self._stream_count > 0
        if behind_another and self._padding:
            self._skip_padding()
        if not self._pending and not self._more():
            return False
        if behind_another:
            self._require_stream()
        self._stream, self._stream_count = self._begin(), self._stream_count + 1
        return True

    def _skip_padding(self) -> None:
        """Pass over zero bytes."""
        first = self._place()
        while self._pending or self._more():
            self._pending = self._pending.lstrip(b"\0")
            if self._pending:
                break
        if (self._place() - first) % self._padding:
            raise Damage(f"the zeros from byte {first:,} on are no multiple of {self._padding} bytes, as padding is")

    def _require_stream(self) -> None:
        """Raise Damage when what stands behind a stream is no other one."""
        place, magic = self._place(), _MAGIC[self._kind]
        while len(self._pending) < len(magic) and self._more():
            pass
        if not self._pending.startswith(magic):
            raise Damage(f"from byte {place:,} on, behind a whole {self._kind} stream, stands no other one")

    def _place(self) -> int:
        """The first byte that no decompressor has taken."""
        return self._read - len(self._pending)

    def _more(self) -> bool:
        """Read on, unless this is the end of the file."""
        data = self._source.read(_PIECE)
        self._read += len(data)
        self._pending += data
        return bool(data)


class _Zstandard(io.RawIOBase):
    """The content of all frames of a Zstandard file."""

    def __init__(self, source: IO[bytes]) -> None:
        super().__init__()
        self._counted = _Counted(source)
        self._content = pyarrow.CompressedInputStream(pyarrow.PythonFile(self._counted, mode="r"), "zstd")
        self._unpacked = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """Raises Damage."""
        try:
            content = self._content.read(len(buffer))
        except DAMAGE as error:
            raise Damage(
                f"its Zstandard frames are damaged or end before byte {self._counted.read_bytes:,}: {error}"
            ) from error
        if not self._counted.read_bytes:
            raise Damage("it is empty, and holds no Zstandard frame")
        self._unpacked += len(content)
        require_plausible(self._counted.read_bytes, self._unpacked)
        buffer[: len(content)] = content
        return len(content)


class _Counted(io.RawIOBase):
    """A file that counts what is read from it."""

    def __init__(self, source: IO[bytes]) -> None:
        super().__init__()
        self._source, self.read_bytes = source, 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = self._source.read(size)
        self.read_bytes += len(data)
        return data


def unpacked(suffix: str, source: IO[bytes]) -> IO[bytes]:
    """The content of a compressed file, by the end of its name, one of `COMPRESSED`. Reading raises Damage."""
    raw: io.RawIOBase
    if suffix == ".gz":
        # Tapes pad with zeros, and gzip takes them for nothing.
        raw = _Streams(source, "gzip", _Gzip, padding=1)
    elif suffix == ".xz":
        begin = lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)  # noqa: E731
        raw = _Streams(source, "xz", begin, padding=_XZ_PADDING)
    elif suffix == ".bz2":
        raw = _Streams(source, "bzip2", bz2.BZ2Decompressor, padding=0)
    else:
        raw = _Zstandard(source)
    return cast(IO[bytes], io.BufferedReader(raw, _PIECE))
