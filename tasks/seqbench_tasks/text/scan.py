"""What has to be known of a text before it is used: its length, its hash, and bytes that do not belong in it."""

import codecs
import hashlib
from dataclasses import dataclass
from pathlib import Path

from seqbench_tasks.text.containers import BEGINNING, container_of
from seqbench_tasks.text.open_files import open_file, require_same, stamp_of

# Begins a document in the byte-level encoding; no valid UTF-8 contains it.
RESERVED_BYTE = 0xFE
_PIECE = 2**20


@dataclass(frozen=True)
class TextFacts:
    """What one pass over a text has found.

    Attributes:
        size: bytes.
        sha256: of all bytes, in hexadecimal digits.
        reserved_at: offset of the first byte 0xFE; None when there is none.
        invalid_at: offset of the first byte that is not UTF-8; None when all of it is.
        container: what it is and what to do, where it is a file of another kind than text.
    """

    size: int
    sha256: str
    reserved_at: int | None
    invalid_at: int | None
    container: str | None

    def fault(self) -> str | None:
        """Why no model can use the text, or None."""
        if self.size == 0:
            return "it is empty"
        if self.container is not None:
            return self.container
        if self.reserved_at is not None:
            return f"byte {self.reserved_at} is 0xFE, which marks the beginning of a document and never occurs in UTF-8"
        return None


class TextScanner:
    """Collects the facts of a text that is given in pieces."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._size = 0
        self._beginning = b""
        self._reserved_at: int | None = None
        self._invalid_at: int | None = None

    def add(self, piece: bytes) -> None:
        """Continue with the next bytes."""
        self._digest.update(piece)
        self._beginning += piece[: BEGINNING - len(self._beginning)]
        if self._reserved_at is None:
            found = piece.find(RESERVED_BYTE)
            self._reserved_at = None if found < 0 else self._size + found
        self._decode(piece, final=False)
        self._size += len(piece)

    def facts(self) -> TextFacts:
        """The facts of everything so far, as a whole text."""
        self._decode(b"", final=True)
        return TextFacts(
            self._size, self._digest.hexdigest(), self._reserved_at, self._invalid_at, container_of(self._beginning)
        )

    def _decode(self, piece: bytes, final: bool) -> None:
        if self._invalid_at is not None:
            return
        # An unfinished character of the piece before is still in the decoder, and offsets count from its beginning.
        pending = len(self._decoder.getstate()[0])
        try:
            self._decoder.decode(piece, final)
        except UnicodeDecodeError as error:
            self._invalid_at = self._size - pending + error.start


def scan_file(path: Path) -> TextFacts:
    """The facts of a file's bytes. Raises OSError when it cannot be read, RequestError when it changes meanwhile."""
    scanner = TextScanner()
    before = stamp_of(path)
    with open_file(path) as file:
        # A file that something writes to might never end.
        left = before[0] + 1
        while left > 0 and (piece := file.read(min(left, _PIECE))):
            scanner.add(piece)
            left -= len(piece)
    facts = scanner.facts()
    require_same(path, before, facts.size)
    return facts
