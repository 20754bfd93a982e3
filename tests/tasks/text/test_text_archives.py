"""Archives to their last byte: what is legal is read whole, and all else is named with its place."""

import io
import stat
import tarfile
import zipfile
from pathlib import Path

import pyarrow
import pyarrow.feather
import pyarrow.parquet
import pytest
from packed_files import OTHER, TEXT, parquet_of, read, tar_of, zip_of

from seqbench_tasks.text import tar_members

# Archives.
from seqbench_tasks.text.packed import PackedRecords


def test_a_damaged_header_names_the_rest_of_an_archive_and_its_place():
    files = {f"{number}.txt": b"document %d" % number for number in range(40)}
    content = bytearray(tar_of(files))
    content[34 * 1024 + 3] ^= 1
    documents, bad, _ = read("x.tar", bytes(content))
    assert list(documents) == [f"/{number}.txt" for number in range(34)]
    assert list(bad) == [""] and "from byte 34,816 on, where a member should begin: bad checksum" in bad[""]


@pytest.mark.parametrize(("size", "message"), [(1024, "ends at byte 1,024 without"), (1324, "from byte 1,024 on")])
def test_an_archive_that_is_cut_at_a_border_or_inside_a_header_is_named(size, message):
    documents, bad, _ = read("x.tar", tar_of({"a": b"a" * 512, "b": b"b"})[:size])
    assert documents == {"/a": b"a" * 512} and message in bad[""]


@pytest.mark.parametrize("ending", [10240, 1024 + 1024])
def test_archives_behind_each_other_are_read_whole(ending):
    first, second = tar_of({"a": TEXT[:500]}), tar_of({"b": b"b"})
    documents, bad, _ = read("x.tar", first[:ending] + second)
    assert documents == {"/a": TEXT[:500], "/b": b"b"} and not bad


@pytest.mark.parametrize("place", [0, 1024, 2048])
def test_members_that_are_zeros_now_are_named_and_those_behind_them_are_read(place):
    content = bytearray(tar_of({"a": b"a", "b": b"b", "c": b"c", "d": b"d"}))
    content[place : place + 512] = bytes(512)
    documents, bad, _ = read("x.tar", bytes(content))
    assert bad and "/d" not in bad and len(documents) < 4
    content[place : place + 1536] = bytes(1536)
    assert read("x.tar", bytes(content))[1]


@pytest.mark.parametrize(("blocks", "legal"), [(1, False), (2, False), (8, False), (20, True), (32, False)])
def test_zeros_before_an_archive_are_members_that_are_lost_unless_they_are_an_empty_archive(blocks, legal):
    documents, bad, _ = read("x.tar", bytes(512 * blocks) + tar_of({"a": b"a"}))
    assert documents == {"/a": b"a"} and list(bad) == ([] if legal else [", byte 0"])


@pytest.mark.parametrize(("blocks", "legal"), [(18, True), (2, True), (62, True), (63, False), (2**14, False)])
def test_zeros_behind_an_archive_are_its_end_or_members_that_are_lost(blocks, legal):
    # One member is two blocks: 20, 4 and 64 blocks are sizes of records.
    documents, bad, _ = read("x.tar", tar_of({"a": b"a"})[:1024] + bytes(blocks * 512))
    assert documents == {"/a": b"a"} and list(bad) == ([] if legal else [", byte 1024"])


