"""What can happen to a stored file, and what `bench` says of it, in this process: hundreds of cases take minutes."""

import contextlib
import copy
import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from click.testing import CliRunner
from stored_run import cover

from seqbench.cli.app import bench
from seqbench.store.checksums import CHECKSUMS
from seqbench.store.sealed import sealed_document, sealed_line

TOY = ("--model", "toy_model:Neighbour", "--task", "toy_task:Recall")
CLOCKS = ("seconds", "wall_seconds", "finished")
# The size of a folder is what it is.
NOT_COMPARED = (*CLOCKS, "bytes")
# A command on the toy takes far less than a second.
HANGS_AFTER_SECONDS = 120

Apply = Callable[[Path], None]


@dataclass(frozen=True)
class Damage:
    """One thing that happens to one file. `apply` is given the file; `consistent` ones keep its checksums right."""

    what: str
    apply: Apply
    consistent: bool = False


@dataclass(frozen=True)
class Said:
    """What a command answered. `died` names an error that nobody foresaw, or says that it hangs."""

    code: int
    out: str
    err: str
    died: str = ""


def command(*arguments: str) -> Said:
    """`bench` with these arguments, in this process."""

    def too_long(*_: object) -> None:
        raise TimeoutError("hang")

    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(HANGS_AFTER_SECONDS)
    try:
        result = CliRunner().invoke(bench, list(map(str, arguments)))
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    died = ""
    if "TimeoutError: hang" in result.stderr:
        died = "hang"
    elif "--traceback shows where" in result.stderr or not isinstance(result.exception, SystemExit | None):
        died = f"traceback: {result.stderr[-300:]} {result.exception!r}"
    return Said(result.exit_code, result.stdout, result.stderr, died)


def flips(size: int, count: int) -> Iterator[Damage]:
    """`count` single bits, evenly over a file of `size` bytes; all of them when there are no more."""
    bits = 8 * size
    for number in range(min(count, bits)):
        # Not a multiple of eight bits apart, so that every place in a byte is met.
        bit = number * bits // min(count, bits) + (number % 8 if count < bits // 8 else 0)
        yield Damage(f"bit {min(bit, bits - 1)}", _flip(min(bit, bits - 1)))


