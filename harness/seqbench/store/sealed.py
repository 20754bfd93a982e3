"""JSON that ends with a checksum of itself: lines of files that grow, and documents that no list speaks of yet."""

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from seqbench.store.files import json_line, json_text
from seqbench.store.reader import parse

_SEAL = re.compile(rb', "sha256": "(?P<digest>[0-9a-f]{64})"\}')
_LENGTH = len(b', "sha256": ""}') + 64
_HEXADECIMAL = frozenset(b"0123456789abcdef")


def sealed_line(row: Mapping[str, Any]) -> str:
    """The row as a line: its last field, "sha256", is taken over the bytes of the line without that field."""
    text = json_line(row).removesuffix("\n")
    digest = hashlib.sha256(text.encode()).hexdigest()
    return f'{text[:-1]}, "sha256": "{digest}"}}\n'


def unsealed(line: bytes) -> Any:
    """The row of a line without its line feed and its checksum. Raises ValueError unless it is as it was written."""
    seal = _SEAL.fullmatch(line[-_LENGTH:])
    text = line[:-_LENGTH] + b"}"
    if seal is None or hashlib.sha256(text).hexdigest().encode() != seal["digest"]:
        raise ValueError("it differs from its checksum")
    return parse(text)


def has_seal(line: bytes) -> bool:
    """Whether a line was written with a checksum, whatever has happened to some of its bytes since."""
    return sum(character in _HEXADECIMAL for character in line[-_LENGTH:]) > 60


def sealed_document(content: Mapping[str, Any]) -> dict[str, Any]:
    """The content with a checksum over all of it as its last field, "sha256"."""
    return {**content, "sha256": _digest(content)}


def is_as_sealed(content: Mapping[str, Any]) -> bool:
    """Whether a document has a checksum, and it is right."""
    return content.get("sha256") == _digest(without_seal(content))


def without_seal(content: Mapping[str, Any]) -> dict[str, Any]:
    """A document without its checksum."""
    return {name: value for name, value in content.items() if name != "sha256"}


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json_text(content).encode()).hexdigest()
