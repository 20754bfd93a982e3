"""PG-19: the curve over position against a full forward pass, its level and slope, protocols, interruptions."""

import dataclasses
import math

import numpy as np
import pytest
from hash_predictor import HashPredictor, byte_pair_tokenizer, full_forward
from scipy import stats

from seqbench.contracts import with_settings
from seqbench.errors import RequestError, RunFailure
from seqbench.store.records import EvaluationRecords
from seqbench_tasks.pg19 import PG19Config, PG19Task
from seqbench_tasks.pg19.books import BookScore, read_book
from seqbench_tasks.pg19.cost import Cost
from seqbench_tasks.pg19.summary import measure
from seqbench_tasks.text.protocol import parse_protocol
from seqbench_tasks.text.tokens import ByteTokens

BOS = 254
FREE = Cost(0.0, 0.0, 0.0, 0, 0)
WORDS = ("the", "whale", "sea", "captain", "of", "and", "a", "harpoon", "naïve", "café", "—", "watch", "wind")


def prose(size: int, seed: int) -> bytes:
    rng = np.random.default_rng(seed)
    text = " ".join(WORDS[number] for number in rng.integers(0, len(WORDS), size)).encode()
    return text[:size].decode(errors="ignore").encode()


@pytest.fixture(scope="module")
def books(tmp_path_factory):
    """Three books for each split; the first test book is shorter than the context of the tests."""
    folder = tmp_path_factory.mktemp("books")
    for split, sizes in {"train": (3000, 2000, 2500), "validation": (700, 900, 800), "test": (150, 1200, 950)}.items():
        (folder / split).mkdir()
        for number, size in enumerate(sizes):
            (folder / split / f"book-{number}.txt").write_bytes(prose(size, len(split) + number))
    return folder


def settings(books, **changes) -> PG19Config:
    small = {"window_bytes": 64, "context_bytes": 800, "first_bucket_bytes": 100, "validation_bytes": 300}
    return dataclasses.replace(PG19Config(), data=str(books), **{**small, **changes})


def values(evaluation, metric):
    return {
        tuple(found.coordinates.values()): found.value for found in evaluation.measurements if found.metric == metric
    }


def book(bits, sizes, name="a") -> BookScore:
    return BookScore(name, sum(sizes), tuple(map(float, bits)), tuple(sizes), FREE)


def figures(books, ends):
    return {(found.metric, *found.coordinates.values()): found.value for found in measure(books, ends, "test")}


def test_the_curve_is_what_one_forward_pass_over_each_book_gives_bucket_by_bucket(books):
    evaluation = PG19Task(settings(books)).evaluate(HashPredictor(256), "test")
    ends = (100, 200, 400, 800)
    bits, sizes = dict.fromkeys(ends, 0.0), dict.fromkeys(ends, 0)
    for number in range(3):
        data = (books / "test" / f"book-{number}.txt").read_bytes()[:800]
        nats = full_forward(HashPredictor(256), [BOS, *data])
        for start, end in zip((0, *ends), ends, strict=False):
            bits[end] += nats[start:end].sum() / math.log(2)
            sizes[end] += len(nats[start:end])
    curve = values(evaluation, "bits_per_byte")
    assert curve.pop(()) == pytest.approx(sum(bits.values()) / sum(sizes.values()), rel=1e-6)
    assert list(curve) == [(end,) for end in ends]
    assert list(curve.values()) == pytest.approx([bits[end] / sizes[end] for end in ends], rel=1e-6)


def test_n_is_the_number_of_books_that_reach_a_bucket(books):
    evaluation = PG19Task(settings(books)).evaluate(HashPredictor(256), "test")
    reached = {
        found.coordinates["position"]: found.n
        for found in evaluation.measurements
        if found.metric == "bits_per_byte" and found.coordinates
    }
    assert reached == {100: 3, 200: 3, 400: 2, 800: 2}


def test_every_book_is_an_item_whose_scores_and_curves_make_the_figure(books):
    task = PG19Task(settings(books))
    evaluation = task.evaluate(HashPredictor(256), "test")
    assert [(item["index"], item["book"]) for item in evaluation.items] == [
        (number, f"test/book-{number}.txt") for number in range(3)
    ]
    assert [item["bytes"] for item in evaluation.items] == [150, 800, 800]
    for item in evaluation.items:
        curve = task.item_curve(item)
        score, weight = task.item_score(item)
        assert sum(size for _, _, size in curve) == weight == item["bytes"]
        assert sum(value * size for _, value, size in curve) / weight == pytest.approx(score)
    assert [place for place, _, _ in task.item_curve(evaluation.items[0])] == [100, 200]


def test_the_level_is_the_mean_after_the_first_bucket():
    found = figures([book((800, 100, 200), (100, 100, 200)), book((500, 150), (100, 100))], (100, 200, 400))
    assert found["level",] == pytest.approx((100 + 200 + 150) / 400)
    assert found["bits_per_byte",] == pytest.approx((1100 + 650) / 600)


