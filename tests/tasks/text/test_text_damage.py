"""Files of every form to their last byte: what is legal is read whole, and all else is named with its place."""

import bz2
import gzip
import io
import json
import lzma
import tarfile

import pyarrow
import pyarrow.feather
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packed_files import OTHER, TEXT, parquet_of, read, tar_of, zip_of

from seqbench.errors import RequestError
from seqbench_tasks.text import compressed, damage, formats, json_lines
from seqbench_tasks.text.config import CorpusConfig
from seqbench_tasks.text.openers import open_corpus

# Compressed files.

PACK = {".gz": gzip.compress, ".xz": lzma.compress, ".bz2": bz2.compress}
PADDING = {".gz": 1, ".xz": 4}


@settings(max_examples=60, deadline=None)
@given(
    suffix=st.sampled_from(sorted(PACK)),
    streams=st.lists(st.tuples(st.binary(max_size=300), st.integers(0, 40)), min_size=1, max_size=4),
    read_at_once=st.sampled_from([1, 7, 2**16]),
)
def test_streams_behind_each_other_with_legal_padding_are_read_whole(suffix, streams, read_at_once):
    unit = PADDING.get(suffix, 0)
    content = b"".join(PACK[suffix](text) + bytes(zeros * unit) for text, zeros in streams)
    source = io.BytesIO(content)
    short = type(
        "Short", (io.RawIOBase,), {"readable": lambda _: True, "read": lambda _, n=-1: source.read(read_at_once)}
    )
    assert compressed.unpacked(suffix, short()).read() == b"".join(text for text, _ in streams)


@pytest.mark.parametrize("suffix", sorted(PACK))
def test_what_stands_behind_a_stream_and_is_none_is_named_with_its_place(suffix):
    whole = PACK[suffix](TEXT)
    for remainder in (b"x", b"garbage" * 1000, PACK[suffix](OTHER)[:4], b"\1" + bytes(20)):
        documents, bad, _ = read(f"x.txt{suffix}", whole + remainder)
        assert not documents and (f"{len(whole):,}" in bad[""] or "ends early" in bad[""])
    for size in range(len(whole)):
        assert not read(f"x{suffix}", whole[:size])[0]


@pytest.mark.parametrize(("suffix", "zeros"), [(".xz", 6), (".bz2", 4)])
def test_padding_that_is_not_legal_is_named(suffix, zeros):
    assert not read(f"x{suffix}", PACK[suffix](TEXT) + bytes(zeros))[0]


def test_lines_before_the_damage_are_kept():
    line = json.dumps({"text": TEXT.decode()}).encode() + b"\n"
    documents, bad, _ = read("x.jsonl.gz", gzip.compress(line * 200 + b"x" * 2**17)[:-9])
    assert documents[", line 1"] == TEXT and list(bad) == [""]


@pytest.mark.parametrize("name", ["x.txt.gz.gz", "x.gz.xz.bz2", "x.tar.gz.gz"])
def test_files_that_are_compressed_twice_are_read(name):
    content = tar_of({"a": TEXT}) if ".tar" in name else TEXT
    for suffix in name.split(".")[1:]:
        content = PACK[f".{suffix}"](content) if f".{suffix}" in PACK else content
    assert list(read(name, content)[0].values()) == [TEXT]


@pytest.mark.parametrize("suffix", [".gz", ".xz", ".bz2", ".zst"])
def test_what_unpacks_to_more_than_any_text_is_named(suffix, monkeypatch):
    monkeypatch.setattr(damage, "LEAST_BYTES", 2**20)
    pack = PACK.get(suffix, lambda content: pyarrow.compress(content, codec="zstd", asbytes=True))
    assert list(read(f"x{suffix}", pack(b"a" * 2**20))[0].values()) == [b"a" * 2**20]
    documents, bad, _ = read(f"x{suffix}", pack(b"a" * 2**22))
    assert not documents and "no text packs so tightly" in bad[""]


def test_a_member_of_a_zip_archive_that_unpacks_to_more_than_any_text_is_named(monkeypatch):
    monkeypatch.setattr(damage, "LEAST_BYTES", 2**20)
    documents, bad, _ = read("x.zip", zip_of(("bomb", b"a" * 2**22), ("b", b"b")))
    assert list(documents) == ["/b"] and "no text packs so tightly" in bad["/bomb"]


