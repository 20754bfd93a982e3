"""Data sets of the hub, on folders in the hub's own formats: fetched as needed, resumed exactly."""

import json
import threading

import huggingface_hub
import pyarrow
import pyarrow.parquet
import pytest
import torch

from seqbench.errors import RequestError
from seqbench_tasks.text import hub, hub_rows, segments, streamed, window_order
from seqbench_tasks.text.cache import cache_folder
from seqbench_tasks.text.config import CorpusConfig
from seqbench_tasks.text.openers import open_corpus
from seqbench_tasks.text.windows import training_batch

TEXTS = [f"page {number}\r\né 漢 " * (1 + number % 5) for number in range(120)]


@pytest.fixture(autouse=True)
def working_directory(tmp_path, monkeypatch):
    """`datasets` looks for a folder owner/name there before it asks the hub."""
    monkeypatch.chdir(tmp_path)
    # Some 10 segments and 10 blocks of windows instead of one.
    monkeypatch.setattr(segments, "SEGMENT_BYTES", 700)
    monkeypatch.setattr(window_order, "_SHUFFLED_BYTES", 640)
    return tmp_path


def parquet(path, texts, **columns):
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pyarrow.table({"id": list(range(len(texts))), **(columns or {"text": texts})})
    pyarrow.parquet.write_table(table, path, row_group_size=7)


def pages(folder, shards=3):
    """A data set with training pages alone, in several files."""
    for shard in range(shards):
        parquet(folder / "owner" / "pages" / "data" / f"train-{shard:05}-of-{shards:05}.parquet", TEXTS[shard::shards])
    return [text.encode() for shard in range(shards) for text in TEXTS[shard::shards]]


PAGES = CorpusConfig(data="hub:owner/pages", validation_fraction=0.1, test_fraction=0.1)


def contents(corpus, split):
    return [document.read() for document in corpus.documents(split)]


def trained_on(corpus):
    parts = []
    while (part := corpus.training_part(len(parts))) is not None:
        parts.append(part)
    return [document.read() for part in parts for document in part]


def test_pages_arrive_byte_for_byte_and_none_is_in_two_splits(working_directory):
    everything = pages(working_directory)
    corpus = open_corpus(PAGES)
    assert corpus.arriving
    train, validation, test = trained_on(corpus), contents(corpus, "validation"), contents(corpus, "test")
    assert validation and test and train == [page for page in everything if page in set(train)]
    assert not set(train) & set(validation) and not (set(train) | set(validation)) & set(test)
    # What would be held out further on is left out of training too.
    left_out = len(everything) - len(train) - len(validation) - len(test)
    assert 0 < left_out < 40
    assert corpus.documents("test")[0].name.startswith("hub:owner/pages/train, row ")


def test_nothing_is_fetched_that_is_not_needed(working_directory, monkeypatch):
    pages(working_directory)
    # What is fetched ahead would blur it.
    monkeypatch.setattr(streamed.StreamedCorpus, "_fetch_ahead", lambda self, number: None)
    corpus = open_corpus(PAGES)
    fetched = lambda: len(list(cache_folder().glob("*/*.bin")))  # noqa: E731
    assert fetched() == 2
    training_batch(corpus, 0, 0, 2, 32)
    assert fetched() <= 3
    training_batch(corpus, 0, 60, 2, 32)
    assert 5 < fetched() < 20


def test_the_next_part_is_fetched_while_training_goes_on(working_directory):
    pages(working_directory)
    corpus = open_corpus(PAGES)
    before = len(list(cache_folder().glob("*/*.bin")))
    corpus.training_part(before - 1)
    for thread in threading.enumerate():
        if "_fetch_ahead" in thread.name:
            thread.join()
    assert len(list(cache_folder().glob("*/*.bin"))) == before + 1


