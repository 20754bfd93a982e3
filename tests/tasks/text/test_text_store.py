"""The cache of unpacked text: whole after kills, shared between processes, damage noticed and made good."""

import gzip
import json
import multiprocessing
import os
import pwd
import signal
import tempfile
import time
from pathlib import Path

import pytest

from seqbench.errors import RequestError
from seqbench_tasks.text import local, scan_memory, segments, store, streamed
from seqbench_tasks.text.bad_records import BadRecords
from seqbench_tasks.text.cache import cache_folder
from seqbench_tasks.text.config import CorpusConfig
from seqbench_tasks.text.documents import DocumentTable
from seqbench_tasks.text.files import read_record
from seqbench_tasks.text.openers import open_corpus
from seqbench_tasks.text.records import Record
from seqbench_tasks.text.store import DocumentStore

TEXTS = [f"{number}:".encode() + bytes([97 + number % 26]) * (number * 7 % 90) for number in range(60)]


@pytest.fixture(autouse=True)
def small_segments(monkeypatch):
    """A dozen segments instead of one."""
    monkeypatch.setattr(segments, "SEGMENT_BYTES", 200)


class Texts:
    """A source of `TEXTS` that can be slow, and counts what it hands out."""

    def __init__(self, seconds=0.0, fail_at=None):
        self.seconds, self.fail_at, self.handed_out = seconds, fail_at, []

    def open(self, state):
        return Stream(self, state or 0)


class Stream:
    def __init__(self, source, place):
        self.source, self.place, self.closed = source, place, False

    def next_record(self):
        assert not self.closed
        if self.place == self.source.fail_at:
            raise RequestError("the network is gone")
        if self.place == len(TEXTS):
            return None
        self.place += 1
        self.source.handed_out.append(self.place - 1)
        time.sleep(self.source.seconds)
        return Record(f" {self.place - 1}", iter((TEXTS[self.place - 1],)))

    def state(self):
        return self.place

    def close(self):
        self.closed = True


def store_in(folder, source, policy="fail"):
    return DocumentStore(folder, source, "texts", BadRecords(policy))


def documents(store):
    return DocumentTable.of(store.all_segments(), False, BadRecords("fail"))


def contents(store):
    return [document.read() for document in documents(store)]


def test_documents_come_back_in_order_with_their_names(tmp_path):
    store = store_in(tmp_path, Texts())
    assert contents(store) == TEXTS and documents(store)[7].name == "texts 7"
    assert len(list(tmp_path.glob("*.json"))) > 5


def test_nothing_is_fetched_before_it_is_asked_for_and_nothing_twice(tmp_path):
    source = Texts()
    store = store_in(tmp_path, source)
    assert source.handed_out == []
    first = store.segment(0)
    assert source.handed_out == list(range(len(first.sizes)))
    assert store.segment(1) is not None and not store.ended
    again = Texts()
    assert contents(store_in(tmp_path, again)) == TEXTS
    assert source.handed_out + again.handed_out == list(range(60))
    unused = Texts()
    assert contents(store_in(tmp_path, unused)) == TEXTS and unused.handed_out == []
    assert store.segment(10**6) is None and store.ended


def test_two_that_take_turns_share_what_is_fetched(tmp_path):
    sources = Texts(), Texts()
    stores = [store_in(tmp_path, source) for source in sources]
    for number in range(40):
        stores[number % 2].segment(number)
    assert contents(stores[0]) == contents(stores[1]) == TEXTS
    assert sorted(sources[0].handed_out + sources[1].handed_out) == list(range(60))


def test_a_source_that_fails_leaves_whole_segments_and_is_asked_again_from_there(tmp_path):
    with pytest.raises(RequestError, match="network is gone"):
        store_in(tmp_path, Texts(fail_at=33)).all_segments()
    again = Texts()
    assert contents(store_in(tmp_path, again)) == TEXTS
    assert 0 < again.handed_out[0] <= 33


def _fill(folder, seconds):
    segments.SEGMENT_BYTES = 200
    store_in(Path(folder), Texts(seconds)).all_segments()


def _start(folder, seconds):
    # A forked process needs no imports.
    process = multiprocessing.get_context("fork").Process(target=_fill, args=(folder, seconds))
    process.start()
    return process