def test_a_table_inside_another_file_is_not_read_into_memory_when_it_is_too_large(monkeypatch):
    monkeypatch.setattr(formats, "LARGEST_INNER_BYTES", 100)
    documents, bad, _ = read("x.tar", tar_of({"t.parquet": bytes(101), "b": b"b"}))
    assert list(documents) == ["/b"] and "too many to be read inside another file" in bad["/t.parquet"]


# JSON lines.


def test_a_line_that_is_too_long_is_named_and_those_behind_it_are_read(monkeypatch):
    monkeypatch.setattr(json_lines, "LONGEST_LINE_BYTES", 1000)
    monkeypatch.setattr(json_lines, "_PIECE", 64)
    lines = [json.dumps({"text": "x" * size}) for size in (1, 5000, 2)]
    documents, bad, _ = read("x.jsonl", "\n".join(lines).encode())
    assert documents == {", line 1": b"x", ", line 3": b"xx"} and "longer than 1,000 bytes" in bad[", line 2"]
    assert list(read("x.jsonl.gz", gzip.compress(b"[" * 10**6))[1]) == [", line 1"]
    exact = json.dumps({"text": "x" * 988}).encode()
    assert len(exact) == 1000 and not read("x.jsonl", exact)[1]


LINES = {
    b'\xef\xbb\xbf{"text": "mark"}': b"mark",
    b'{"text": "nul \\u0000", "other": NaN}\r': b"nul \0",
    b'{"text": "a", "meta": {"text": "b"}}': b"a",
    b'{"other": 1, "other": 2, "text": "a"}': b"a",
    b'{"text": "a", "text": "b"}': "it has the field 'text' more than once",
    b'{"text": "a\0b"}': "it is no JSON from column 12 on",
    b"\0\0\0\0": "it is no JSON from column 1 on",
    b'{"text": "one"}\r{"text": "two"}': "it is no JSON from column 17 on: Extra data",
    b"[" * 100_000: "it is nested too deeply",
    b'{"text": ' + b"1" * 5000 + b"}": "limit",
    b'{"text": NaN}': "its field 'text' is no text, but float",
    '{"text": "wide"}'.encode("utf-16"): "it is not UTF-8 from byte 0",
}


@pytest.mark.parametrize("line", LINES, ids=lambda line: repr(line[:20]))
def test_odd_lines_are_read_exactly_or_named(line):
    documents, bad, _ = read("x.jsonl", line)
    expected = LINES[line]
    if isinstance(expected, bytes):
        assert documents == {", line 1": expected} and not bad
    else:
        assert not documents and expected in bad[", line 1"]


# Tables.


@pytest.mark.parametrize(
    "kind",
    [
        pyarrow.string_view(),
        pyarrow.binary_view(),
        pyarrow.large_binary(),
        pyarrow.dictionary(pyarrow.int32(), pyarrow.large_string()),
    ],
    ids=str,
)
def test_every_kind_of_text_column_is_read(kind):
    array = pyarrow.array(["a", "é 漢", None, "a"])
    array = array.dictionary_encode().cast(kind) if pyarrow.types.is_dictionary(kind) else array.cast(kind)
    documents, bad, _ = read("x.parquet", parquet_of(pyarrow.table({"text": array})))
    assert list(documents.values()) == [b"a", "é 漢".encode(), b"a"] and bad == {", row 2": "it has no text"}


@pytest.mark.parametrize("names", [("meta", "meta.text"), ("meta.text", "meta")])
def test_a_column_with_a_dot_is_not_a_field_of_a_struct(names):
    columns = {"meta": pyarrow.array([{"text": "inside"}]), "meta.text": pyarrow.array(["outside"])}
    content = parquet_of(pyarrow.table({name: columns[name] for name in names}))
    assert read("x.parquet", content, "meta.text")[0] == {", row 0": b"outside"}


def test_two_columns_of_one_name_are_refused():
    table = pyarrow.Table.from_arrays([pyarrow.array(["a"]), pyarrow.array(["b"])], names=["text", "text"])
    documents, bad, _ = read("x.parquet", parquet_of(table))
    assert not documents and bad[""] == "it has 2 columns 'text', and nothing says which is meant"


def test_a_damaged_row_group_costs_itself_alone():
    table = pyarrow.table({"text": [f"row {number}" for number in range(6)]})
    options = {"compression": "none", "use_dictionary": False, "write_statistics": False}
    content = parquet_of(table, row_group_size=2, write_page_checksum=True, **options)
    damaged = content.replace(b"row 2", b"r0w 2", 1)
    documents, bad, _ = read("x.parquet", damaged)
    assert list(documents) == [", row 0", ", row 1", ", row 4", ", row 5"]
    assert "of its rows 2 to 3" in bad[", row group 1"]