def test_every_byte_is_seen_once_an_epoch_and_blocks_come_in_order_of_arrival(working_directory):
    pages(working_directory)
    corpus = open_corpus(PAGES)
    windows = corpus.window_order(32)
    count = windows.count(2**62)
    for epoch in range(2):
        places = [windows.window(5, epoch * count + place) for place in range(count)]
        seen = sorted((id(window.table), window.row, window.start, window.stop) for window in places)
        assert len(set(seen)) == count
        assert sum(stop - start for _, _, start, stop in seen) == sum(map(len, trained_on(corpus)))
    first_block = {windows.window(0, place).content() for place in range(20)}
    assert first_block == {windows.window(1, place).content() for place in range(20)}
    assert [windows.window(0, place).content() for place in range(20)] != [
        windows.window(1, place).content() for place in range(20)
    ]


def test_resuming_in_the_middle_gives_the_batches_of_an_uninterrupted_run(working_directory, monkeypatch):
    pages(working_directory)
    uninterrupted = open_corpus(PAGES)
    expected = [training_batch(uninterrupted, 3, index, 4, 32).input_ids for index in range(120)]
    for stop in (1, 17, 44, 101):
        monkeypatch.setenv("SEQBENCH_CACHE", str(working_directory / f"cache-{stop}"))
        first = open_corpus(PAGES)
        before = [training_batch(first, 3, index, 4, 32).input_ids for index in range(stop)]
        resumed = open_corpus(PAGES)
        after = [training_batch(resumed, 3, index, 4, 32).input_ids for index in range(stop, 120)]
        assert all(torch.equal(*pair) for pair in zip(before + after, expected, strict=True))
    # In any order, from an empty cache.
    monkeypatch.setenv("SEQBENCH_CACHE", str(working_directory / "cache-jump"))
    jumped = open_corpus(PAGES)
    assert all(
        torch.equal(training_batch(jumped, 3, index, 4, 32).input_ids, expected[index]) for index in (77, 3, 119)
    )


@pytest.mark.parametrize("row", [1, 6, 7, 40, 41, 119])
def test_the_stream_goes_on_behind_any_row(working_directory, row):
    everything = pages(working_directory)
    source = hub_rows.HubRows("pages", "text", lambda: hub._load(hub.HubDataset("owner/pages"))["train"])
    first = source.open(None)
    for _ in range(row):
        first.next_record()
    state = json.loads(json.dumps(first.state()))
    behind = source.open(state)
    found = []
    while (record := behind.next_record()) is not None:
        found.append((record.name, b"".join(record.pieces)))
    assert found == [(f", row {number}", page) for number, page in enumerate(everything)][row:]


def test_a_network_that_fails_in_the_middle_costs_what_was_not_finished_only(working_directory, monkeypatch):
    pages(working_directory)
    expected = trained_on(open_corpus(PAGES))
    monkeypatch.setenv("SEQBENCH_CACHE", str(working_directory / "other"))
    corpus = open_corpus(PAGES)
    next_record = hub_rows.RowRecords.next_record

    def fail(self):
        if self._number == 70:
            self._iterator = iter(lambda: 1 / 0, None)
        return next_record(self)

    with monkeypatch.context() as failing:
        failing.setattr(hub_rows.RowRecords, "next_record", fail)
        with pytest.raises(RequestError, match=r"hub:owner/pages/train, row 70: fetching it failed .*\n.*is kept"):
            trained_on(corpus)
    assert trained_on(corpus) == expected == trained_on(open_corpus(PAGES))


def test_splits_of_the_data_set_itself_are_taken_as_they_are(working_directory):
    folder = working_directory / "owner" / "articles"
    for split, texts in {"train": TEXTS[:50], "validation": TEXTS[50:53], "test": TEXTS[53:60], "extra": ["x"]}.items():
        parquet(folder / "data" / f"{split}-00000-of-00001.parquet", texts, page=texts)
    corpus = open_corpus(CorpusConfig(data="hub:owner/articles", text_field="page"))
    assert contents(corpus, "test") == [text.encode() for text in TEXTS[53:60]]
    assert contents(corpus, "validation") == [text.encode() for text in TEXTS[50:53]]
    assert trained_on(corpus) == [text.encode() for text in TEXTS[:50]]
    assert set(corpus.identity["sha256"]) == {"validation", "test"}