@pytest.mark.parametrize("instant", [0.005, 0.02, 0.04, 0.08])
def test_a_process_that_is_killed_leaves_a_store_that_the_next_one_completes(tmp_path, instant):
    for _ in range(3):
        process = _start(tmp_path, 0.001)
        time.sleep(instant)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        for index in tmp_path.glob("*.json"):
            assert index.with_suffix(".bin").exists()
    assert contents(store_in(tmp_path, Texts())) == TEXTS
    assert not list(tmp_path.glob("*.unfinished*"))


def test_processes_side_by_side_do_not_disturb_each_other(tmp_path):
    processes = [_start(tmp_path, 0.001) for _ in range(4)]
    assert contents(store_in(tmp_path, Texts(0.001))) == TEXTS
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert contents(store_in(tmp_path, Texts())) == TEXTS


@pytest.mark.parametrize("suffix", [".bin", ".json"])
def test_a_damaged_segment_is_named_set_aside_and_made_again(tmp_path, suffix, caplog):
    assert contents(store_in(tmp_path, Texts())) == TEXTS
    damaged = tmp_path / f"000002{suffix}"
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(bytes(content))
    segments._read_index.cache_clear()
    if suffix == ".bin":
        with pytest.raises(RequestError, match=r"000002.* is damaged, and was set aside .* type the command again"):
            contents(store_in(tmp_path, Texts()))
    again = Texts()
    assert contents(store_in(tmp_path, again)) == TEXTS
    assert 0 < len(again.handed_out) < 20, "only the damaged segment is fetched again"
    assert (tmp_path / f"000002{suffix}.corrupt-1").read_bytes() == bytes(content)
    assert suffix == ".bin" or "000002" in caplog.text


@pytest.mark.parametrize("ruin", [Path.unlink, lambda path: os.truncate(path, 5)])
def test_a_segment_whose_content_is_missing_is_made_again(tmp_path, ruin):
    assert contents(store_in(tmp_path, Texts())) == TEXTS
    ruin(tmp_path / "000003.bin")
    segments._read_index.cache_clear()
    again = Texts()
    assert contents(store_in(tmp_path, again)) == TEXTS and 0 < len(again.handed_out) < 20


def test_a_corpus_whose_cache_is_damaged_is_unpacked_again(tmp_path):
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(b"a text " * 100))
    config = CorpusConfig(data=str(path))
    before = [open_corpus(config).documents(split)[0].read() for split in ("train", "test")]
    (stored,) = cache_folder().glob("*/000000.bin")
    stored.write_bytes(stored.read_bytes().replace(b"a text", b"a t3xt", 1))
    assert [open_corpus(config).documents(split)[0].read() for split in ("train", "test")] == before