def structures(is_json: bool) -> Iterator[Damage]:
    """What may lie under a file's name instead of the file."""
    yield Damage("missing", Path.unlink)
    yield Damage("folder", _instead(Path.mkdir))
    yield Damage("pipe", _instead(os.mkfifo))
    yield Damage("dangling link", _instead(lambda path: path.symlink_to("nowhere")))
    yield Damage("link loop", _instead(lambda path: path.symlink_to(path.name)))
    yield Damage("link to /dev/zero", _instead(lambda path: path.symlink_to("/dev/zero")))
    for what, content in _CONTENTS.items():
        yield Damage(what, _instead(lambda path, content=content: path.write_bytes(content)))
    yield Damage("half", lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]))
    yield Damage("line ends of Windows", lambda path: path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n")))
    yield Damage("twice", lambda path: path.write_bytes(path.read_bytes() * 2))
    yield Damage("last line gone", lambda path: path.write_bytes(b"".join(path.read_bytes().splitlines(True)[:-1])))
    if is_json:
        yield Damage(
            "name twice", lambda path: path.write_bytes(path.read_bytes().replace(b"{", b'{"a": 1, "a": 2, ', 1))
        )


def misfits(path: Path) -> Iterator[Damage]:
    """Every field of a JSON document, or of each kind of line, gone or of another type, with its checksums right."""
    lines = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
    seen = set()
    for number, line in enumerate(lines):
        document = json.loads(line)
        if path.suffix == ".jsonl" and document.get("kind") in seen:
            continue
        document.pop("sha256", None)
        seen.add(document.get("kind"))
        for place in _places(document, 3):
            for what, value in (("gone", _GONE), *_OTHERS.items()):
                yield Damage(f"{'.'.join(map(str, place))} {what}", _changed(number, place, value), consistent=True)


def copied(original: Path, to: Path) -> Path:
    """A fresh copy of a store."""
    shutil.rmtree(to, ignore_errors=True)
    return Path(shutil.copytree(original, to, symlinks=True))


def figures(text: str) -> Any:
    """What a command printed as JSON, clocks and sizes apart."""
    with contextlib.suppress(ValueError):
        content = json.loads(text)
        return _compared(content)
    return text


def surroundings() -> Iterator[Damage]:
    """What may happen beside the files: to folders, to names that come and go. `apply` is given the run's folder."""
    for name in ("checkpoints", "model"):
        yield Damage(f"{name} a file", _moved(name, lambda path: path.write_bytes(b"x")))
        yield Damage(f"{name} a dangling link", _moved(name, lambda path: path.symlink_to("nowhere")))
        yield Damage(f"{name} a link loop", _moved(name, lambda path: path.symlink_to(path.name)))
        yield Damage(f"{name} gone", _moved(name, lambda path: None))
        yield Damage(f"{name} empty", _moved(name, Path.mkdir))
    for what, make in _STRANGERS.items():
        for name in (".lock", "evaluation.jsonl", "traceback.txt", "plot.png", "checkpoints/step-00000099"):
            yield Damage(f"{name} {what}", _put(name, make))
    for name in ("model-00002.safetensors", "model.safetensors.index.json", "modeling_toy.py", "adapter_config.json"):
        yield Damage(f"model/{name} added", _put(f"model/{name}", lambda path: path.write_bytes(b"{}")))
    yield Damage("checksums upper case", _checksums(str.upper))
    yield Damage("checksums twice", _checksums(lambda text: text + text.splitlines()[0] + "\n"))
    yield Damage("checksums of elsewhere", _checksums(lambda text: text + "0" * 64 + "  ../x\n"))
    yield Damage("first checksum gone", _checksums(lambda text: text.partition("\n")[2]))
    for number in range(8):
        yield Damage(f"checksum {number} gone", _checksums(lambda text, number=number: _without_line(text, number)))


_STRANGERS: dict[str, Callable[[Path], object]] = {
    "a folder": Path.mkdir,
    "a pipe": os.mkfifo,
    "a file": lambda path: path.write_bytes(b"x"),
    "a dangling link": lambda path: path.symlink_to("nowhere"),
    "a link loop": lambda path: path.symlink_to(path.name),
    "nested": lambda path: path.write_bytes(b"[" * 100_000 + b"\n"),
}


def _moved(name: str, make: Callable[[Path], object]) -> Apply:
    def apply(run: Path) -> None:
        if (run / name).exists():
            shutil.rmtree(run / name)
            make(run / name)

    return apply


def _put(name: str, make: Callable[[Path], object]) -> Apply:
    def apply(run: Path) -> None:
        path = run / name
        if path.parent.is_dir():
            path.unlink(missing_ok=True)
            make(path)

    return apply


def _checksums(change: Callable[[str], str]) -> Apply:
    def apply(run: Path) -> None:
        path = run / CHECKSUMS
        if path.exists():
            path.write_text(change(path.read_text()))

    return apply


def _without_line(text: str, number: int) -> str:
    return "".join(line for place, line in enumerate(text.splitlines(True)) if place != number)


def _compared(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _compared(value) for key, value in content.items() if key not in NOT_COMPARED}
    if isinstance(content, list):
        return [_compared(value) for value in content]
    return content


_GONE = object()
_TWICE = b'{"a": 1, "a": 2, '
_OTHERS = {"null": None, "list": [], "text": "half", "minus one": -1, "deep": {"a": {"b": {}}}, "huge": 10**400}
_CONTENTS = {
    "empty": b"",
    "zeros": b"\0" * 4096,
    "null": b"null\n",
    "list": b"[]\n",
    "object": b"{}\n",
    "number": b"7\n",
    "nested": b"[" * 100_000 + b"]" * 100_000 + b"\n",
    "nested objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"\n",
    "nested a little": b'{"a":' * 400 + b"1" + b"}" * 400 + b"\n",
    "not a number": b'{"step": NaN}\n',
    "many digits": b'{"step": ' + b"9" * 10_000 + b"}\n",
    "no UTF-8": b'{"kind": "\xff\xfe"}\n',
    "half a character": b'{"kind": "\\ud800", "step": 1}\n',
    "text": b"not JSON\n",
}


def _flip(bit: int) -> Apply:
    def apply(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[bit // 8] ^= 1 << bit % 8
        path.write_bytes(content)

    return apply


def _instead(make: Callable[[Path], object]) -> Apply:
    def apply(path: Path) -> None:
        path.unlink()
        make(path)

    return apply


def _places(document: Any, depth: int) -> Iterator[tuple[Any, ...]]:
    """Of all fields to a depth; of lists the first entry."""
    entries = document.items() if isinstance(document, dict) else enumerate(document[:1])
    for key, value in entries:
        yield (key,)
        if depth > 1 and isinstance(value, dict | list):
            yield from ((key, *rest) for rest in _places(value, depth - 1))


def _changed(number: int, place: tuple[Any, ...], value: Any) -> Apply:
    def apply(path: Path) -> None:
        is_log = path.suffix == ".jsonl"
        lines = path.read_text().splitlines() if is_log else [path.read_text()]
        document = copy.deepcopy(json.loads(lines[number]))
        seal = document.pop("sha256", None)
        holder = document
        for key in place[:-1]:
            holder = holder[key]
        if value is _GONE:
            del holder[place[-1]]
        else:
            holder[place[-1]] = value
        if seal and document:
            lines[number] = (
                sealed_line(document).removesuffix("\n") if is_log else json.dumps(sealed_document(document))
            )
        else:
            lines[number] = json.dumps(document)
        path.write_text("\n".join(lines) + "\n")
        if (path.parent / CHECKSUMS).exists():
            cover(path)

    return apply