def test_a_small_data_set_is_divided_like_files_are(working_directory):
    parquet(working_directory / "owner" / "one" / "train.parquet", ["0123456789" * 10])
    corpus = open_corpus(CorpusConfig(data="hub:owner/one"))
    assert not corpus.arriving
    assert [len(contents(corpus, split)[0]) for split in ("train", "validation", "test")] == [90, 5, 5]


def test_json_lines_and_named_configurations_of_the_hub(working_directory):
    folder = working_directory / "owner" / "set"
    folder.mkdir(parents=True)
    (folder / "README.md").write_text(
        "---\nconfigs:\n- config_name: a\n  data_files: a.jsonl\n- config_name: b\n  data_files: b.jsonl\n---\n"
    )
    for name in "ab":
        (folder / f"{name}.jsonl").write_text("".join(json.dumps({"text": f"{name}{n}\r\n"}) + "\n" for n in range(9)))
    everything = {"data": "hub:owner/set", "validation_fraction": 0.0, "test_fraction": 0.0}
    corpus = open_corpus(CorpusConfig(**everything, hub_config="b"))
    assert trained_on(corpus) == [f"b{number}\r\n".encode() for number in range(9)]
    assert corpus.identity["config"] == "b"
    with pytest.raises(RequestError, match=r"owner/set cannot be read .*'c' not found"):
        open_corpus(CorpusConfig(**everything, hub_config="c"))


def test_every_known_data_set_is_read_by_the_name_configuration_and_field_that_it_has(working_directory):
    known = hub.KNOWN_DATASETS
    for short, dataset in known.items():
        folder = working_directory / dataset.name
        path = folder / (dataset.data_files or {"train": "data/train-*.parquet"})["train"].replace("*", "0000")
        parquet(path, TEXTS[:5], **{dataset.text_field: TEXTS[:5]})
        if dataset.config:
            readme = f"---\nconfigs:\n- config_name: {dataset.config}\n  data_files: data/train-*.parquet\n---\n"
            (folder / "README.md").write_text(readme)
        corpus = open_corpus(CorpusConfig(data=f"hub:{short}", validation_fraction=0.0, test_fraction=0.0))
        assert trained_on(corpus) == [text.encode() for text in TEXTS[:5]]
    assert set(known) == {"pg19", "fineweb-edu", "wikitext", "enwik8"}


def test_the_identity_follows_the_data_set_and_what_is_held_out(working_directory):
    pages(working_directory)
    identity = open_corpus(PAGES).identity
    assert identity == json.loads(json.dumps(identity)) == open_corpus(PAGES).identity
    other = CorpusConfig(data=PAGES.data, validation_fraction=0.1, test_fraction=0.1, held_out_seed=1)
    assert open_corpus(other).identity["sha256"] != identity["sha256"]
    pages(working_directory, shards=2)
    assert open_corpus(PAGES).identity["revision"] != identity["revision"]


def test_rows_without_text_are_refused_or_counted(working_directory):
    parquet(working_directory / "owner" / "holes" / "train.parquet", ["a", None, "c"], text=["a", None, "c"])
    config = {"data": "hub:owner/holes", "validation_fraction": 0.0, "test_fraction": 0.0}
    with pytest.raises(RequestError, match="hub:owner/holes/train, row 1: its text is no text"):
        trained_on(open_corpus(CorpusConfig(**config)))
    corpus = open_corpus(CorpusConfig(**config, on_bad_record="skip"))
    assert trained_on(corpus) == [b"a", b"c"] and any("1 bad records" in note for note in corpus.notes)


