"""Folders of texts as disks hold them: links are followed, each file comes once, what cannot be read is named."""

import os
import socket
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seqbench.errors import RequestError
from seqbench_tasks.text import open_files, scan, walk
from seqbench_tasks.text.bad_records import BadRecords
from seqbench_tasks.text.config import CorpusConfig
from seqbench_tasks.text.openers import open_corpus
from seqbench_tasks.text.splits import split_called

ALL = {"validation_fraction": 0.0, "test_fraction": 0.0}


def corpus(path, **changes):
    return open_corpus(CorpusConfig(data=str(path), **{**ALL, **changes}))


def names(opened, split="train"):
    return [document.name for document in opened.documents(split)]


def refused(path, **changes):
    with pytest.raises(RequestError) as error:
        corpus(path, **changes)
    return str(error.value)


@pytest.fixture
def folder(tmp_path):
    """Two documents, one in a sub-folder."""
    (tmp_path / "texts" / "sub").mkdir(parents=True)
    (tmp_path / "texts" / "a.txt").write_text("a")
    (tmp_path / "texts" / "sub" / "b.txt").write_text("bb")
    return tmp_path / "texts"


def test_linked_folders_and_files_are_read(folder, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "c.txt").write_text("ccc")
    (tmp_path / "d.txt").write_text("dddd")
    (folder / "linked").symlink_to(elsewhere)
    (folder / "d").symlink_to("../d.txt")
    opened = corpus(folder)
    assert names(opened) == ["a.txt", "d", "linked/c.txt", "sub/b.txt"]
    copied = tmp_path / "copied"
    for name in ("a.txt", "d", "linked/c.txt", "sub/b.txt"):
        (copied / name).parent.mkdir(parents=True, exist_ok=True)
        (copied / name).write_bytes((folder / name).read_bytes())
    assert corpus(copied).identity == opened.identity
    assert names(corpus(folder / "linked")) == ["c.txt"]


@pytest.mark.parametrize("target", [".", "..", "../..", "sub"])
def test_links_that_lead_around_come_to_an_end_and_are_said(folder, target):
    (folder / "sub" / "around").symlink_to(target)
    if target != "sub":
        opened = corpus(folder)
        assert names(opened) == ["a.txt", "sub/b.txt"]
        assert any("sub/around (a link to a folder that it lies in)" in note for note in opened.notes)
    else:
        assert "sub/around: it is a link to sub, which is not there" in refused(folder)


def test_what_several_links_lead_to_comes_once_and_that_is_said(folder):
    (folder / "0").symlink_to("a.txt")
    (folder / "00").symlink_to("sub")
    opened = corpus(folder)
    assert names(opened) == ["a.txt", "sub/b.txt"]
    (note,) = [note for note in opened.notes if "left out" in note]
    assert note.startswith("2 files were left out: ") and f"the same as {folder}/a.txt, which is read already" in note


def test_folders_that_link_to_each_other_are_walked_once(tmp_path):
    for number in range(8):
        (tmp_path / f"{number}").mkdir()
        (tmp_path / f"{number}" / "x.txt").write_text(f"{number}")
        for other in range(8):
            if other != number:
                (tmp_path / f"{number}" / f"to-{other}").symlink_to(f"../{other}")
    assert len(names(corpus(tmp_path))) == 8


def test_a_linked_train_counts(folder):
    (folder / "train").symlink_to("sub")
    (folder / "test.txt").symlink_to("a.txt")
    opened = corpus(folder)
    assert (names(opened), names(opened, "test")) == (["train/b.txt"], ["test.txt"])
    assert "byte for byte" not in "".join(opened.notes)


def test_links_into_one_pool_may_put_a_text_into_two_splits_and_that_is_counted(folder):
    for split in ("train", "test"):
        (folder / split).mkdir()
        (folder / split / "x").symlink_to("../a.txt")
    opened = corpus(folder)
    assert (names(opened), names(opened, "test")) == (["train/x"], ["test/x"])
    assert any(note.startswith("1 held-out documents are also among the training documents") for note in opened.notes)


def test_a_link_out_of_train_to_everything_is_no_training_text(folder):
    (folder / "train").mkdir()
    (folder / "test").mkdir()
    (folder / "train" / "x").write_text("x")
    (folder / "test" / "y").write_text("y")
    (folder / "train" / "up").symlink_to("..")
    assert names(corpus(folder)) == ["train/x"]


def bind(path):
    # A socket's whole path has to be short.
    before = os.getcwd()
    os.chdir(path.parent)
    try:
        socket.socket(socket.AF_UNIX).bind(path.name)
    finally:
        os.chdir(before)


KINDS = {
    "dead": (lambda path: path.symlink_to("nowhere"), "it is a link to nowhere, which is not there"),
    "itself": (lambda path: path.symlink_to(path.name), "it is a link that leads back to itself"),
    "fifo": (os.mkfifo, "it is a FIFO, and no ordinary file"),
    "fifo.jsonl.gz": (os.mkfifo, "it is a FIFO, and no ordinary file"),
    "zero": (lambda path: path.symlink_to("/dev/zero"), "it is a device, and no ordinary file"),
    "socket": (bind, "it is a socket, and no ordinary file"),
}


@pytest.mark.parametrize("name", KINDS)
def test_what_is_no_file_is_named_and_not_opened(folder, name):
    make, message = KINDS[name]
    make(folder / name)
    assert f"{name}: {message}\n" in refused(folder) and "task.on_bad_record=skip" in refused(folder)
    opened = corpus(folder, on_bad_record="skip")
    assert names(opened) == ["a.txt", "sub/b.txt"] and opened.identity["bad_records"] == 1
    assert any(note.startswith("1 bad records were skipped") and name in note for note in opened.notes)
    assert str(folder / name) in refused(folder / name)


