"""What a task's evaluation may rely on: streams, records, and the state that a model carries."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from toy_model import NeighbourConfig, StatelessModel

from seqbench.contracts import Batch
from seqbench.errors import RequestError
from seqbench.evaluating.predictor import ModelPredictor
from seqbench.planning.fresh_model import build_model
from seqbench.planning.plan import resolve
from seqbench.planning.request import RunRequest
from seqbench.running.measuring import predictor_of
from seqbench.store.records import EvaluationRecords
from seqbench.training.data_order import DataOrderHash

CPU = torch.device("cpu")


def shipped(name: str, precision: str = "fp32") -> ModelPredictor:
    plan = resolve(RunRequest(name, "toy_task:Recall", device="cpu", precision=precision))
    return predictor_of(plan, build_model(plan))


def stateless() -> ModelPredictor:
    return ModelPredictor(StatelessModel(NeighbourConfig()), CPU, "fp32", None, lambda length: 0)


@pytest.mark.parametrize("name", ["pmnet", "transformer", "sliding-window", "gated-convolution", "mamba"])
def test_a_stream_gives_the_logits_of_one_whole_sequence(name: str) -> None:
    predictor = shipped(name)
    ids = torch.randint(8, (2, 37), generator=torch.Generator().manual_seed(0))
    chunks = list(predictor.stream(ids, chunk_length=8))
    assert [chunk.start for chunk in chunks] == [0, 8, 16, 24, 32]
    assert torch.equal(torch.cat([chunk.input_ids for chunk in chunks], dim=1), ids)
    torch.testing.assert_close(
        torch.cat([chunk.logits for chunk in chunks], dim=1), predictor.logits(ids), rtol=1e-4, atol=1e-5
    )


def test_a_stream_in_bf16_gives_fp32_logits_and_leaves_the_callers_autocast_alone() -> None:
    predictor = shipped("transformer", "bf16")
    for chunk in predictor.stream(torch.zeros(1, 8, dtype=torch.int64), chunk_length=4):
        assert chunk.logits.dtype == torch.float32
        assert not torch.is_autocast_enabled("cpu")


def test_whether_a_model_carries_state_is_found_out() -> None:
    assert shipped("mamba").carries_state
    assert not stateless().carries_state
    with pytest.raises(RequestError, match="cannot be streamed"):
        list(stateless().stream(torch.zeros(1, 4, dtype=torch.int64), chunk_length=2))


def test_state_bytes_are_those_that_the_plugin_declares() -> None:
    plan = resolve(RunRequest("transformer", "toy_task:Recall", device="cpu"))
    assert shipped("transformer").state_bytes(100) == plan.model.state_bytes(plan.model_config, 100)


class Counting:
    def __init__(self, value: Any) -> None:
        self.value, self.calls = value, 0

    def __call__(self) -> dict[str, Any]:
        self.calls += 1
        return {"value": self.value}


def test_a_record_is_computed_once_for_what_it_belongs_to(tmp_path: Path) -> None:
    path, compute = tmp_path / "records.jsonl", Counting(0.1)
    for _ in range(2):
        assert EvaluationRecords(path, "a model").get("book", compute) == {"value": 0.1}
    assert compute.calls == 1
    assert EvaluationRecords(path, "another model").get("book", compute) == {"value": 0.1}
    assert compute.calls == 2


def test_a_record_is_the_same_whether_new_or_stored(tmp_path: Path) -> None:
    """Numbers that are none become null in JSON, tuples become lists: for the first reader too."""
    path, compute = tmp_path / "records.jsonl", Counting((float("nan"), 1))
    new = EvaluationRecords(path, "a model").get("book", compute)
    assert new == EvaluationRecords(path, "a model").get("book", compute) == {"value": [None, 1]}


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_line_that_was_cut_off_is_computed_again_and_harms_no_other(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "records.jsonl"
    records = EvaluationRecords(path, "a model")
    records.get("first", Counting(1))
    records.get("second", Counting(2))
    path.write_bytes(path.read_bytes()[:-cut])
    first, second, third = Counting(1), Counting(2), Counting(3)
    for _ in range(2):
        records = EvaluationRecords(path, "a model")
        assert records.get("first", first) == {"value": 1}
        assert records.get("second", second) == {"value": 2}
        assert records.get("third", third) == {"value": 3}
    assert first.calls == 0
    assert second.calls == 1 if cut > 1 else second.calls <= 1
    assert third.calls == 1


def test_a_record_that_was_changed_is_computed_again(tmp_path: Path) -> None:
    path, compute = tmp_path / "records.jsonl", Counting(1)
    EvaluationRecords(path, "a model").get("book", compute)
    line = json.loads(path.read_text())
    path.write_text(json.dumps({**line, "record": {"value": 2}}) + "\n")
    assert EvaluationRecords(path, "a model").get("book", compute) == {"value": 1}
    assert compute.calls == 2


def test_the_same_text_in_other_tokens_is_the_same_data() -> None:
    def order(ids: list[int], raw: bytes | None) -> str:
        tokens = torch.tensor([ids])
        chain = DataOrderHash()
        chain.add(Batch(tokens, tokens, raw=raw))
        return chain.digest

    assert order([1, 2, 3], b"text") == order([7], b"text")
    assert order([1, 2, 3], b"text") != order([1, 2, 3], b"next")
    assert order([1, 2, 3], None) != order([7], None)