def test_what_cannot_be_read_exactly_is_refused(working_directory):
    folder = working_directory / "owner" / "lines"
    folder.mkdir(parents=True)
    (folder / "train.txt").write_bytes(b"one\r\ntwo")
    with pytest.raises(RequestError, match=r"read.* by lines.*download its files"):
        trained_on(open_corpus(CorpusConfig(data="hub:owner/lines")))
    parquet(working_directory / "owner" / "body" / "train.parquet", ["x"], body=["x"])
    with pytest.raises(RequestError, match=r"no column 'text', only id, body; name one with --set task.text_field"):
        trained_on(open_corpus(CorpusConfig(data="hub:owner/body")))
    parquet(working_directory / "owner" / "odd" / "data" / "extra-0.parquet", ["x"])
    (working_directory / "owner" / "odd" / "README.md").write_text(
        "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: extra\n    path: data/*\n---\n"
    )
    with pytest.raises(RequestError, match="has only extra, and none of these is train, validation or test"):
        open_corpus(CorpusConfig(data="hub:owner/odd"))


def test_a_stream_that_is_all_held_out_says_so(working_directory):
    pages(working_directory)
    corpus = open_corpus(CorpusConfig(data="hub:owner/pages", validation_fraction=0.5, test_fraction=0.5))
    with pytest.raises(RequestError, match="nothing to train on: all of it is held out"):
        training_batch(corpus, 0, 0, 1, 32)


def test_tails_of_a_stream_cannot_be_held_out(working_directory):
    pages(working_directory)
    with pytest.raises(RequestError, match=r"task.held_out=documents"):
        open_corpus(CorpusConfig(data="hub:owner/pages", held_out="tail"))


def test_names_that_are_none_say_which_there_are():
    with pytest.raises(
        RequestError, match=r"hub:wikitxt: .*<owner/name>; did you mean wikitext\?\n.*pg19, fineweb-edu"
    ):
        open_corpus(CorpusConfig(data="hub:wikitxt"))


class Hub:
    """The hub's answers, as far as they are asked for here."""

    def __init__(self, monkeypatch):
        self.sha, self.reachable = "1" * 40, True
        monkeypatch.setattr(huggingface_hub, "dataset_info", self.dataset_info)

    def dataset_info(self, name, revision=None, timeout=None):
        if not self.reachable:
            raise ConnectionError("no route to the hub\nmore lines")
        return type("Info", (), {"sha": self.sha})()


def test_without_a_network_the_message_says_what_to_type(monkeypatch):
    Hub(monkeypatch).reachable = False
    with pytest.raises(RequestError) as error:
        open_corpus(CorpusConfig(data="hub:owner/elsewhere"))
    message = str(error.value)
    assert "hub:owner/elsewhere cannot be read from the hub (ConnectionError: no route to the hub" in message
    assert "--data" in message and "python-stdlib" in message
    with pytest.raises(RequestError, match=r"enwik8.zip and give its path with --data"):
        open_corpus(CorpusConfig(data="hub:enwik8"))


def test_without_a_network_what_was_fetched_before_is_enough(working_directory, monkeypatch):
    answers = Hub(monkeypatch)
    everything = pages(working_directory)
    # The data set lies here under its name, and is asked for under another one, which only the hub knows.
    load = hub._load
    monkeypatch.setattr(hub, "_load", lambda dataset: load(hub.HubDataset("owner/pages")))
    config = CorpusConfig(data="hub:owner/remote", validation_fraction=0.1, test_fraction=0.1)
    online = open_corpus(config)
    assert online.identity["revision"] == "1" * 40
    trained = trained_on(online)
    answers.reachable = False
    monkeypatch.setattr(hub, "_load", lambda dataset: 1 / 0)
    offline = open_corpus(config)
    assert offline.identity == online.identity and trained_on(offline) == trained and set(trained) <= set(everything)
    # A data set that has changed at the hub is another one.
    answers.reachable, answers.sha = True, "2" * 40
    monkeypatch.setattr(hub, "_load", lambda dataset: load(hub.HubDataset("owner/pages")))
    assert open_corpus(config).identity["revision"] == "2" * 40