def test_what_is_unpacked_is_found_again_wherever_the_file_lies(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.gz").write_bytes(gzip.compress(b"a text " * 100, mtime=0))
        open_corpus(CorpusConfig(data=str(tmp_path / folder)))
    assert len(list(cache_folder().glob("*/000000.bin"))) == 1
    # The same bytes read in another way are other documents.
    (tmp_path / "b" / "y.jsonl").write_text(json.dumps({"text": "t", "page": "p"}))
    for field in ("text", "page"):
        open_corpus(CorpusConfig(data=str(tmp_path / "b"), text_field=field, on_bad_record="skip"))
    assert len(list(cache_folder().glob("*/000000.bin"))) == 3


def test_a_bad_record_stays_bad_for_a_process_that_finds_it_in_the_cache(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"text": "one"}\nnonsense\n{"text": "two"}\n')
    everything = {"data": str(path), "validation_fraction": 0.0, "test_fraction": 0.0}
    for _ in range(2):
        skipping = open_corpus(CorpusConfig(**everything, on_bad_record="skip"))
        assert skipping.identity["bad_records"] == 1 and len(skipping.documents("train")) == 2
        with pytest.raises(RequestError, match="line 2: it is no JSON"):
            open_corpus(CorpusConfig(**everything))


def test_a_cache_that_cannot_be_written_says_what_to_set(tmp_path, monkeypatch):
    (tmp_path / "x.gz").write_bytes(gzip.compress(b"a text"))
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("SEQBENCH_CACHE", str(tmp_path / "file"))
    with pytest.raises(RequestError, match=r"cannot be kept in .*\n.*SEQBENCH_CACHE"):
        open_corpus(CorpusConfig(data=str(tmp_path / "x.gz")))


@pytest.fixture
def homeless(tmp_path, monkeypatch):
    """Nobody's home: no variable names it, and the machine knows no user of this number."""
    for variable in ("SEQBENCH_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(variable, raising=False)

    def unknown(_):
        raise KeyError

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    return tmp_path / "temporary"


def test_without_a_home_folder_plain_texts_need_no_cache_and_touch_none(tmp_path, homeless):
    (tmp_path / "x.txt").write_text("a text of some length")
    for data in (str(tmp_path / "x.txt"), "python-stdlib"):
        assert len(open_corpus(CorpusConfig(data=data)).documents("train"))
    assert not list(homeless.iterdir())


def test_without_a_home_folder_texts_are_unpacked_among_the_temporary_files(tmp_path, homeless):
    (tmp_path / "x.gz").write_bytes(gzip.compress(b"a text of some length"))
    for _ in range(2):
        assert len(open_corpus(CorpusConfig(data=str(tmp_path / "x.gz"))).documents("train"))
    (folder,) = homeless.iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700 and len(list(folder.glob("text/*/*.bin"))) == 1
    folder.chmod(0o777)
    (tmp_path / "x.txt").write_text("a text of some length")
    open_corpus(CorpusConfig(data=str(tmp_path / "x.txt")))
    with pytest.raises(RequestError, match=r"can be written by others; name a folder of your own .* SEQBENCH_CACHE"):
        open_corpus(CorpusConfig(data=str(tmp_path / "x.gz")))


@pytest.mark.parametrize("error", [PermissionError(13, "denied"), OSError(30, "Read-only file system")])
def test_texts_are_unpacked_elsewhere_where_the_cache_is_read_only_and_that_is_said(
    tmp_path, homeless, monkeypatch, caplog, error
):
    (tmp_path / "x.gz").write_bytes(gzip.compress(b"a text of some length"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "read-only"))
    make = store.make_folder

    def refuse(folder):
        if folder.is_relative_to(tmp_path / "read-only"):
            raise error
        make(folder)

    monkeypatch.setattr(store, "make_folder", refuse)
    assert len(open_corpus(CorpusConfig(data=str(tmp_path / "x.gz"))).documents("train"))
    assert "cannot be kept in" in caplog.text and len(list(homeless.glob("*/text/*/*.bin"))) == 1


def test_a_full_disk_is_no_reason_to_fill_another(tmp_path, homeless, monkeypatch):
    (tmp_path / "x.gz").write_bytes(gzip.compress(b"a text of some length"))

    def full(folder):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store, "make_folder", full)
    with pytest.raises(RequestError, match=r"No space left on device\n.*SEQBENCH_CACHE"):
        open_corpus(CorpusConfig(data=str(tmp_path / "x.gz")))


def test_what_is_in_a_cache_that_is_read_only_is_read(tmp_path, monkeypatch):
    (tmp_path / "x.gz").write_bytes(gzip.compress(b"a text of some length"))
    config = CorpusConfig(data=str(tmp_path / "x.gz"))
    before = open_corpus(config).identity

    def denied(*_):
        raise PermissionError(13, "denied")

    monkeypatch.setattr(store, "make_folder", denied)
    monkeypatch.setattr(Path, "mkdir", denied)
    monkeypatch.setattr(Path, "replace", denied)
    assert open_corpus(config).identity == before
    (stored,) = cache_folder().glob("*/000000.bin")
    stored.write_bytes(stored.read_bytes().replace(b"a text", b"a t3xt"))
    with pytest.raises(RequestError, match=r"000000.* is damaged, and cannot be set aside .*SEQBENCH_CACHE"):
        open_corpus(config).documents("train")[0].read()


def test_what_was_found_out_is_forgotten_when_a_bit_of_it_has_changed(tmp_path, monkeypatch):
    monkeypatch.setattr(scan_memory, "_WORTH_BYTES", 0)
    monkeypatch.setattr(scan_memory, "_SETTLED_SECONDS", -1.0)
    (tmp_path / "a").write_text("text of some length")
    identity = open_corpus(CorpusConfig(data=str(tmp_path))).identity
    (remembered,) = cache_folder().glob("scan-*.json")
    content = remembered.read_bytes()
    for place in range(70, len(content), 7):
        remembered.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        assert open_corpus(CorpusConfig(data=str(tmp_path))).identity == identity
    for content in (b"", b"[" * 10**5, b"null"):
        remembered.write_bytes(content)
        assert open_corpus(CorpusConfig(data=str(tmp_path))).identity == identity


def test_large_corpora_are_not_read_again_by_every_process(tmp_path, monkeypatch):
    monkeypatch.setattr(scan_memory, "_WORTH_BYTES", 0)
    monkeypatch.setattr(scan_memory, "_SETTLED_SECONDS", -1.0)
    data = tmp_path / "data"
    data.mkdir()
    for name in "abc":
        (data / name).write_text(f"text {name}")
    scanned = []
    scan = scan_memory.scan_file
    monkeypatch.setattr(scan_memory, "scan_file", lambda path: scanned.append(path.name) or scan(path))
    config = CorpusConfig(data=str(data))
    identity = open_corpus(config).identity
    assert open_corpus(config).identity == identity and sorted(scanned) == ["a", "b", "c"]
    # The same size and time: a change is noticed all the same.
    status = (data / "b").stat()
    (data / "b").write_text("text B")
    os.utime(data / "b", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert open_corpus(config).identity != identity and sorted(scanned) == ["a", "b", "b", "c"]


def test_files_that_were_changed_a_moment_ago_are_read_again(tmp_path, monkeypatch):
    monkeypatch.setattr(scan_memory, "_WORTH_BYTES", 0)
    (tmp_path / "a").write_text("text")
    open_corpus(CorpusConfig(data=str(tmp_path)))
    (remembered,) = cache_folder().glob("scan-*.json")
    assert read_record(remembered) == {}


def huge(folder):
    """A folder of files that is unpacked as training goes on, as one of gigabytes is."""
    texts = [f"page {number} {'x' * (number % 30)}" for number in range(200)]
    for number in range(4):
        lines = "".join(json.dumps({"text": text}) + "\n" for text in texts[number * 45 : (number + 1) * 45])
        (folder / f"{number}.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    for number in range(180, 200):
        (folder / f"z{number}.txt").write_text(texts[number])
    return texts


def test_a_huge_folder_is_unpacked_only_as_far_as_training_gets(tmp_path, monkeypatch):
    texts = huge(tmp_path)
    monkeypatch.setattr(local, "_STREAMED_FROM_BYTES", 0)
    monkeypatch.setattr(streamed.StreamedCorpus, "_fetch_ahead", lambda self, number: None)
    config = CorpusConfig(data=str(tmp_path), validation_fraction=0.1, test_fraction=0.1)
    corpus = open_corpus(config)
    assert corpus.arriving and len(list(cache_folder().glob("*/*.bin"))) == 2
    train = []
    while (part := corpus.training_part(len(train))) is not None:
        train.append([document.read().decode() for document in part])
    train = [text for part in train for text in part]
    held_out = [document.read().decode() for split in ("validation", "test") for document in corpus.documents(split)]
    assert train == [text for text in texts if text in set(train)] and 120 < len(train) < 180
    assert held_out and not set(train) & set(held_out)
    # Another process, of which some is there: the same, with the same identity wherever the folder is.
    again = open_corpus(config)
    assert again.identity == corpus.identity
    assert [document.read().decode() for document in again.documents("test")] == [
        document.read().decode() for document in corpus.documents("test")
    ]
    assert corpus.documents("test")[0].name.split(",")[0] in {"0.jsonl.gz", "1.jsonl.gz"}


def test_a_huge_folder_goes_on_where_an_earlier_process_stopped(tmp_path, monkeypatch):
    texts = huge(tmp_path)
    monkeypatch.setattr(local, "_STREAMED_FROM_BYTES", 0)
    monkeypatch.setattr(streamed.StreamedCorpus, "_fetch_ahead", lambda self, number: None)
    config = CorpusConfig(data=str(tmp_path), validation_fraction=0.0, test_fraction=0.0)
    found, number = [], 0
    while (part := open_corpus(config).training_part(number)) is not None:
        found += [document.read().decode() for document in part]
        number += 1
    assert found == texts and number > 10