# Files under the name of a text.


def arrow_file(kind):
    buffer = io.BytesIO()
    table = pyarrow.table({"text": ["a"]})
    with kind(buffer, table.schema) as writer:
        writer.write_table(table)
    return buffer.getvalue()


NO_TEXTS = {
    "gzip": (gzip.compress(TEXT), "a gzip file .*ending .gz"),
    "bzip2": (bz2.compress(TEXT), "a bzip2 file .*ending .bz2"),
    "xz": (lzma.compress(TEXT), "an xz file .*ending .xz"),
    "zstd": (pyarrow.compress(TEXT, codec="zstd", asbytes=True), "a Zstandard file .*ending .zst"),
    "zip": (zip_of(("a", b"a")), "a zip archive .*ending .zip"),
    "empty zip": (zip_of(), "a zip archive"),
    "tar": (tar_of({"a": b"a"}), "a tar archive .*ending .tar"),
    "gnu tar": (tar_of({"a": b"a"}, tarfile.GNU_FORMAT), "a tar archive"),
    "parquet": (parquet_of(pyarrow.table({"text": ["a"]})), "a Parquet file .*ending .parquet"),
    "arrow": (arrow_file(pyarrow.ipc.new_file), "an Arrow file .*make it a text"),
    "arrow stream": (arrow_file(pyarrow.ipc.new_stream), "an Arrow stream"),
    "lz4": (pyarrow.compress(TEXT, codec="lz4", asbytes=True), "an LZ4 file"),
}


@pytest.mark.parametrize("what", NO_TEXTS)
@pytest.mark.parametrize("name", ["x.txt", "x", "x.gz", "in.zip"])
def test_a_file_of_another_kind_under_the_name_of_a_text_is_refused(tmp_path, what, name):
    content, message = NO_TEXTS[what]
    packed = {"x.gz": gzip.compress(content), "in.zip": zip_of(("x.txt", content))}.get(name, content)
    (tmp_path / name).write_bytes(packed)
    with pytest.raises(RequestError, match=rf"(?s){name}.*: it is {message}"):
        open_corpus(CorpusConfig(data=str(tmp_path / name)))


@pytest.mark.parametrize(
    "text", [b"BZh91AY&SY is how bzip2 begins", b"PAR1", b"Rar!", b"PK\n", b"ORC" * 200, b"\xff" * 99]
)
def test_texts_that_only_begin_like_other_files_are_texts(tmp_path, text):
    (tmp_path / "x.txt").write_bytes(text)
    opened = open_corpus(CorpusConfig(data=str(tmp_path), validation_fraction=0.0, test_fraction=0.0))
    assert [document.read() for document in opened.documents("train")] == [text]


@settings(max_examples=300, deadline=None)
@given(
    changes=st.lists(st.tuples(st.integers(0, 511), st.integers(0, 255)), min_size=1, max_size=4),
    kind=st.sampled_from(b"\x0001234567LKNSVMxgX"),
    size=st.sampled_from(["00000000005", "00000001000", "77777777777", "-1", "\x80\0\0\0\x7f\0\0\0\0\0\0\0"]),
    inside=st.binary(max_size=600),
)
def test_headers_that_say_anything_give_texts_or_names_and_come_to_an_end(changes, kind, size, inside):
    header = bytearray(tar_of({"a.txt": b"12345"})[:512])
    header[156] = kind
    header[124:136] = size.encode("latin-1").ljust(12, b"\0")
    for place, byte in changes:
        header[place] = byte
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    content = bytes(header) + inside.ljust(1024, b"\0") + tar_of({"b.txt": b"b"})
    documents, bad, left_out = read("x.tar", content)
    assert bad or left_out or b"b" in documents.values()


@settings(max_examples=200, deadline=None)
@given(
    name=st.sampled_from(["x.tar", "x.zip", "x.parquet", "x.jsonl", "x.gz", "x.xz", "x.bz2", "x.zst", "x.tar.gz"]),
    content=st.binary(min_size=1, max_size=700),
)
def test_any_bytes_give_names_and_no_tracebacks(name, content):
    documents, bad, left_out = read(name, content)
    assert documents or bad or left_out
