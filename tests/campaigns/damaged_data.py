"""Damages small files of every form that texts come in, and counts what the readers make of them.

    python tests/campaigns/damaged_data.py [--every N]

Each damaged file is read as a run reads it. Its documents are all there, or something is named, or the harm is one that
the form cannot tell (a letter of a plain text changed, a file of lines cut between two of them). Anything else is
unnoticed. Exits with 1 when something was unnoticed, raised, or took longer than `SECONDS`.
"""

import argparse
import bz2
import gzip
import io
import json
import lzma
import signal
import sys
import tarfile
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow
import pyarrow.parquet

from seqbench_tasks.text.packed import PackedRecords
from seqbench_tasks.text.records import BadRecord, DamagedText, LeftOut
from seqbench_tasks.text.scan import TextScanner

SECONDS = 20
TEXTS = [f"document {number}: é 漢 {'x' * number}\n".encode() for number in range(5)]
NAMES = [f"folder/{'long-' * 25 if number == 2 else ''}{number}.txt" for number in range(5)]

WHOLE, NAMED, UNTELLABLE, UNNOTICED = "read whole", "named", "not to be told", "unnoticed"
TRACEBACK, HANG = "traceback", "hang"
OUTCOMES = (WHOLE, NAMED, UNTELLABLE, UNNOTICED, TRACEBACK, HANG)


def tar(kind=tarfile.PAX_FORMAT):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=kind) as archive:
        for name, text in zip(NAMES, TEXTS, strict=True):
            member = tarfile.TarInfo(name)
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text))
    return buffer.getvalue()


def zipped(method):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, text in zip(NAMES, TEXTS, strict=True):
            archive.writestr(zipfile.ZipInfo(name), text, method)
    return buffer.getvalue()


def lines():
    return b"".join(json.dumps({"id": 1, "text": text.decode()}).encode() + b"\n" for text in TEXTS)


def parquet(**options):
    buffer = io.BytesIO()
    table = pyarrow.table({"text": [text.decode() for text in TEXTS]})
    pyarrow.parquet.write_table(table, buffer, row_group_size=2, **options)
    return buffer.getvalue()


def zst(content):
    return pyarrow.compress(content, codec="zstd", asbytes=True)


JOINED = b"".join(TEXTS)
# Name -> file. Of those in UNCHECKED the form has no checksum over the texts; those in ENDLESS may end anywhere.
FORMS = {
    "x.txt": JOINED,
    "x.jsonl": lines(),
    "x.tar": tar(),
    "gnu.tar": tar(tarfile.GNU_FORMAT),
    "x.zip": zipped(zipfile.ZIP_DEFLATED),
    "stored.zip": zipped(zipfile.ZIP_STORED),
    "x.txt.gz": gzip.compress(JOINED, mtime=0),
    "x.txt.bz2": bz2.compress(JOINED),
    "x.txt.xz": lzma.compress(JOINED),
    "x.txt.zst": zst(JOINED),
    "x.tar.gz": gzip.compress(tar(), mtime=0),
    "x.tar.xz": lzma.compress(tar()),
    "x.jsonl.bz2": bz2.compress(lines()),
    "x.txt.gz.gz": gzip.compress(gzip.compress(JOINED, mtime=0), mtime=0),
    "x.parquet": parquet(),
    "checked.parquet": parquet(write_page_checksum=True),
    "in.parquet.gz": gzip.compress(parquet(), mtime=0),
}
UNCHECKED = {"x.txt", "x.jsonl", "x.tar", "gnu.tar", "x.txt.zst", "x.parquet"}
ENDLESS = {"x.txt", "x.jsonl"}


def flips(content):
    for place in range(len(content)):
        for bit in range(8):
            yield content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :]


def bytes_replaced(content):
    for place in range(len(content)):
        for byte in b"\0 \n./\xff":
            if content[place] != byte:
                yield content[:place] + bytes([byte]) + content[place + 1 :]


def cuts(content):
    for size in range(len(content)):
        yield content[:size]


def holes(content):
    """A sector, or a page, or a few bytes of zeros."""
    for size, step in ((16, 1), (512, 64), (4096, 512)):
        for place in range(0, len(content), step):
            hole = content[:place] + bytes(min(size, len(content) - place)) + content[place + size :]
            if hole != content:
                yield hole


def left_out(content):
    for size, step in ((1, 1), (16, 4), (512, 512)):
        for place in range(0, len(content), step):
            yield content[:place] + content[place + size :]


