"""Files of every form that text is read from, and a reader of one of them."""

import io
import tarfile
import zipfile
from pathlib import Path

import pyarrow
import pyarrow.parquet

from seqbench_tasks.text.packed import PackedRecords
from seqbench_tasks.text.records import BadRecord, DamagedText, LeftOut

TEXT = b"a text of some length, and of some more " * 20
OTHER = b"another text\n" * 30


def read(name, content, field=""):
    """Documents by name, and what is bad and what is left out, each by name."""
    stream = PackedRecords(Path(name), io.BytesIO(content), (0, 0), field)
    documents, bad, left_out = {}, {}, {}
    while (record := stream.next_record()) is not None:
        if isinstance(record, BadRecord):
            bad[record.name] = record.fault
        elif isinstance(record, LeftOut):
            left_out[record.name] = record.why
        else:
            try:
                documents[record.name] = b"".join(record.pieces)
            except DamagedText as error:
                bad[record.name] = str(error)
    return documents, bad, left_out


def tar_of(files, kind=tarfile.PAX_FORMAT, **changes):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=kind) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
            else:
                member.type, member.linkname = content
                archive.addfile(member)
    return buffer.getvalue()


def zip_of(*members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def parquet_of(table, **options):
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(table, buffer, **options)
    return buffer.getvalue()
