"""Files in an archive."""

from dataclasses import dataclass
from typing import IO


@dataclass(frozen=True)
class Member:
    """A file in an archive: its path there, and its bytes, to be read before the next member."""

    path: str
    content: IO[bytes]
