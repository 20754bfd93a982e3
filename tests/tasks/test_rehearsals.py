"""Every shipped task can be rehearsed: the smallest evaluation gives what the whole one gives, and refuses the same."""

import pytest
import torch
from hash_predictor import byte_pair_tokenizer
from tokenizers import normalizers

from seqbench.errors import RequestError
from seqbench.plugins.registry import TASK_GROUP, announced
from seqbench.rehearsal.evaluation import require_usable
from seqbench_tasks.byte_lm import ByteLmConfig, ByteLmTask
from seqbench_tasks.pg19.config import PG19Config
from seqbench_tasks.pg19.task import PG19Task
from seqbench_tasks.synthetic import SyntheticTask

GENERATED = [
    task for task in announced(TASK_GROUP).values() if isinstance(task, type) and issubclass(task, SyntheticTask)
]
PROSE = "The sea was calm. A café by the harbour, and the whale in it.\n" * 40


class Uniform:
    """Says nothing; counts what it was asked."""

    attention_reach, carries_state, tokens = None, True, 0

    def __init__(self, vocab_size):
        self.vocab_size = vocab_size

    def logits(self, input_ids, attention_mask=None):
        self.tokens += input_ids.numel()
        return torch.zeros(*input_ids.shape, self.vocab_size)

    def stream(self, input_ids, chunk_length):
        from seqbench.contracts import PredictedChunk
        from seqbench.evaluating.streaming import in_chunks

        start = 0
        for chunk in in_chunks(input_ids, chunk_length):
            yield PredictedChunk(start, chunk, self.logits(chunk))
            start += chunk.shape[1]

    @property
    def model(self):
        raise NotImplementedError

    def state_bytes(self, length):
        return 0

    def record(self, key, compute):
        return dict(compute())

    def progress(self, done, total, what):
        pass


@pytest.mark.parametrize("task_class", GENERATED, ids=lambda task: task.name)
@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_generated_task_is_rehearsed_on_one_sample_of_each_difficulty(task_class, split):
    task = task_class(task_class.presets["tiny"].config)
    predictor = Uniform(task.vocab_size)
    evaluation = task.rehearsal().evaluate(predictor, split)
    require_usable(task, evaluation, split)
    assert len(evaluation.items) == len(task.validation_set() if split == "validation" else task.test_set())
    # The task itself is as it was.
    assert sum(task._evaluation_set(split).values()) > len(evaluation.items)


@pytest.fixture
def texts(tmp_path, monkeypatch):
    monkeypatch.setenv("SEQBENCH_CACHE", str(tmp_path / "cache"))
    for split in ("train", "validation", "test"):
        (tmp_path / "texts" / split).mkdir(parents=True)
        for number in range(3):
            (tmp_path / "texts" / split / f"{number}.txt").write_text(f"{split} {number} {PROSE}")
    return tmp_path / "texts"


def text_tasks(texts):
    return [
        ByteLmTask(ByteLmConfig(data=str(texts), window_bytes=64)),
        PG19Task(PG19Config(data=str(texts), window_bytes=64)),
    ]


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_text_task_is_rehearsed_on_little_text(texts, number, split):
    task = text_tasks(texts)[number]
    task.prepare()
    predictor = Uniform(task.vocab_size)
    require_usable(task, task.rehearsal().evaluate(predictor, split), split)
    assert 0 < predictor.tokens <= 1024
    assert task.config == text_tasks(texts)[number].config


def lossy(normalizer):
    tokenizer = byte_pair_tokenizer(PROSE, "The\n" * 50)
    tokenizer.backend_tokenizer.normalizer = normalizer
    return tokenizer


@pytest.mark.parametrize("number", [0, 1])
def test_a_tokenizer_that_loses_text_which_is_measured_is_refused(texts, number):
    task = text_tasks(texts)[number].with_tokenizer(lossy(normalizers.NFC()))
    task.prepare()
    # Nothing here is changed by the normal form.
    task.rehearsal()
    last = texts / "test" / "2.txt"
    last.write_text(last.read_text() + "a cafe\u0301 in two characters")
    changed = text_tasks(texts)[number].with_tokenizer(lossy(normalizers.NFC()))
    changed.prepare()
    with pytest.raises(RequestError, match="is not lossless"):
        changed.rehearsal()


def test_a_split_without_documents_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("SEQBENCH_CACHE", str(tmp_path / "cache"))
    (tmp_path / "one.txt").write_text(PROSE)
    task = ByteLmTask(ByteLmConfig(data=str(tmp_path / "one.txt"), held_out="documents", window_bytes=64))
    task.prepare()
    with pytest.raises(RequestError, match="has no documents for"):
        task.rehearsal()