@pytest.mark.parametrize("kind", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_long_and_odd_names_in_archives(kind):
    names = ["deep/" * 60 + "x.txt", "../up.txt", "/root.txt", "a\nb.txt", "./c.txt", "é.txt"]
    documents, bad, left_out = read("x.tar", tar_of({name: name.encode() for name in names}, kind))
    assert list(documents.values()) == [name.encode() for name in names] and not bad and not left_out
    assert list(documents)[1:5] == ["/../up.txt", "//root.txt", "/a\\nb.txt", "/c.txt"]


def test_a_sparse_file_is_read_with_its_holes_unless_they_are_all_it_is(monkeypatch):
    monkeypatch.setattr(tar_members, "LEAST_BYTES", 5000)
    header = tarfile.TarInfo("s")
    header.size = 3
    header.pax_headers = {
        "GNU.sparse.major": "0",
        "GNU.sparse.minor": "1",
        "GNU.sparse.name": "s",
        "GNU.sparse.size": "4003",
        "GNU.sparse.map": "4000,3",
    }
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(header, io.BytesIO(b"end"))
        header.pax_headers = {**header.pax_headers, "GNU.sparse.size": "9003", "GNU.sparse.map": "9000,3"}
        archive.addfile(header, io.BytesIO(b"end"))
    documents, bad, _ = read("x.tar", buffer.getvalue())
    assert documents == {"/s": bytes(4000) + b"end"} and "9,000 bytes of holes" in bad["/s"]


def test_links_devices_and_hidden_files_in_archives_are_left_out_and_said():
    files = {"a": b"a", "l": (tarfile.SYMTYPE, "a"), "h": (tarfile.LNKTYPE, "a"), "d": (tarfile.CHRTYPE, "")}
    documents, bad, left_out = read("x.tar", tar_of({**files, ".git/x": b"x", "dir": (tarfile.DIRTYPE, "")}))
    assert documents == {"/a": b"a"} and not bad
    assert left_out == {"/l": "a link to a", "/h": "a link to a", "/d": "a device or a FIFO", "/.git/x": "hidden"}


def test_a_damaged_member_of_a_zip_archive_costs_itself_alone():
    with pytest.warns(UserWarning, match="Duplicate name"):
        content = bytearray(zip_of(("a", b"a" * 100), ("b", TEXT), ("b", OTHER), ("c", b"c")))
    stream = PackedRecords(Path("x.zip"), io.BytesIO(content), (0, 0), "")
    names = []
    while (record := stream.next_record()) is not None:
        names.append((record.name, b"".join(record.pieces)))
    assert names == [("/a", b"a" * 100), ("/b", TEXT), ("/b", OTHER), ("/c", b"c")]
    content[33] ^= 1
    documents, bad, _ = read("x.zip", bytes(content))
    assert list(documents) == ["/b", "/c"] and list(bad) == ["/a"]
    content = bytearray(zip_of(("a", b"a" * 100), ("b", TEXT)))
    # The name in the member's own header.
    content[30] ^= 1
    assert list(read("x.zip", bytes(content))[1]) == ["/a"]


def test_what_a_zip_archive_does_not_list_is_named():
    whole = zip_of(("a", b"a"))
    other = zip_of(("b", b"b"))
    before = read("x.zip", other + whole)
    assert before[0] == {"/a": b"a"} and f"its first {len(other)} bytes belong to no member" in before[1][""]
    behind = read("x.zip", whole + b"garbage")
    assert behind[0] == {"/a": b"a"} and "7 bytes too many" in behind[1][f", byte {len(whole)}"]
    shorter = bytearray(whole)
    shorter[-22 + 10] = 2
    assert "says that it has 2 members, and lists 1" in read("x.zip", bytes(shorter))[1][""]
    for size in range(len(whole)):
        assert not read("x.zip", whole[:size])[0] and read("x.zip", whole[:size])[1]


def test_links_in_a_zip_archive_are_left_out_and_said():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        link = zipfile.ZipInfo("l")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "a")
        archive.writestr("a", "a")
        archive.writestr("folder/", "")
        archive.writestr(".hidden", "h")
    assert read("x.zip", buffer.getvalue()) == ({"/a": b"a"}, {}, {"/l": "a link", "/.hidden": "hidden"})


def test_archives_that_hold_themselves_come_to_an_end():
    content = TEXT
    for _ in range(12):
        content = zip_of(("x.zip", content))
    documents, bad, _ = read("x.zip", content)
    assert not documents and "in more than 8 files that lie in each other" in next(iter(bad.values()))


@pytest.mark.parametrize("name", ["x.tar", "x.zip", "x.jsonl", "x.parquet", "in.tar"])
def test_a_file_that_holds_nothing_is_named(name):
    nothing = {
        "x.tar": tar_of({}),
        "x.zip": zip_of(),
        "x.jsonl": b"\n \n",
        "x.parquet": parquet_of(pyarrow.table({"text": pyarrow.array([], type=pyarrow.string())})),
        "in.tar": tar_of({"x.jsonl": b""}),
    }[name]
    documents, bad, _ = read(name, nothing)
    assert not documents and list(bad.values()) == ["it holds no text"]
    assert read(name, b"")[1]
