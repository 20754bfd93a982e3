"""Trained first, refused later: whatever follows training is tried before its first step."""

import json

import pytest
import torch
from toy_model import NeighbourConfig, NeighbourModel
from unready import Watched

from seqbench.comparing.grid import grid_run
from seqbench.errors import RequestError, RunFailure
from seqbench.planning.request import RunRequest
from seqbench.rehearsal import rehearse as rehearsal
from seqbench.rehearsal.predictor import RehearsalPredictor
from seqbench.running.preview import preview
from seqbench.running.runner import execute


@pytest.fixture(autouse=True)
def nothing_trained():
    Watched.trained.clear()


def run(runs, model="toy_model:Neighbour", task="unready:Watched", **changes):
    cell = grid_run(RunRequest(model, task, **changes), runs)
    return execute(cell.plan, cell.folder, runs)


@pytest.mark.parametrize(
    ("task", "told"),
    [
        ("NoPrimaryMetric", "does not measure the primary metric accuracy, but other"),
        ("NotFinite", "measures accuracy as nan"),
        ("Repeating", "more than once"),
        ("NotJson", "an item that cannot be written as JSON"),
        ("MixedPlaces", "gives the coordinate lookback as int and str"),
        ("Nothing", "returns NoneType, expected an Evaluation"),
    ],
)
def test_an_evaluation_of_which_no_result_can_be_made_fails_the_run_before_training(task, told, tmp_path):
    result = run(tmp_path, task=f"unready:{task}")
    assert (result["status"], result["failure"]["reason"]) == ("failed", "evaluation")
    assert told in result["failure"]["message"]
    assert not Watched.trained


@pytest.mark.parametrize(
    ("model", "task", "reason", "told"),
    [
        ("unready:Forgetting", "unready:Watched", "saving", "inner.weight has other values"),
        ("unready:NotSaved", "unready:Watched", "error", "no transformers.PreTrainedModel"),
        ("unready:Placed", "unready:LongTest", "error", "IndexError"),
    ],
)
def test_a_model_that_cannot_be_stored_or_tested_fails_before_training(model, task, reason, told, tmp_path):
    result = run(tmp_path, model, task)
    assert (result["status"], result["failure"]["reason"]) == ("failed", reason)
    assert told in result["failure"]["message"]
    assert not Watched.trained


def test_a_request_that_evaluation_refuses_is_refused_before_training_and_leaves_no_run(tmp_path):
    with pytest.raises(RequestError, match="no strings for validation"):
        run(tmp_path, task="unready:EmptyValidation")
    assert not Watched.trained
    assert not list(tmp_path.glob("*/*/*"))


def test_without_evaluations_in_training_the_validation_set_is_not_asked_for(tmp_path):
    assert run(tmp_path, task="unready:EmptyValidation", changes={"evaluation_interval": "0"})["status"] == "complete"
    assert Watched.trained


def test_a_rehearsal_leaves_nothing_behind_and_the_run_is_the_same_without_it(tmp_path, monkeypatch):
    first = run(tmp_path / "first")
    (folder,) = tmp_path.glob("first/*/toy*")
    assert not [path for path in folder.iterdir() if path.name.endswith(".tmp")]
    monkeypatch.setattr("seqbench.running.runner.rehearse", lambda *arguments: [])
    second = run(tmp_path / "second")
    assert first["measurements"] == second["measurements"]


def test_a_disk_without_room_for_a_checkpoint_is_told_before_training(tmp_path, monkeypatch):
    class Full:
        free = 100

    monkeypatch.setattr(rehearsal.shutil, "disk_usage", lambda place: Full)
    with pytest.raises(Exception, match="No space left on device"):
        run(tmp_path)
    assert not Watched.trained


def test_a_dry_run_tries_the_folder_and_what_follows_training(tmp_path):
    cell = grid_run(RunRequest("toy_model:Neighbour", "unready:Watched"), tmp_path / "runs")
    assert json.loads(preview(cell.plan, cell.folder.path, as_json=True))
    assert not (tmp_path / "runs").exists()
    (tmp_path / "file").touch()
    with pytest.raises(RequestError, match="cannot write to"):
        preview(cell.plan, tmp_path / "file" / "below", as_json=True)
    broken = grid_run(RunRequest("toy_model:Neighbour", "unready:NoPrimaryMetric"), tmp_path / "runs")
    with pytest.raises(RunFailure, match="primary metric"):
        preview(broken.plan, broken.folder.path, as_json=True)


def test_a_folder_that_nothing_can_be_made_in_is_refused_by_a_dry_run(bench):
    refused = bench(
        *("run", "--model", "toy_model:Neighbour", "--task", "toy_task:Recall"), "--dry-run", "--output", "/proc/x"
    )
    assert refused.code == 2
    assert "cannot write to /proc/x" in refused.err


def test_a_text_without_a_test_document_is_refused_before_training(bench):
    (bench.folder / "one.txt").write_text("Call me Ishmael. " * 200)
    refused = bench(
        *("run", "--model", "transformer", "--task", "byte-lm", "--data", "one.txt"),
        *("--set", "task.held_out=documents", "--output", "one"),
    )
    assert refused.code == 2
    assert "has no documents for" in refused.err
    assert not (bench.folder / "one" / "metrics.jsonl").exists()


def predictor(seconds):
    torch.manual_seed(0)
    model = NeighbourModel(NeighbourConfig()).eval()
    found = RehearsalPredictor(model, torch.device("cpu"), "fp32", None, lambda length: 0)
    found.seconds = seconds
    return found


def test_the_model_answers_first_and_zeros_stand_in_when_time_is_up():
    tokens = torch.arange(12).reshape(2, 6) % 8
    found = predictor(seconds=0.0)
    assert found.logits(tokens).abs().sum() > 0
    stand_in = found.logits(tokens[:, :4])
    assert stand_in.shape == (2, 4, 8) and not stand_in.any()
    patient = predictor(seconds=60.0)
    assert all(patient.logits(tokens).any() for _ in range(3))


def test_a_stream_has_the_models_first_chunk_and_the_length_of_all():
    tokens = torch.arange(10).unsqueeze(0) % 8
    chunks = list(predictor(60.0).stream(tokens, 4))
    assert [chunk.start for chunk in chunks] == [0, 4, 8]
    assert [chunk.logits.shape for chunk in chunks] == [(1, 4, 8), (1, 4, 8), (1, 2, 8)]
    torch.testing.assert_close(chunks[0].logits, predictor(60.0).logits(tokens[:, :4]))
    assert not chunks[1].logits.any()


def test_the_shortest_and_the_longest_call_are_remembered_with_their_masks():
    found = predictor(60.0)
    for length in (4, 2, 7, 5):
        tokens = torch.zeros(3, length, dtype=torch.int64)
        found.logits(tokens, torch.ones_like(tokens))
    assert sorted(tuple(batch.input_ids.shape) for batch in found.batches) == [(2, 2), (2, 7)]
    assert all(batch.attention_mask.shape == batch.input_ids.shape for batch in found.batches)