def test_the_slope_is_the_change_for_each_doubling_and_does_not_see_the_first_bucket():
    sizes, ends = (100, 100, 200, 400, 800), (100, 200, 400, 800, 1600)
    falling = [size * (2.0 - 0.05 * bucket) for bucket, size in enumerate(sizes)]
    spoiled = [999.0, *falling[1:]]
    assert figures([book(spoiled, sizes)], ends)["slope",] == pytest.approx(-0.05)
    alike = [book(falling, sizes), book([size * (1.5 - 0.01 * place) for place, size in enumerate(sizes)], sizes)]
    # With equal buckets it is the least-squares slope of the mean over books.
    means = [np.mean([one.bits[place] / sizes[place] for one in alike]) for place in range(1, 5)]
    assert figures(alike, ends)["slope",] == pytest.approx(stats.linregress(range(4), means).slope)


def test_long_books_that_are_easier_than_short_ones_are_no_slope():
    flat = [book((200, 200, 400, 800), (100, 100, 200, 400)), book((100, 100, 200), (100, 100, 200))]
    assert figures(flat, (100, 200, 400, 800))["slope",] == pytest.approx(0.0)


def test_a_bucket_that_a_book_does_not_fill_is_not_in_its_slope():
    whole = book((200, 200, 400, 800), (100, 100, 200, 400))
    cut = dataclasses.replace(whole, bits=(*whole.bits, 9.0), sizes=(*whole.sizes, 1))
    assert figures([cut], (100, 200, 400, 800, 1600))["slope",] == pytest.approx(0.0)
    assert ("slope",) not in figures([book((2, 2, 1), (100, 100, 50))], (100, 200, 400))


def test_intervals_are_over_books_and_near_those_of_the_t_distribution_for_many():
    rng = np.random.default_rng(0)
    means = rng.normal(2.0, 0.2, 60)
    found = figures([book((100 * mean,), (100,)) for mean in means], (100,))
    low, high = stats.t.interval(0.95, 59, loc=means.mean(), scale=stats.sem(means))
    assert found["bits_per_byte_low",] == pytest.approx(low, abs=0.1 * (high - low))
    assert found["bits_per_byte_high",] == pytest.approx(high, abs=0.1 * (high - low))
    assert found["bits_per_byte_low", 100] == found["bits_per_byte_low",]


def test_one_book_has_no_interval():
    found = figures([book((2, 2, 4), (1, 1, 2))], (1, 2, 4))
    assert {metric for metric, *_ in found} == {"bits_per_byte", "level", "slope"}


@pytest.mark.parametrize("protocol", ["reset:128", "sliding:128:32"])
def test_the_protocol_changes_what_the_model_remembers_and_not_what_is_counted(books, protocol):
    carried = PG19Task(settings(books)).evaluate(HashPredictor(256), "test")
    other = PG19Task(settings(books, protocol=protocol)).evaluate(HashPredictor(256, carries_state=False), "test")
    assert [item["bytes"] for item in other.items] == [item["bytes"] for item in carried.items]
    assert values(other, "bits_per_byte") != values(carried, "bits_per_byte")


def test_a_model_with_a_tokenizer_reads_the_same_bytes_in_fewer_tokens_and_is_paired_by_book(books):
    # Cut inside a character: bytes and tokens stop before it.
    data = (books / "test" / "book-1.txt").read_bytes()
    limit = data.index("é".encode(), 300) + 1
    plain = PG19Task(settings(books, context_bytes=limit))
    tokenised = plain.with_tokenizer(byte_pair_tokenizer(prose(2000, 5).decode()))
    ours = plain.evaluate(HashPredictor(plain.vocab_size), "test")
    theirs = tokenised.evaluate(HashPredictor(tokenised.vocab_size), "test")
    assert tokenised.vocab_size == len(tokenised.tokenizer) != plain.vocab_size == 256
    assert ours.items[1]["bytes"] == limit - 1
    for one, other in zip(ours.items, theirs.items, strict=True):
        assert (one["book"], one["bytes"], one["tokens"]) == (other["book"], other["bytes"], one["bytes"])
        assert other["tokens"] < other["bytes"]


def test_estimates_for_a_model_with_a_tokenizer_count_tokens_and_not_bytes(books):
    plain = PG19Task(settings(books, window_bytes=512))
    assert plain.estimated_sequence == plain.longest_sequence == 512
    tokenised = plain.with_tokenizer(byte_pair_tokenizer(prose(2000, 5).decode()))
    lengths = [length for index in range(20) for length in tokenised.training_batch(1, index, 8).lengths]
    assert max(lengths) * 0.95 < tokenised.estimated_sequence <= max(lengths) * 1.05
    assert tokenised.estimated_sequence < tokenised.longest_sequence / 2


def test_a_model_that_cannot_follow_the_protocol_fails_with_the_reason_at_the_first_validation(books, monkeypatch):
    # So that the test books take several calls, and what is read for validation does not.
    monkeypatch.setattr("seqbench_tasks.text.followable.CHUNK_LENGTH", 400)
    with pytest.raises(RunFailure, match="cannot follow protocol carried: it returns no state") as refused:
        PG19Task(settings(books)).evaluate(HashPredictor(256, carries_state=False), "validation")
    assert refused.value.reason == "protocol"