@pytest.mark.parametrize("data", ["/dev/null", "~nobody-has-this-name/x", "x" * 300, "a\0b", "/proc/self/status"])
def test_places_that_are_no_texts_are_refused(data):
    assert refused(data).startswith((data[:3], "a\\x00b"))


def denied(*arguments, **options):
    raise PermissionError(13, "Permission denied")


def test_folders_and_files_that_cannot_be_read_are_named(folder, monkeypatch):
    scandir, really_open = os.scandir, os.open
    monkeypatch.setattr(walk.os, "scandir", lambda path: denied() if str(path).endswith("sub") else scandir(path))
    assert f"{folder}/sub: it cannot be read: Permission denied" in refused(folder)
    opened = corpus(folder, on_bad_record="skip")
    assert names(opened) == ["a.txt"] and opened.identity["bad_records"] == 1
    monkeypatch.setattr(walk.os, "scandir", scandir)
    monkeypatch.setattr(
        open_files.os, "open", lambda path, *rest: denied() if Path(path).name == "a.txt" else really_open(path, *rest)
    )
    assert "a.txt: it cannot be read: Permission denied" in refused(folder)
    assert names(corpus(folder, on_bad_record="skip")) == ["sub/b.txt"]


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl"])
def test_a_file_that_vanishes_is_named(folder, name, monkeypatch):
    (folder / name).write_text('{"text": "a"}')
    files_in = walk.files_in
    from seqbench_tasks.text import local

    def vanish(root, bad):
        found = files_in(root, bad)
        (folder / name).unlink(missing_ok=True)
        return found

    monkeypatch.setattr(local, "files_in", vanish)
    assert f"{name}: it cannot be read: No such file" in refused(folder)


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl"])
def test_a_file_that_grows_while_it_is_read_is_named_and_does_not_go_on_for_ever(folder, name, monkeypatch):
    (folder / name).write_text('{"text": "a"}')

    class Growing(scan.TextScanner):
        def add(self, piece):
            super().add(piece)
            with (folder / name).open("ab") as file:
                file.write(b"more")

    monkeypatch.setattr(scan, "TextScanner", Growing)
    assert f"{name} was changed while it was being read" in refused(folder / name)


def test_a_packed_file_that_changes_before_it_is_unpacked_is_named_and_nothing_is_kept(folder, monkeypatch, cache):
    from seqbench_tasks.text import packed

    path = folder / "a.jsonl"
    path.write_text('{"text": "a"}\n')
    opening = packed.open_file

    def changed(place):
        path.write_text('{"text": "b"}\n{"text": "c"}\n')
        return opening(place)

    monkeypatch.setattr(packed, "open_file", changed)
    assert "a.jsonl was changed while it was in use" in refused(path)
    assert not list(cache.rglob("*.json"))


def test_names_of_any_bytes_are_read_and_shown_in_one_line(folder):
    odd = os.fsencode(folder) + b"/train\xff\n\x1b[31m.txt"
    Path(os.fsdecode(odd)).write_text("odd")
    opened = corpus(folder)
    assert names(opened)[-1] == "train\\udcff\\n\\x1b[31m.txt"
    assert all(note.isprintable() for note in opened.notes)
    Path(os.fsdecode(odd)).write_text("")
    assert "train\\udcff\\n\\x1b[31m.txt: it is empty" in refused(folder)


def test_hidden_files_are_left_out_and_that_is_said(folder):
    (folder / ".git").mkdir()
    (folder / ".git" / "x").write_text("x")
    (folder / ".DS_Store").write_text("x")
    opened = corpus(folder)
    assert names(opened) == ["a.txt", "sub/b.txt"]
    assert any(note.startswith("2 files were left out") and ".git (hidden)" in note for note in opened.notes)


def test_what_the_hub_s_library_keeps_is_refused_with_the_folder_to_name(tmp_path):
    (tmp_path / "refs").mkdir()
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "0123").write_text("text")
    (tmp_path / "snapshots" / "1").mkdir(parents=True)
    (tmp_path / "snapshots" / "1" / "x.txt").symlink_to("../../blobs/0123")
    assert "name a folder in its folder snapshots" in refused(tmp_path)
    assert names(corpus(tmp_path / "snapshots" / "1")) == ["x.txt"]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    links=st.lists(
        st.tuples(
            st.sampled_from(["", "a", "a/b", "train", "c"]), st.sampled_from(["", "a", "a/b", "train", "c", "x"])
        ),
        max_size=6,
        unique=True,
    )
)
def test_whatever_links_there_are_each_file_comes_once_in_each_split(tmp_path_factory, links):
    root = tmp_path_factory.mktemp("tree") / "root"
    for name in ("a/b", "train", "c"):
        (root / name).mkdir(parents=True)
    files = {root / name for name in ("x", "a/y", "a/b/z", "train/t", "c/w")}
    for file in files:
        file.write_text(file.name)
    for number, (place, target) in enumerate(links):
        (root / place / f"link-{number}").symlink_to(root / target)
    found = walk.files_in(root, BadRecords("fail"))
    real = [(split_called(path.relative_to(root).parts[0]), path.resolve()) for path in found]
    assert len(set(real)) == len(real) and {path for _, path in real} == files
    assert files <= set(found), "what is in the folder itself comes under its own name"
    assert found == sorted(found, key=lambda path: path.relative_to(root).parts)
