"""Corpora of local files: what is read, byte for byte; how it is divided; what is said of text that cannot be used."""

import bz2
import gzip
import io
import json
import lzma
import shutil
import tarfile
import zipfile

import pyarrow
import pyarrow.parquet
import pytest

from seqbench.errors import RequestError
from seqbench_tasks.text.config import CorpusConfig
from seqbench_tasks.text.openers import open_corpus

# Line ends of every kind, characters of one to four bytes, a byte order mark, and no line end behind the last line.
EXACT = "\ufeffone\r\ntwo\rthree\n\n é 漢 𝄞 \x00 end".encode()
OTHER = b"another text\r\n" * 30


def corpus(path, needs_text=False, **changes):
    return open_corpus(CorpusConfig(data=str(path), **changes), needs_text)


def contents(opened, split="train"):
    return [document.read() for document in opened.documents(split)]


def everything(path, **changes):
    """The documents of `path` when nothing is held out: name -> content."""
    opened = corpus(path, validation_fraction=0.0, test_fraction=0.0, **changes)
    return {document.name: document.read() for document in opened.documents("train")}


def tar_of(files, mode="w"):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def zip_of(files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def json_lines(*texts, field="text"):
    return "".join(json.dumps({"id": 1, field: text.decode()}) + "\n" for text in texts).encode()


def parquet_of(texts, field="text", kind=None):
    table = pyarrow.table({"id": list(range(len(texts))), field: pyarrow.array(texts, type=kind)})
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(table, buffer, row_group_size=2)
    return buffer.getvalue()


def zst(content):
    return pyarrow.compress(content, codec="zstd", asbytes=True)


FILES = {"a/one.txt": EXACT, "two": OTHER}
IN_ARCHIVE = {"/a/one.txt": EXACT, "/two": OTHER}
FORMS = {
    "x.txt": (EXACT, {"": EXACT}),
    "x": (EXACT, {"": EXACT}),
    "x.txt.gz": (gzip.compress(EXACT), {"": EXACT}),
    "x.xz": (lzma.compress(EXACT), {"": EXACT}),
    "x.txt.bz2": (bz2.compress(EXACT), {"": EXACT}),
    "x.txt.zst": (zst(EXACT), {"": EXACT}),
    # Compressed files may be put together from several.
    "y.gz": (gzip.compress(EXACT) + gzip.compress(OTHER), {"": EXACT + OTHER}),
    "y.zst": (zst(EXACT) + zst(OTHER), {"": EXACT + OTHER}),
    "x.tar": (tar_of(FILES), IN_ARCHIVE),
    "x.tar.xz": (tar_of(FILES, "w:xz"), IN_ARCHIVE),
    "x.tgz": (tar_of(FILES, "w:gz"), IN_ARCHIVE),
    "x.tar.zst": (zst(tar_of(FILES)), IN_ARCHIVE),
    "x.zip": (zip_of(FILES), IN_ARCHIVE),
    "x.jsonl": (json_lines(EXACT, OTHER), {", line 1": EXACT, ", line 2": OTHER}),
    "x.json.gz": (gzip.compress(json_lines(EXACT, OTHER)), {", line 1": EXACT, ", line 2": OTHER}),
    "x.jsonl.zst": (zst(json_lines(EXACT)), {", line 1": EXACT}),
    "x.parquet": (parquet_of([EXACT.decode(), "b", "c"]), {", row 0": EXACT, ", row 1": b"b", ", row 2": b"c"}),
    "large.parquet": (parquet_of([EXACT.decode()], kind=pyarrow.large_string()), {", row 0": EXACT}),
    "binary.parquet": (parquet_of([EXACT, b"\xff"]), {", row 0": EXACT, ", row 1": b"\xff"}),
    "in.tar": (
        tar_of(
            {"l.jsonl": json_lines(EXACT), "t.parquet": parquet_of(["t"]), "z.gz": gzip.compress(OTHER), ".h": b"h"}
        ),
        {"/l.jsonl, line 1": EXACT, "/t.parquet, row 0": b"t", "/z.gz": OTHER},
    ),
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_of_file_gives_its_texts_byte_for_byte(tmp_path, name):
    packed, expected = FORMS[name]
    (tmp_path / name).write_bytes(packed)
    assert everything(tmp_path / name) == {f"{name}{inside}": content for inside, content in expected.items()}


def test_a_folder_may_hold_files_of_every_form(tmp_path):
    for name, (packed, _) in FORMS.items():
        (tmp_path / "deep").mkdir(exist_ok=True)
        (tmp_path / "deep" / name).write_bytes(packed)
    (tmp_path / ".hidden").write_bytes(b"hidden")
    expected = {
        f"deep/{name}{inside}": content for name, (_, texts) in FORMS.items() for inside, content in texts.items()
    }
    assert everything(tmp_path) == expected


def test_parts_of_documents_are_read_without_the_rest(tmp_path):
    (tmp_path / "x.gz").write_bytes(gzip.compress(EXACT))
    (document,) = corpus(tmp_path, validation_fraction=0.0, test_fraction=0.0).documents("train")
    assert (document.size, document.read(3, 9), document.read(5)) == (len(EXACT), EXACT[3:9], EXACT[5:])
    assert document.read(len(EXACT)) == b"" and document.read(4, 10**9) == EXACT[4:]


def test_another_field_is_read_where_it_is_named(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(json_lines(EXACT, field="page"))
    (tmp_path / "b.parquet").write_bytes(parquet_of(["b"], field="page"))
    assert list(everything(tmp_path, text_field="page").values()) == [EXACT, b"b"]


def test_what_is_named_train_validation_and_test_is_what_they_are(tmp_path):
    (tmp_path / "train.jsonl.gz").write_bytes(gzip.compress(json_lines(b"t1", b"t2")))
    (tmp_path / "valid").mkdir()
    (tmp_path / "valid" / "train.txt").write_bytes(b"v1")
    (tmp_path / "test-00000-of-00001.parquet").write_bytes(parquet_of(["e1"]))
    (tmp_path / "README.md").write_bytes(b"about")
    opened = corpus(tmp_path)
    assert [contents(opened, split) for split in ("train", "validation", "test")] == [[b"t1", b"t2"], [b"v1"], [b"e1"]]
    assert any("1 files are not used" in note for note in opened.notes)


def test_folders_in_an_archive_name_the_splits_too(tmp_path):
    files = {"books/train/a": b"a", "books/train/b": b"b", "books/val/c": b"c", "books/test/d": b"d"}
    (tmp_path / "books.tar.gz").write_bytes(tar_of(files, "w:gz"))
    opened = corpus(tmp_path / "books.tar.gz")
    assert [contents(opened, split) for split in ("train", "validation", "test")] == [[b"a", b"b"], [b"c"], [b"d"]]


def test_names_that_only_begin_like_a_split_are_none(tmp_path):
    for name in ("train-of-thought.txt", "testament.txt", "valley.txt", "tests.txt"):
        (tmp_path / name).write_bytes(name.encode())
    assert len(everything(tmp_path)) == 4


def test_a_split_that_is_missing_is_held_out_of_training(tmp_path):
    (tmp_path / "train").mkdir()
    for number in range(20):
        (tmp_path / "train" / f"{number}.txt").write_bytes(b"document %d" % number)
    (tmp_path / "test.txt").write_bytes(b"the test")
    opened = corpus(tmp_path, validation_fraction=0.3, test_fraction=0.5)
    assert contents(opened, "test") == [b"the test"]
    validation, train = set(contents(opened, "validation")), set(contents(opened))
    assert validation and train and len(validation | train) == 20 and not validation & train


def many(folder, count=200):
    folder.mkdir(exist_ok=True)
    for number in range(count):
        (folder / f"{number}.txt").write_bytes(b"document %d" % number)
    return folder


def test_whole_documents_are_held_out_and_none_is_in_two_splits(tmp_path):
    opened = corpus(many(tmp_path), validation_fraction=0.1, test_fraction=0.2)
    train, validation, test = (set(contents(opened, split)) for split in ("train", "validation", "test"))
    assert len(train | validation | test) == 200 == len(train) + len(validation) + len(test)
    # Binomial: 20 and 40, give or take four standard deviations.
    assert 3 <= len(validation) <= 37 and 17 <= len(test) <= 63


def test_what_is_held_out_depends_on_content_and_seed_and_not_on_names(tmp_path):
    first = corpus(many(tmp_path / "a"))
    (tmp_path / "b").mkdir()
    for path in sorted((tmp_path / "a").iterdir()):
        shutil.copy(path, tmp_path / "b" / f"other-{path.stem}.md")
    second = corpus(tmp_path / "b")
    assert set(contents(first, "test")) == set(contents(second, "test"))
    (tmp_path / "b" / "more.txt").write_bytes(b"one more document")
    assert set(contents(first, "test")) - {b"one more document"} <= set(contents(corpus(tmp_path / "b"), "test"))
    assert set(contents(first, "test")) != set(contents(corpus(tmp_path / "a", held_out_seed=1), "test"))


def test_equal_documents_come_into_the_same_split(tmp_path):
    many(tmp_path)
    for path in list(tmp_path.iterdir()):
        shutil.copy(path, tmp_path / f"copy-{path.name}")
    opened = corpus(tmp_path, validation_fraction=0.3, test_fraction=0.3)
    splits = [contents(opened, split) for split in ("train", "validation", "test")]
    assert all(found.count(content) == 2 for found in splits for content in found)
    assert not any("byte for byte" in note for note in opened.notes)


def test_equal_documents_in_splits_that_were_named_are_counted(tmp_path):
    for split, texts in {"train": ["same", "a", "b"], "validation": ["same", "c"], "test": ["same", "b", "d"]}.items():
        (tmp_path / split).mkdir()
        for number, text in enumerate(texts):
            (tmp_path / split / f"{number}").write_text(text)
    assert any(note.startswith("3 held-out documents are also") for note in corpus(tmp_path).notes)


def test_the_parts_of_one_document_are_not_called_repeated(tmp_path):
    (tmp_path / "x.txt").write_bytes(b"".join(b"line %d\n" % number for number in range(500)))
    for changes in ({}, {"validation_fraction": 0.5, "test_fraction": 0.25}):
        assert not any("byte for byte" in note for note in corpus(tmp_path, **changes).notes)


def test_parts_of_documents_that_training_contains_are_counted(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"same, same, ")
    (tmp_path / "b.txt").write_bytes(b"the end same, ")
    opened = corpus(tmp_path, held_out="tail", validation_fraction=0.0, test_fraction=0.5)
    assert (contents(opened), contents(opened, "test")) == ([b"same, ", b"the end"], [b"same, ", b" same, "])
    assert any(note.startswith("1 held-out documents are also") for note in opened.notes)


def test_three_documents_are_enough_for_three_splits(tmp_path):
    opened = corpus(many(tmp_path, count=3))
    assert [len(opened.documents(split)) for split in ("train", "validation", "test")] == [1, 1, 1]


def test_of_a_single_document_the_tail_is_held_out(tmp_path):
    text = bytes(range(32, 127)) * 100
    (tmp_path / "enwik8").write_bytes(text)
    opened = corpus(tmp_path / "enwik8")
    parts = [contents(opened, split) for split in ("train", "validation", "test")]
    assert [len(part[0]) for part in parts] == [8550, 475, 475] and b"".join(part[0] for part in parts) == text
    assert opened.documents("test")[0].name == "enwik8[9025:9500]"


@pytest.mark.parametrize("character", ["é", "漢", "𝄞"])
def test_a_tail_does_not_begin_inside_a_character(tmp_path, character):
    for shift in range(4):
        (tmp_path / "x").write_bytes(b"x" * shift + character.encode() * 50)
        opened = corpus(tmp_path / "x", needs_text=True)
        parts = [contents(opened, split)[0] for split in ("train", "validation", "test")]
        assert "".join(part.decode() for part in parts) == "x" * shift + character * 50


def test_tails_of_many_documents_where_they_are_asked_for(tmp_path):
    opened = corpus(many(tmp_path, count=5), held_out="tail", test_fraction=0.3, validation_fraction=0.0)
    assert len(opened.documents("train")) == len(opened.documents("test")) == 5
    joined = [a + b for a, b in zip(contents(opened), contents(opened, "test"), strict=True)]
    assert joined == [b"document %d" % number for number in range(5)]


def test_identity_follows_the_content_and_not_the_place(tmp_path):
    first = corpus(many(tmp_path / "a", count=9)).identity
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert corpus(tmp_path / "b").identity == first == json.loads(json.dumps(first))
    (tmp_path / "b" / "3.txt").write_bytes(b"document 3!")
    assert corpus(tmp_path / "b").identity != first
    assert corpus(tmp_path / "a", held_out_seed=1).identity != first


def test_the_standard_library_is_a_corpus_that_is_always_there():
    opened = open_corpus(CorpusConfig())
    names = [document.name for split in ("train", "validation", "test") for document in opened.documents(split)]
    assert {"json/decoder.py", "os.py", "asyncio/events.py"} <= set(names)
    assert not any(name.startswith(("test/", "site-packages/")) for name in names)
    assert "standard library of Python 3." in opened.notes[0]
    assert opened.identity["sha256"].keys() == {"train", "validation", "test"}


# What cannot be used.


def refused(path, needs_text=False, **changes):
    with pytest.raises(RequestError) as error:
        opened = corpus(path, needs_text, **changes)
        opened.documents("train")
    return str(error.value)


BAD = {
    "empty.txt": (b"", "empty.txt: it is empty"),
    "latin.txt": (b"abc\xfed", "latin.txt: byte 3 is 0xFE"),
    "empty.gz": (gzip.compress(b""), "empty.gz: it is empty"),
    "cut.txt.gz": (gzip.compress(OTHER)[:-9], "cut.txt.gz: .*damaged or incomplete"),
    "no.gz": (b"no gzip at all", "no.gz: .*damaged or incomplete.*not what its name says"),
    "cut.xz": (lzma.compress(OTHER)[:-9], "cut.xz: .*damaged"),
    "cut.bz2": (bz2.compress(OTHER)[:-9], "cut.bz2: .*damaged"),
    "cut.zst": (zst(OTHER)[:-5], "cut.zst: .*damaged"),
    "no.tar": (b"x" * 1000, "no.tar: .*damaged"),
    "cut.tar.gz": (tar_of({"a": b"a" * 5000, "b": OTHER}, "w:gz")[:-60], "cut.tar.gz.*: .*damaged"),
    "no.zip": (b"PK nonsense", "no.zip: .*damaged"),
    "no.parquet": (b"PAR1 nonsense PAR1", "no.parquet: .*damaged"),
    "a.jsonl": (json_lines(b"fine") + b'{"text": "cut', "a.jsonl, line 2: it is no JSON from column 10 on"),
    "b.jsonl": (b"\n" + json_lines(b"fine") + b"[1]\n", "b.jsonl, line 3: it is no JSON object, but list"),
    "c.jsonl": (b'{"body": "x", "id": 1}\n', "c.jsonl, line 1: it has no field 'text', only body, id; .*text_field"),
    "d.jsonl": (b'{"text": 7}\n', "d.jsonl, line 1: its field 'text' is no text, but int"),
    "e.jsonl": (b'{"text": "\\ud800"}\n', "e.jsonl, line 1: .*surrogate"),
    "f.jsonl": (b'{"text": ""}\n', "f.jsonl, line 1: it is empty"),
    "g.jsonl": (b'{"text": "caf\xe9"}\n', "g.jsonl, line 1: it is not UTF-8 from byte 13 of the line on"),
    "a.parquet": (parquet_of(["x", None]), "a.parquet, row 1: it has no text"),
    "b.parquet": (parquet_of(["x"], field="body"), "b.parquet: it has no column 'text', only id, body; .*text_field"),
    "c.parquet": (parquet_of([1, 2]), "c.parquet: its column 'text' is no text, but int64"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_record_is_refused_with_its_place_or_skipped_and_counted(tmp_path, name):
    content, message = BAD[name]
    (tmp_path / name).write_bytes(content)
    (tmp_path / "good.txt").write_bytes(b"good")
    with pytest.raises(RequestError, match=f"(?s){message}.*task.on_bad_record=skip"):
        corpus(tmp_path, validation_fraction=0.0, test_fraction=0.0)
    opened = corpus(tmp_path, validation_fraction=0.0, test_fraction=0.0, on_bad_record="skip")
    assert b"good" in contents(opened)
    assert opened.identity["bad_records"] == 1
    assert any(note.startswith("1 bad records were skipped") and name in note for note in opened.notes)


def test_what_stands_before_and_behind_a_bad_line_is_kept(tmp_path):
    (tmp_path / "x.jsonl").write_bytes(json_lines(b"a") + b"nonsense\n" + json_lines(b"b"))
    assert list(everything(tmp_path, on_bad_record="skip").values()) == [b"a", b"b"]


def test_a_damaged_archive_gives_what_stands_before_the_damage(tmp_path):
    whole = tar_of({"a": b"a" * 5000, "b": OTHER})
    (tmp_path / "x.tar").write_bytes(whole[: 512 + 5120 + 512 + 100])
    opened = corpus(tmp_path, on_bad_record="skip", validation_fraction=0.0, test_fraction=0.0)
    assert contents(opened) == [b"a" * 5000] and opened.identity["bad_records"] == 1


def test_an_encrypted_member_of_an_archive_is_a_bad_record(tmp_path):
    packed = bytearray(zip_of({"a": b"a"}))
    # Bit 0 of the flags, in the member's own header and in the archive's list of members.
    packed[6] |= 1
    packed[packed.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "x.zip").write_bytes(bytes(packed))
    assert "x.zip/a: it is encrypted" in refused(tmp_path)


def test_only_a_model_with_a_tokenizer_needs_utf_8(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"caf\xe9")
    (tmp_path / "b.gz").write_bytes(gzip.compress(b"\xff\xff"))
    (tmp_path / "c.txt").write_bytes("café".encode())
    assert len(everything(tmp_path)) == 3
    assert "a.txt: byte 3 is not UTF-8, which the model's tokenizer needs" in refused(tmp_path, needs_text=True)
    opened = corpus(tmp_path, True, on_bad_record="skip", validation_fraction=0.0, test_fraction=0.0)
    assert contents(opened) == ["café".encode()] and opened.identity["bad_records"] == 2


@pytest.mark.parametrize("cut", [2**20 - 1, 2**20 - 2, 2**20 - 3, 2**20])
def test_the_place_of_a_bad_byte_is_right_across_the_pieces_in_which_files_are_read(tmp_path, cut):
    (tmp_path / "a").write_bytes(b"x" * cut + "漢".encode() + b"y" * 5)
    assert contents(corpus(tmp_path, needs_text=True, validation_fraction=0.0, test_fraction=0.0))
    (tmp_path / "a").write_bytes(b"x" * cut + "漢".encode()[:2] + b"y" * 5)
    assert f"byte {cut} is not UTF-8" in refused(tmp_path, needs_text=True)
    (tmp_path / "a").write_bytes(b"x" * cut + b"\xfe")
    assert f"byte {cut} is 0xFE" in refused(tmp_path)
    (tmp_path / "a").write_bytes(b"x" * cut + "漢".encode()[:1])
    assert f"byte {cut} is not UTF-8" in refused(tmp_path, needs_text=True)


def test_missing_and_empty_places_say_what_to_type(tmp_path):
    (tmp_path / "books").mkdir()
    message = refused(tmp_path / "book")
    assert f"there is no file or folder {tmp_path / 'book'}; did you mean books?" in message and "hub:" in message
    assert "is empty; name a file" in refused(tmp_path / "books")
    (tmp_path / "books" / "a.txt").write_bytes(b"")
    assert "holds no text that can be used" in refused(tmp_path / "books", on_bad_record="skip")


def test_missing_splits_say_what_to_do(tmp_path):
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "a").write_bytes(b"a")
    opened = corpus(tmp_path)
    for split in ("train", "validation"):
        with pytest.raises(RequestError, match=f"no documents for {split}; put texts into a sub-folder {split}"):
            opened.documents(split)
    with pytest.raises(RequestError, match="train, validation, test, not 'dev'"):
        opened.documents("dev")


def test_fractions_of_more_than_everything_are_refused():
    with pytest.raises(RequestError, match=r"validation_fraction 0.6 and test_fraction 0.5 are more"):
        CorpusConfig(validation_fraction=0.6, test_fraction=0.5)


def test_a_file_that_changes_while_it_is_in_use_is_noticed(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"0123456789")
    (document,) = corpus(tmp_path, validation_fraction=0.0, test_fraction=0.0).documents("train")
    path.write_bytes(b"01234")
    with pytest.raises(RequestError, match=r"a.txt was changed while it was in use"):
        document.read(0, 3)
    path.unlink()
    with pytest.raises(RequestError, match=r"a.txt can no longer be read"):
        document.read(0, 3)