class Interrupted(HashPredictor):
    """Is stopped when it begins the book with that number."""

    def __init__(self, records, stops_at=None) -> None:
        super().__init__(256)
        self.records, self.stops_at, self.books = records, stops_at, 0

    def record(self, key, compute):
        return self.records.get(key, compute)

    def stream(self, input_ids, chunk_length):
        if self.books == self.stops_at:
            raise KeyboardInterrupt
        self.books += 1
        yield from super().stream(input_ids, chunk_length)


def test_an_interrupted_evaluation_goes_on_behind_the_books_that_were_read(tmp_path, books, monkeypatch):
    # So that a book takes several calls.
    monkeypatch.setattr("seqbench_tasks.text.scoring.CHUNK_LENGTH", 128)
    task = PG19Task(settings(books))
    whole = task.evaluate(Interrupted(EvaluationRecords(tmp_path / "whole", "run")), "test")
    with pytest.raises(KeyboardInterrupt):
        task.evaluate(Interrupted(EvaluationRecords(tmp_path / "parts", "run"), stops_at=2), "test")
    resumed = Interrupted(EvaluationRecords(tmp_path / "parts", "run"))
    assert task.evaluate(resumed, "test") == whole
    assert resumed.books == 1


def test_validation_reads_the_beginning_of_some_books_anew_at_every_look(books):
    task, predictor = PG19Task(settings(books, validation_books=2)), HashPredictor(256)
    predictor.record = None
    evaluation = task.evaluate(predictor, "validation")
    assert [item["bytes"] for item in evaluation.items] == [300, 300]
    assert predictor.tokens_read == 600
    assert {found.split for found in evaluation.measurements} == {"validation"}


def test_a_book_is_read_in_pieces_and_nothing_of_it_is_kept():
    longest = 0

    def read(start, stop):
        nonlocal longest
        longest = max(longest, stop - start)
        return bytes(start + place & 0x7F for place in range(stop - start))

    class Counting(HashPredictor):
        def stream(self, input_ids, chunk_length):
            for part in input_ids:
                yield from super().stream([part], chunk_length)

    size = 40_000
    score = read_book(Counting(256), "long", ByteTokens(read, size), parse_protocol("carried"), (16_384, 65_536))
    assert longest <= 2048
    assert score.sizes == (16_384, size - 16_384) and score.bytes == score.tokens == size


def test_time_and_memory_are_noted_for_the_first_and_the_last_tenth(books):
    task = PG19Task(settings(books))
    document = task._documents("test")[1]
    cost = read_book(HashPredictor(256), "x", task._tokens(document, "test"), parse_protocol("carried"), (800,)).cost
    assert cost.seconds > 0 and cost.first_seconds_per_byte > 0 and cost.last_seconds_per_byte > 0
    assert cost.first_memory_bytes > 2**20 and cost.last_memory_bytes > 2**20


def test_a_record_survives_json_with_a_loss_that_is_no_number():
    score = book((math.nan, 2.0), (1, 1))
    record = score.record() | {"bits": [None, 2.0]}
    back = BookScore.from_record(record)
    assert math.isnan(back.bits[0]) and back.bits[1] == 2.0 and back.sizes == score.sizes


def test_buckets_double_up_to_the_context():
    config = PG19Config(context_bytes=5000, first_bucket_bytes=1000)
    assert config.bucket_ends("test") == (1000, 2000, 4000, 5000)
    assert PG19Config(context_bytes=600).bucket_ends("test") == (600,)
    assert PG19Config().bucket_ends("test")[-1] == 524_288


def test_unknown_protocols_are_refused_when_the_task_is_configured():
    with pytest.raises(RequestError, match=r"task pg19: unknown protocol 'reset'; type carried"):
        with_settings(PG19Config(), {"protocol": "reset"}, "task pg19")


def test_training_windows_are_bytes_of_training_books_behind_what_stands_before_them(books):
    task = PG19Task(settings(books))
    texts = [path.read_bytes() for path in sorted((books / "train").iterdir())]
    batch = task.training_batch(0, 0, 8)
    assert batch.input_ids.shape[1] <= task.longest_sequence == 64
    for inputs, labels in zip(batch.input_ids.tolist(), batch.labels.tolist(), strict=True):
        predicted = bytes(label for label in labels if label >= 0)
        assert any(predicted in text for text in texts)
        assert inputs[0] == BOS or any(bytes([inputs[0]]) + predicted in text for text in texts)


def test_published_scores_stand_at_the_context_that_they_were_measured_at(books):
    contexts = {score.model: score.coordinates["context"] for score in PG19Task(settings(books)).published()}
    presets = PG19Task.presets
    assert contexts["PMNet"] == presets["zero-shot"].config.context_bytes
    assert contexts["MambaByte, 353M"] == presets["paper"].config.window_bytes
