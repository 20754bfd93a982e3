"""What `bench` prints, where, and with which exit code."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command_line import TOY

from seqbench.cli.app import LazyGroup

RUN = ("run", *TOY)
COMPARE = ("compare", "--task", "toy_task:Recall")
COMMANDS = list(LazyGroup().list_commands(None))

# Arguments, and what the message must name.
WRONG = {
    "command": (("rnu",), "no command 'rnu'; did you mean run"),
    "option": ((*RUN, "--sed", "3"), "--sed"),
    "model": (("run", "--model", "pmnt", "--task", "copy-paste"), "did you mean pmnet"),
    "task": (("run", "--model", "pmnet", "--task", "copy-past"), "did you mean copy-paste"),
    "no model": (("run", "--task", "copy-paste"), "--model"),
    "empty model": (("run", "--model", "", "--task", "copy-paste"), "--model is empty"),
    "preset": ((*RUN, "--preset", "wid"), "did you mean wide"),
    "empty preset": ((*RUN, "--preset", ""), "--preset is empty"),
    "ablation": ((*RUN, "--ablate", "no-drop"), "did you mean no-dropout"),
    "field of the model": ((*RUN, "--set", "model.widht=3"), "did you mean width"),
    "field of the task": ((*RUN, "--set", "task.lengths=9"), "did you mean length"),
    "field of the trainer": ((*RUN, "--set", "learning_rat=1"), "did you mean learning_rate"),
    "owner": ((*RUN, "--set", "modle.width=3"), "model.FIELD"),
    "type": ((*RUN, "--set", "steps=ten"), "a whole number"),
    "range": ((*RUN, "--set", "model.dropout=1.5"), "from 0 to 0.9"),
    "nan": ((*RUN, "--set", "learning_rate=nan"), "finite"),
    "infinity": ((*RUN, "--set", "weight_decay=inf"), "finite"),
    "no equals": ((*RUN, "--set", "steps"), "KEY=VALUE"),
    "only equals": ((*RUN, "--set", "="), "KEY=VALUE"),
    "empty change": ((*RUN, "--set", ""), "--set is empty"),
    "twice": ((*RUN, "--set", "steps=5", "--set", "steps=6"), "twice"),
    "twice, spelt otherwise": ((*RUN, "--set", "steps=5", "--set", "trainer.steps=6"), "same field"),
    "seed": ((*RUN, "--seed", "-1"), "from 0 to 2,147,483,647"),
    "huge seed": ((*RUN, "--seed", "9" * 30), "from 0 to 2,147,483,647"),
    "device": ((*RUN, "--device", "cuda"), "--device cpu"),
    "precision": ((*RUN, "--precision", "fp8"), "fp32"),
    "broken plugin": (("run", "--model", "broken_on_import:Model", "--task", "copy-paste"), "libtoy.so"),
    "plugin that leaves": (("run", "--model", "exits_on_import:Model", "--task", "copy-paste"), "SystemExit"),
    "not a plugin": (("run", "--model", "os.path:join", "--task", "copy-paste"), "not a ModelPlugin"),
    "config that refuses": (("run", "--model", "toy_model:RaisesInConfig", *TOY[2:]), "reads no vocabulary"),
    "too many weights": ((*RUN, "--set", "model.width=100000000"), "smaller preset"),
    "too large a batch": ((*RUN, "--set", "batch_size=100000000000", "--set", "micro_batch_size=1"), "batch_size"),
    "too long a sequence": ((*RUN, "--set", "task.length=1000000000000"), "choose shorter sequences"),
    "unwritable output": ((*RUN, "--output", "/proc/bench/run"), "cannot write to /proc/bench/run"),
    "output below a file": ((*RUN, "--output", "file/run"), "cannot write to file/run"),
    "output with other things": ((*RUN, "--output", "foreign"), "foreign is not empty"),
    "output with another run": ((*RUN, "--seed", "5", "--output", "first"), "holds another run (toy_model:Neighbour"),
    "runs below a file": ((*RUN, "--runs", "file"), "cannot write to file"),
    "no models": ((*COMPARE, "--models", ","), "--models takes names separated by commas or spaces"),
    "a model twice": ((*COMPARE, "--models", "pmnet,pmnet"), "more than once"),
    "one wrong model": ((*COMPARE, "--models", "toy_model:Neighbour,mabma"), "did you mean mamba"),
    "no seeds": ((*COMPARE, "--models", "pmnet", "--seeds", "0"), "from 1 to 1,000"),
    "comparison below a file": ((*COMPARE, "--models", TOY[1], "--output", "file/x"), "cannot write to file/x"),
    "show nothing": (("show", "nothing-of-the-kind"), "unknown"),
    "show a folder without a run": (("show", "foreign"), "holds no run"),
    "list of something else": (("list", "kernels"), "models"),
}


@pytest.fixture(scope="module")
def first(bench):
    """A finished run, and places where nothing can be written."""
    (bench.folder / "file").write_text("")
    (bench.folder / "foreign").mkdir()
    (bench.folder / "foreign" / "notes.txt").write_text("mine")
    return bench(*RUN, "--json", "--output", "first")


def files(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_request_is_one_message_and_exit_code_2(bench, first, case):
    arguments, told = WRONG[case]
    before = files(bench.folder)
    started = time.monotonic()
    finished = bench(*arguments)
    assert finished.code == 2, finished
    assert told in finished.err
    assert finished.out == ""
    assert "Traceback" not in finished.err
    assert re.match(r"bench: |Usage: |Error: ", finished.err)
    assert len(finished.err) < 2000
    assert files(bench.folder) == before
    assert time.monotonic() - started < 60


def test_a_payload_larger_than_memory_is_refused_before_anything_is_made(bench):
    started = time.monotonic()
    finished = bench("run", "--model", "pmnet", "--task", "copy-paste", "--set", "task.maximum_length=16000000")
    assert finished.code == 2
    assert re.search(r"needs about [\d.,]+ GiB of memory and [\d.]+ GiB are available\n.*choose shorter", finished.err)
    assert time.monotonic() - started < 30
    assert not list(bench.folder.glob("runs/copy-paste/*"))


def test_traceback_shows_where_a_request_was_refused(bench):
    finished = bench("run", "--model", "broken_on_import:Model", "--task", "copy-paste", "--traceback")
    assert finished.code == 2
    assert "Traceback" in finished.err
    assert "broken_on_import.py" in finished.err


def test_a_result_as_json_is_what_is_stored_and_alone_on_standard_output(bench, first):
    assert first.code == 0
    assert first.json == bench.result("first")
    assert first.json["schema"] == 1
    assert first.json["status"] == "complete"
    assert first.json["budgets"] == [{"kind": "steps", "target": 12, "achieved": 12, "deviation": 0.0}]
    assert sum(first.json["parameters"].values()) == first.json["parameters_total"] == 216
    assert {"flops", "tokens", "seconds", "state_bytes", "data_order_sha256", "confounds"} <= set(first.json)
    for measurement in first.json["measurements"]:
        assert set(measurement) == {"metric", "value", "unit", "n", "split", "coordinates"}


def test_a_run_folder_holds_everything_known_of_the_run(bench, first):
    folder = bench.folder / "first"
    run = json.loads((folder / "run.json").read_text())
    assert run["identity"]["trainer"]["steps"] == 12
    assert run["hash"] == first.json["hash"]
    environment = json.loads((folder / "environment.json").read_text())
    assert environment["threads"] == 1
    assert "torch" in environment["packages"]
    assert [json.loads(line)["index"] for line in (folder / "items.jsonl").read_text().splitlines()] == list(range(8))
    looks = [(row["split"], row["step"]) for row in bench.log("first") if row["kind"] == "evaluation"]
    assert looks == [("validation", 4), ("validation", 8), ("test", 12)]
    assert (folder / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_a_refusal_as_json_has_the_message(bench):
    finished = bench(*RUN, "--json", "--preset", "wid")
    assert finished.code == 2
    assert finished.json["status"] == "refused"
    assert "did you mean wide" in finished.json["message"]


def test_a_score_that_is_no_number_is_null_in_json_and_words_in_the_table(bench):
    command = (*RUN, "--set", "task.finite=false", "--set", "steps=4", "--output", "nan")
    assert {measurement["value"] for measurement in bench(*command, "--json").json["measurements"]} == {None}
    table = bench(*command)
    assert table.code == 0
    assert "not finite" in table.out


def test_divergence_is_a_failed_result_with_its_reason(bench):
    command = (*RUN, "--set", "learning_rate=1e36", "--set", "gradient_clip_norm=none", "--output", "diverged")
    finished = bench(*command)
    assert finished.code == 1
    assert "failed (divergence)" in finished.out
    assert "no longer finite" in finished.out
    assert "Traceback" not in finished.out + finished.err
    result = bench.result("diverged")
    assert (result["status"], result["failure"]["reason"]) == ("failed", "divergence")
    again = bench(*command, TOY_SIGNAL="SIGKILL@train:0")
    assert (again.code, again.out) == (1, finished.out)
    assert bench(*command, "--retry-failed", TOY_SIGNAL="SIGKILL@train:0").code == -9


@pytest.mark.parametrize(
    ("model", "task", "reason", "told"),
    [
        ("RunsOutOfMemory", "Recall", "out-of-memory", "also with one sequence at a time"),
        ("RaisesInForward", "Recall", "error", "ArithmeticError: the scan does not commute"),
        ("RaisesAtOnce", "Recall", "error", "not even once"),
        ("RaisesInBuild", "Recall", "error", "no such architecture"),
        ("RaisesInAccounting", "Recall", "error", "nobody counts this"),
        ("Neighbour", "RaisesInTest", "error", "the test set is gone"),
    ],
)
def test_a_plugin_that_raises_is_a_failed_result(bench, model, task, reason, told):
    output = f"{model}-{task}"
    finished = bench("run", "--model", f"toy_model:{model}", "--task", f"toy_task:{task}", "--output", output)
    assert finished.code == 1
    assert "Traceback" not in finished.out + finished.err
    assert bench.result(output)["failure"]["reason"] == reason
    assert told in bench.result(output)["failure"]["message"]
    assert (bench.folder / output / "traceback.txt").exists() == (reason == "error")


def test_a_task_without_labels_is_a_failed_result(bench):
    finished = bench(*RUN, "--set", "task.labelled=false", "--json", "--output", "unlabelled")
    assert finished.code == 1
    assert finished.json["failure"]["reason"] == "task-error"


def test_a_dry_run_prints_the_plan_and_makes_nothing(bench, first):
    before = files(bench.folder)
    text = bench(*RUN, "--dry-run")
    assert text.code == 0
    for told in ("width=8", "length=6", "steps=12", "216", "memory", "time"):
        assert told in text.out
    plan = bench(*RUN, "--dry-run", "--json").json
    assert plan["parameters_total"] == 216
    assert plan["trainer"]["steps"] == 12
    assert files(bench.folder) == before


@pytest.mark.parametrize("command", COMMANDS)
def test_help_explains_every_option(bench, command):
    help_text = bench(command, "--help").out
    parameters = LazyGroup().get_command(None, command).params
    for parameter in parameters:
        if parameter.param_type_name == "option":
            assert parameter.opts[0] in help_text
            assert parameter.help
    assert "Traceback" not in help_text


def test_the_group_lists_its_commands(bench):
    assert all(re.search(rf"^  {command} ", bench("--help").out, re.MULTILINE) for command in COMMANDS)


def test_show_describes_models_tasks_and_the_trainer(bench):
    model = bench("show", "toy_model:Neighbour").out
    for told in ("model.width", "size of everything", "216 parameters", "no-dropout", "wide"):
        assert told in model
    task = bench("show", "toy_task:Recall", "--json").json
    assert [field["key"] for field in task["fields"]][:2] == ["task.symbols", "task.length"]
    assert "longer" in task["presets"]
    trainer = {field["key"]: field for field in bench("show", "trainer", "--json").json["fields"]}
    assert trainer["micro_batch_size"]["takes"] == "a whole number, or none"


def test_show_prints_a_stored_run(bench, first):
    assert bench("show", "first", "--json").json == first.json
    assert f"{first.json['measurements'][-1]['value']:.3f}" in bench("show", "first").out


def test_a_folder_does_not_hide_a_plugin_of_its_name(bench):
    (bench.folder / "pmnet").mkdir()
    assert bench("show", "pmnet", "--json").json["name"] == "pmnet"


def test_list_names_what_is_installed(bench):
    assert "copy-paste" in bench("list", "tasks").out
    assert "pmnet" not in {row["name"] for row in bench("list", "tasks", "--json").json}
    models = {row["name"] for row in bench("list", "models", "--json").json}
    assert {"pmnet", "transformer", "sliding-window", "mamba"} <= models
    assert "paper" in bench("list", "presets").out


def test_the_console_script_is_the_same_program(tmp_path):
    """Started as users do, in a folder of their own, with a module that lies there."""
    (tmp_path / "mine.py").write_text("class Model:\n    pass\n")
    script = Path(sys.executable).with_name("bench")
    command = [script, "run", "--model", "mine:Model", "--task", "copy-paste"]
    finished = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert finished.returncode == 2
    assert finished.stderr.startswith("bench: mine:Model is not a ModelPlugin")
    assert finished.stdout == ""