def appended(content):
    for garbage in (b"x", b"garbage " * 100, b"\x1f\x8b", b"PK\x05\x06", content[: len(content) // 2], b"\xff" * 512):
        yield content + garbage


def prepended(content):
    for garbage in (b"x", b"garbage " * 100, b"\x1f\x8b", content[: len(content) // 2], bytes(511)):
        yield garbage + content


DAMAGES = {
    "bit flipped": flips,
    "byte replaced": bytes_replaced,
    "cut": cuts,
    "hole of zeros": holes,
    "bytes left out": left_out,
    "bytes behind": appended,
    "bytes before": prepended,
}


def read(name: str, content: bytes) -> tuple[list[bytes], list[str]]:
    """The documents of a file, and what is said of the rest, as the store of unpacked texts takes them."""
    stream = PackedRecords(Path(name), io.BytesIO(content), (0, 0), "")
    documents, said = [], []
    while (record := stream.next_record()) is not None:
        if isinstance(record, BadRecord | LeftOut):
            said.append(f"{record.name}: {record.fault if isinstance(record, BadRecord) else record.why}")
            continue
        try:
            scanner, document = TextScanner(), b"".join(record.pieces)
            scanner.add(document)
            fault = scanner.facts().fault()
        except DamagedText as error:
            fault = str(error)
        if fault is None:
            documents.append(document)
        else:
            said.append(f"{record.name}: {fault}")
    return documents, said


def outcome(name: str, damage: str, content: bytes, expected: list[bytes]) -> str:
    """What becomes of a damaged file."""
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        documents, said = read(name, content)
    except TimeoutError:
        return HANG
    except Exception:
        return TRACEBACK
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    if said:
        return NAMED
    if documents == expected:
        return WHOLE
    return UNTELLABLE if _cannot_be_told(name, damage, documents, expected) else UNNOTICED


def _cannot_be_told(name: str, damage: str, documents: list[bytes], expected: list[bytes]) -> bool:
    if name == "x.txt":
        return True
    if name in ENDLESS and damage in ("cut", "bytes left out") and all(text in expected for text in documents[:-1]):
        return True
    if name.endswith(".tar") and damage == "hole of zeros":
        # The last members, when the zeros that end an archive stand behind them.
        return [len(text) for text in documents] == [len(text) for text in expected[: len(documents)]]
    if name.endswith(".tar") and damage == "bytes before":
        # The beginning of an archive up to a border, and another archive.
        return documents[-len(expected) :] == expected
    if name not in UNCHECKED or len(documents) != len(expected):
        return False
    # A change in the texts themselves: no text is lost, and in a tar none is longer or shorter.
    return not name.endswith(".tar") or list(map(len, documents)) == list(map(len, expected))


def trials(every: int) -> Iterator[tuple[str, str, bytes]]:
    """Form, kind of damage and damaged file: each `every`-th of all."""
    number = 0
    for name, content in FORMS.items():
        for damage, damaged in DAMAGES.items():
            for trial in damaged(content):
                if number % every == 0:
                    yield name, damage, trial
                number += 1


def campaign(every: int) -> dict[tuple[str, str], Counter[str]]:
    """Form and kind of damage -> outcome -> how often."""

    def too_long(signal_number, frame):
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, too_long)
    expected = {name: read(name, content)[0] for name, content in FORMS.items()}
    counts: dict[tuple[str, str], Counter[str]] = {}
    try:
        for name, damage, content in trials(every):
            found = outcome(name, damage, content, expected[name])
            counts.setdefault((name, damage), Counter())[found] += 1
    finally:
        signal.signal(signal.SIGALRM, before)
    return counts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--every", type=int, default=1, help="only each N-th trial")
    counts = campaign(parser.parse_args().every)
    print(f"{'form':<16} {'damage':<15} " + " ".join(f"{outcome:>14}" for outcome in OUTCOMES))
    for (name, damage), found in counts.items():
        print(f"{name:<16} {damage:<15} " + " ".join(f"{found[outcome]:>14,}" for outcome in OUTCOMES))
    total = sum(counts.values(), Counter())
    print(f"{'all':<16} {total.total():<15,} " + " ".join(f"{total[outcome]:>14,}" for outcome in OUTCOMES))
    return int(any(total[outcome] for outcome in (UNNOTICED, TRACEBACK, HANG)))


if __name__ == "__main__":
    sys.exit(main())
