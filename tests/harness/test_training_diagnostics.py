"""Measurements of a model's inside while it trains: gradient norms by module, and what the model's plugin tells."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from toy_diagnostics import Rambling, Silent, Telling, told
from toy_model import Neighbour, NeighbourSettings
from toy_task import Recall, RecallSettings

from seqbench.planning.plan import resolve
from seqbench.planning.request import RunRequest
from seqbench.running.runner import execute
from seqbench.store.files import finite
from seqbench.store.run_folder import RunFolder
from seqbench.training.diagnostics import Diagnostics
from seqbench.training.gradient_norms import group_by_module, module_gradient_norms, module_of
from seqbench.training.settings import TrainerSettings

CPU = torch.device("cpu")
STOPS = ("SIGKILL@validation:3", "SIGKILL@test:1", "SIGINT@validation:1")


@pytest.mark.parametrize(
    ("parameter", "module"),
    [
        ("inner.layers.3.attention.query.weight", "layers.3.attention"),
        ("inner.layers.3.norm.weight", "layers.3.norm"),
        ("layers.3.decay", "layers.3.decay"),
        ("inner.blocks.0.parts.1.weight", "blocks.0.parts"),
        ("inner.tables.0", "tables.0"),
        ("inner.embedding.weight", "embedding"),
        ("head.weight", "head"),
        ("inner", "inner"),
    ],
)
def test_a_module_is_the_path_up_to_one_component_beyond_the_first_number(parameter, module):
    assert module_of(parameter, base_prefix="inner") == module


def test_tied_weights_count_once_and_frozen_ones_not_at_all():
    model = Neighbour().build(NeighbourSettings())
    model.norm.requires_grad_(False)
    groups = group_by_module(model)
    assert list(groups) == ["embedding", "inner"]
    assert [id(each) for each in groups["inner"]] == [id(model.inner.weight), id(model.inner.bias)]


def test_a_module_norm_is_that_of_its_gradient_and_zero_where_there_is_none():
    model = nn.ModuleDict({"used": nn.Linear(2, 2), "unused": nn.Linear(2, 2)})
    model["used"](torch.ones(1, 2)).sum().backward()
    # Four weights and two biases, each with gradient 1.
    assert module_gradient_norms(group_by_module(model), CPU).tolist() == pytest.approx([math.sqrt(6), 0.0])


@pytest.fixture
def run(tmp_path):
    """Run a toy model in this process."""

    def run(model, **changes):
        settings = {key: str(value) for key, value in changes.items()}
        plan = resolve(RunRequest(f"toy_diagnostics:{model}", "toy_task:Recall", changes=settings))
        folder = RunFolder(tmp_path / plan.folder_name)
        result = execute(plan, folder, tmp_path)
        log = folder.read_log()
        weights = (folder.path / "model" / "model.safetensors").read_bytes()
        return SimpleNamespace(result=result, log=log, weights=weights)

    return run


def lines(log, kind):
    return [row for row in log if row["kind"] == kind]


def without_clocks(log):
    return [{key: value for key, value in row.items() if key != "seconds"} for row in log]


def test_a_plugin_is_asked_at_every_evaluation_and_after_the_last_step(run):
    finished = run("Telling", steps=10)
    told = lines(finished.log, "diagnostics")
    assert [row["step"] for row in told] == [4, 8, 10]
    assert finished.result["diagnostics"] == told[-1]["measurements"]
    assert [each["metric"] for each in told[0]["measurements"]] == ["certainty", *["usage"] * 12, *["decay"] * 4]
    assert told[0]["measurements"][0]["value"] != told[1]["measurements"][0]["value"]


@pytest.mark.parametrize("changes", [{"evaluation_interval": 0}, {"steps": 0, "warmup_steps": 0}])
def test_it_is_asked_once_when_nothing_is_evaluated_on_the_way(run, changes):
    finished = run("Telling", **changes)
    assert [row["step"] for row in lines(finished.log, "diagnostics")] == [changes.get("steps", 12)]


@pytest.mark.parametrize("model", ["Telling", "Disturbing", "Raising"])
def test_training_has_the_same_bits_whatever_the_plugin_does(run, model):
    plain, told = run("Silent"), run(model)
    assert lines(plain.log, "diagnostics") == []
    assert told.weights == plain.weights
    assert without_clocks(lines(told.log, "train")) == without_clocks(lines(plain.log, "train"))
    assert told.result["measurements"] == plain.result["measurements"]


def test_a_number_that_is_not_finite_is_stored_as_null(run):
    finished = run("Disturbing")
    assert [each["value"] for each in finished.result["diagnostics"]] == [None]
    assert lines(finished.log, "diagnostics")[0]["measurements"][0]["value"] is None


def test_a_plugin_that_raises_leaves_its_reason_and_the_run_goes_on(run):
    finished = run("Raising")
    errors = lines(finished.log, "diagnostics-error")
    assert [row["step"] for row in errors] == [4, 8, 12]
    assert errors[0]["message"] == "ArithmeticError: no such head"
    assert "in diagnose" in errors[0]["traceback"]
    assert finished.result["status"] == "complete"
    assert finished.result["diagnostics"] == []
    [note] = [note for note in finished.result["notes"] if "diagnostics" in note]
    assert "failed 3 times, last after step 12 (ArithmeticError: no such head)" in note


def test_a_plugin_that_raises_nothing_leaves_no_note(run):
    assert run("Telling").result["notes"] == ["chance is 1/8"]


@pytest.fixture(scope="module")
def stoppable(bench):
    """A command whose checkpoints and evaluations come at different steps, and what it does when it is left alone."""
    command = ("run", "--model", "toy_diagnostics:Telling", "--task", "toy_task:Recall", "--json")
    command += ("--set", "evaluation_interval=3", "--set", "checkpoint_interval=5", "--output")
    return command, bench(*command, "never")


@pytest.mark.parametrize("place", STOPS)
def test_a_stopped_run_ends_with_the_same_numbers_and_none_twice(bench, stoppable, place):
    command, never = stoppable
    first, again = bench(*command, place, TOY_SIGNAL=place), bench(*command, place)
    assert first.code != 0
    assert again.code == never.code == 0
    assert again.json["diagnostics"] == never.json["diagnostics"] != []
    log, expected = bench.log(place), bench.log("never")
    assert [row["step"] for row in lines(log, "diagnostics")] == [3, 6, 9, 12]
    assert lines(log, "diagnostics") == lines(expected, "diagnostics")
    for key in ("losses", "gradient_norms"):
        # Ctrl-C cuts a line in two.
        steps, others = ([value for row in lines(rows, "train") for value in row[key]] for rows in (log, expected))
        assert len(steps) == 12
        assert steps == others
    by_module, others = (
        [row["module_gradient_norms"] for row in rows if "module_gradient_norms" in row] for rows in (log, expected)
    )
    assert by_module == others


class Growing(Recall):
    """Batch i has 6 + i tokens a row up to batch 9, and fewer from there on."""

    drawn = ()

    def training_batch(self, seed, index, batch_size):
        self.drawn += (index,)
        length = 6 + min(index, 18 - index)
        return Recall(RecallSettings(length=length)).training_batch(seed, index, batch_size)


class Listening(Telling):
    """Remembers what it was shown, and in what state."""

    def __init__(self):
        self.shown = []

    def diagnose(self, model, batch):
        gradients = [parameter.grad for parameter in model.parameters()]
        flags = {module.training for module in model.modules()}
        self.shown.append((batch, flags, gradients, torch.is_autocast_enabled("cpu"), torch.is_grad_enabled()))
        return [told("certainty", 0.5)]


def listen(task, precision="fp32", plugin=None, **settings):
    """A diagnosis of a model in training; returns plugin, log and what `take` returned."""
    plugin, log = plugin or Listening(), []
    model = Neighbour().build(NeighbourSettings()).train()
    trainer = TrainerSettings(**{"batch_size": 20, **settings})
    diagnostics = Diagnostics(plugin, model, task, trainer, 3, CPU, precision, log.append)
    returned = [diagnostics.take(step) for step in (1, 2)]
    assert all(module.training for module in model.modules())
    return plugin, log, returned


def test_the_batch_is_the_longest_of_the_first_and_the_same_all_the_time():
    task = Growing(RecallSettings())
    plugin, _, _ = listen(task)
    (first, *_), (second, *_) = plugin.shown
    expected = Recall(RecallSettings(length=15)).training_batch(3, 9, 20)
    for batch in (first, second):
        torch.testing.assert_close(batch.input_ids, expected.input_ids[:16], rtol=0, atol=0)
        torch.testing.assert_close(batch.labels, expected.labels[:16], rtol=0, atol=0)
    assert len(task.drawn) == 16


def test_the_batch_has_no_more_rows_than_a_micro_batch():
    plugin, _, _ = listen(Growing(RecallSettings()), micro_batch_size=3)
    assert plugin.shown[0][0].input_ids.shape[0] == 3


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_model_is_shown_in_evaluation_mode_without_gradients_and_under_the_runs_precision(precision):
    plugin, _, _ = listen(Recall(RecallSettings()), precision)
    _, flags, gradients, autocast, differentiates = plugin.shown[0]
    assert flags == {False}
    assert gradients == [None] * 5
    assert autocast == (precision == "bf16")
    assert differentiates


def test_a_plugin_that_tells_nothing_of_its_inside_costs_no_batch():
    task = Growing(RecallSettings())
    _, log, returned = listen(task, plugin=Silent())
    assert (task.drawn, log, returned) == ((), [], [[], []])


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("fine", "TypeError"),
        (None, "TypeError"),
        ([{"metric": "certainty", "value": 1.0}], "TypeError"),
        ([told("certainty", torch.tensor(1.0))], "metric 'certainty' needs a name, a unit and a plain number"),
        ([told("certainty", "high")], "not 'high'"),
        ([told(None, 1.0)], "metric None needs a name"),
        ([told("certainty", 1.0, level=[1, 2])], "the coordinates of metric 'certainty' are not plain"),
    ],
)
def test_an_answer_that_cannot_be_stored_is_an_error_of_the_plugin(monkeypatch, answer, message):
    monkeypatch.setattr(Rambling, "answer", answer)
    _, log, returned = listen(Recall(RecallSettings()), plugin=Rambling())
    assert [row["kind"] for row in log] == ["diagnostics-error"] * 2
    assert message in log[0]["message"]
    assert returned == [[], []]


def test_measurements_are_stored_as_they_are():
    _, log, [first, _] = listen(Recall(RecallSettings()))
    assert log[0] == finite({"kind": "diagnostics", "step": 1, "measurements": first})
    assert first == [
        {"metric": "certainty", "value": 0.5, "unit": "fraction", "n": 4, "split": "training", "coordinates": {}}
    ]
