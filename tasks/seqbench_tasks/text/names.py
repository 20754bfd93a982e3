"""Names of files and of members of archives, which may be any bytes."""

from pathlib import PurePath


def is_hidden(path: PurePath) -> bool:
    """Whether a file is hidden, or lies in a folder that is."""
    return any(part.startswith(".") and part not in (".", "..") for part in path.parts)


def printable(name: str) -> str:
    """A name that can stand in a line of text: control characters and bytes that are no UTF-8 are escaped."""
    if name.isprintable():
        return name
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in name)
