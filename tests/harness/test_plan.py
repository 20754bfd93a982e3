"""From a request to a plan: presets, changes, ablations, and an identity that follows from what decides the numbers."""

import dataclasses
import json

import pytest
import toy_model

from seqbench.errors import RequestError
from seqbench.planning.plan import resolve, slug
from seqbench.planning.request import RunRequest

TOY = RunRequest("toy_model:Neighbour", "toy_task:Recall", device="cpu")


def plan(**changes):
    return resolve(dataclasses.replace(TOY, **changes))


def refusal(**changes):
    with pytest.raises(RequestError) as refused:
        plan(**changes)
    return str(refused.value)


def test_the_same_request_has_the_same_identity():
    assert plan().run_hash == plan().run_hash
    assert json.loads(json.dumps(plan().identity)) == json.loads(json.dumps(plan().identity))


def test_a_change_to_the_default_value_is_no_change():
    texts = {"model.width": "8", "task.length": "6", "steps": "12", "trainer.optimizer": "adamw"}
    assert plan(changes=texts).run_hash == plan().run_hash


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 1},
        {"precision": "bf16"},
        {"ablation": "no-dropout"},
        {"presets": ("wide",)},
        {"presets": ("longer",)},
        {"changes": {"model.width": "9"}},
        {"changes": {"task.symbols": "9"}},
        {"changes": {"task.padded": "true"}},
        {"changes": {"steps": "13"}},
        {"changes": {"learning_rate": "0.02"}},
        {"changes": {"micro_batch_size": "2"}},
        {"model": "toy_model:ShortSighted"},
        {"task": "toy_task:OtherData"},
    ],
)
def test_everything_that_decides_the_numbers_changes_the_identity(changes):
    assert plan(**changes).run_hash != plan().run_hash
    assert plan(**changes).folder_name != plan().folder_name


def test_a_plugins_version_is_part_of_the_identity(monkeypatch):
    before = plan().run_hash
    monkeypatch.setattr(toy_model.Neighbour, "version", "2")
    assert plan().run_hash != before


def test_the_folder_names_task_model_and_ablation_in_plain_characters():
    name = plan(ablation="no-dropout").folder_name
    assert name.startswith("toy_task-Recall/toy_model-Neighbour-no-dropout-")
    assert plan().run_hash[:8] in plan().folder_name


@pytest.mark.parametrize(
    ("name", "plain"),
    [("hf:org/model", "hf-org-model"), ("../../etc", "etc"), ("模型", "unnamed"), ("", "unnamed"), ("a b", "a-b")],
)
def test_no_name_leaves_the_folder_of_runs(name, plain):
    assert slug(name) == plain


def test_the_vocabulary_follows_the_task_and_cannot_be_set():
    assert plan(changes={"task.symbols": "31"}).model_config.vocab_size == 31
    assert "follows from the task" in refusal(changes={"model.vocab_size": "31"})


def test_a_preset_is_taken_by_whoever_has_it():
    assert plan(presets=("wide",)).model_config.width == 12
    assert plan(presets=("wide",)).task.config.length == 6
    both = plan(presets=("wide", "longer"))
    assert (both.model_config.width, both.task.config.length) == (12, 9)
    assert plan(presets=("tiny",)).run_hash == plan().run_hash


def test_an_unknown_preset_names_those_of_model_and_task():
    told = refusal(presets=("longr",))
    assert "unknown preset 'longr'; did you mean longer" in told
    assert "tiny, wide" in told
    assert "tiny, longer" in told


def test_the_trainer_follows_the_tasks_preset_and_then_the_request():
    assert plan().trainer.steps == 12
    assert plan(presets=("longer",)).trainer.steps == 20
    assert plan(presets=("longer",), changes={"steps": "15"}).trainer.steps == 15
    assert plan(presets=("longer",), changes={"steps": "15"}).trainer.optimizer == "muon"


def test_the_trainers_fields_go_with_and_without_its_name_but_once():
    assert plan(changes={"trainer.steps": "15"}).run_hash == plan(changes={"steps": "15"}).run_hash
    assert "same field" in refusal(changes={"trainer.steps": "15", "steps": "16"})


def test_an_ablation_changes_the_fields_it_names():
    assert plan(ablation="no-dropout").model_config.dropout == 0
    assert plan(ablation="no-dropout").label == "toy_model:Neighbour (no-dropout)"
    assert "no ablation 'nodropout'; did you mean no-dropout" in refusal(ablation="nodropout")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"model.widht": "9"}, "did you mean width"),
        ({"task.lenght": "9"}, "did you mean length"),
        ({"step": "9"}, "did you mean steps"),
        ({"modle.width": "9"}, "model.FIELD, task.FIELD or a field of the trainer"),
        ({"model.": "9"}, "has no field ''"),
        ({".width": "9"}, "model.FIELD"),
        ({"model.width": "wide"}, "a whole number"),
        ({"task.length": "2"}, "at least 4|from 4"),
        ({"steps": "-1"}, "at least 0"),
        ({"steps": "2", "warmup_steps": "2"}, "set warmup_steps too"),
    ],
)
def test_a_change_that_cannot_be_made_says_what_can(changes, told):
    assert any(part in refusal(changes=changes) for part in told.split("|"))


def test_cuda_is_refused_where_there_is_none(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert "--device cpu" in refusal(device="cuda")
    assert plan(device="auto").device.type == "cpu"
