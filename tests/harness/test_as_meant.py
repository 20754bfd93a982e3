"""What people type is done as they mean it, or answered with the line to type."""

import json
import shutil
import time

import pytest
from command_line import TOY

RUN = ("run", *TOY)
MODELS = "toy_model:Neighbour,toy_model:ShortSighted"
COMPARE = ("compare", "--task", "toy_task:Recall", "--seeds", "1", "--models")


@pytest.fixture(scope="module")
def stored(bench):
    """One run in the store, and one that --output has put elsewhere."""
    inside = bench(*RUN, "--json")
    outside = bench(*RUN, "--seed", "1", "--output", "mine/first", "--json")
    assert (inside.code, outside.code) == (0, 0), (inside, outside)
    return inside.json, outside.json


def trainer(bench, *arguments):
    finished = bench(*RUN, "--dry-run", "--json", *arguments)
    assert finished.code == 0, finished
    return finished.json["trainer"], finished.err


@pytest.mark.parametrize(
    ("spelt", "meant"),
    [
        (("--set", "lr=1e-3"), ("--set", "learning_rate=0.001")),
        (("--lr", "1e-3"), ("--set", "learning_rate=0.001")),
        (("--set", "trainer.lr=1e-3"), ("--set", "learning_rate=0.001")),
        (("--steps", "9"), ("--set", "steps=9")),
        (("--steps", "1k"), ("--set", "steps=1000")),
        (("--set", "steps=1e3"), ("--set", "steps=1000")),
        (("--set", "steps=1k"), ("--set", "steps=1_000")),
        (("--steps", "1,000", "--seed", "0"), ("--steps", "1e3")),
    ],
)
def test_two_spellings_are_one_request(bench, spelt, meant):
    assert trainer(bench, *spelt)[0] == trainer(bench, *meant)[0]


def test_fewer_steps_have_a_shorter_warm_up_and_the_command_says_so(bench):
    # The preset has 2 of 12.
    settings, told = trainer(bench, "--set", "steps=6")
    assert (settings["steps"], settings["warmup_steps"]) == (6, 1)
    assert "warmup_steps is 1 for 6 steps, in proportion to 2 for 12; --set warmup_steps=N sets it" in told
    settings, told = trainer(bench, "--steps", "2")
    assert settings["warmup_steps"] == 0 and "warmup_steps is 0 for 2 steps" in told


def test_a_warm_up_that_is_given_stays_and_more_steps_leave_it_alone(bench):
    settings, told = trainer(bench, "--steps", "6", "--set", "warmup_steps=4")
    assert settings["warmup_steps"] == 4 and "warmup_steps" not in told
    settings, told = trainer(bench, "--steps", "24")
    assert settings["warmup_steps"] == 2 and "warmup_steps" not in told
    refused = bench(*RUN, "--steps", "4", "--set", "warmup_steps=4")
    assert refused.code == 2 and "warmup_steps (4) must be less than steps (4)" in refused.err


def test_the_warm_up_that_was_used_is_part_of_the_run(bench):
    short = bench(*RUN, "--steps", "6", "--json")
    assert short.code == 0, short
    (folder,) = (path.parent for path in bench.folder.glob("runs/*/*/run.json") if short.json["hash"][:8] in str(path))
    assert json.loads((folder / "run.json").read_text())["identity"]["trainer"]["warmup_steps"] == 1
    assert bench(*RUN, "--steps", "6", "--set", "warmup_steps=1", "--json").json["hash"] == short.json["hash"]


@pytest.mark.parametrize(
    "models", [(MODELS,), (MODELS.replace(",", " "),), tuple(MODELS.split(",")), (MODELS.replace(",", ", "),)]
)
def test_models_are_separated_by_commas_or_spaces(bench, models):
    plan = bench(*COMPARE, *models, "--dry-run", "--json")
    assert plan.code == 0, plan
    assert [run["model"] for run in plan.json["runs"]] == MODELS.split(",")


def test_the_plan_of_a_comparison_as_json_is_alone_on_standard_output(bench):
    plan = bench(*COMPARE, MODELS, "--steps", "7", "--dry-run", "--json").json
    assert {model["label"] for model in plan["models"]} == set(plan["to_do"]) == set(MODELS.split(","))
    assert all(run["hash"][:8] in run["folder"] for run in plan["runs"])
    searched = bench(*COMPARE, MODELS, "--search", "lr=1,2", "--dry-run", "--json").json
    assert searched["trials_to_do"] == dict.fromkeys(MODELS.split(","), 2)
    assert searched["runs"] == []
    ablated = bench(*RUN, "--ablations", "all", "--dry-run", "--json").json
    assert len(ablated["runs"]) > 1


@pytest.mark.parametrize(
    "arguments",
    [
        (*RUN, "--sed", "3"),
        (*RUN, "--seed", "1", "--seed", "2"),
        (*RUN, "--preset", "wid"),
        (*COMPARE, ","),
        ("show", "deadbeef"),
        ("verify", "deadbeef"),
        ("runs", "--runs", "nowhere"),
        ("list", "kernels"),
        ("check", "nothing-of-the-kind"),
        ("speed",),
    ],
)
def test_a_refusal_as_json_is_one_document(bench, arguments):
    finished = bench(*arguments, "--json")
    assert finished.code == 2
    assert finished.json["status"] == "refused"
    assert finished.json["message"].splitlines()[0] in finished.err


def test_a_run_is_found_by_what_bench_runs_prints(bench, stored):
    outside = stored[1]
    rows = {row["hash"]: row for row in bench("runs", "--json").json}
    for result in stored:
        row = rows[result["hash"][:8]]
        name = row["folder"].rpartition("/")[2]
        for called in (row["hash"], result["hash"], row["folder"], name):
            assert bench("show", called, "--json").json == result
        assert bench("verify", row["hash"]).code == 0
    assert rows[outside["hash"][:8]]["folder"] == "mine/first"
    assert "in mine/first" in bench("runs").out


def test_what_no_run_is_called_is_refused_with_the_command_that_lists_them(bench, stored):
    for command in ("show", "verify"):
        finished = bench(command, "deadbeef")
        assert finished.code == 2
        assert "no folder, and no hash or name of a run in runs; type bench runs" in finished.err


def test_a_hash_of_several_runs_is_refused_with_their_folders(bench, stored, tmp_path):
    copy = bench.folder / "runs" / "copies" / "again"
    shutil.copytree(bench.folder / "mine" / "first", copy)
    finished = bench("verify", stored[1]["hash"][:8])
    assert finished.code == 2
    assert "runs/copies/again" in finished.err and "mine/first" in finished.err
    shutil.rmtree(copy.parent)


def test_a_run_elsewhere_is_removed_from_the_list_too(bench, stored):
    gone = bench(*RUN, "--seed", "2", "--steps", "1", "--output", "mine/gone", "--json").json
    assert bench("runs", "--hash", gone["hash"][:8], "--remove", "--yes").code == 0
    assert not (bench.folder / "mine" / "gone").exists()
    assert len(list(bench.folder.glob("runs/.elsewhere/*.json"))) == 1


def test_a_run_without_its_weights_is_not_looked_for_on_a_hub(bench, stored):
    bare = bench.folder / "bare"
    shutil.copytree(bench.folder / "mine" / "first", bare)
    shutil.rmtree(bare / "model")
    run = json.loads((bare / "run.json").read_text())
    started = time.monotonic()
    finished = bench("verify", "bare")
    assert finished.code == 2
    assert "bare has no folder model/" in finished.err
    assert f"type bench runs --hash {run['hash'][:8]} --remove" in finished.err
    assert time.monotonic() - started < 20


# Arguments, and the line to type that the message must hold.
ANSWERED = {
    "field of the model": ((*RUN, "--set", "width=64"), "type --set model.width=64"),
    "field of the task": ((*RUN, "--set", "length=9"), "type --set task.length=9"),
    "field of the trainer": ((*RUN, "--set", "model.steps=9"), "type --set steps=9"),
    "field of the other": ((*RUN, "--set", "task.width=9"), "type --set model.width=9"),
    "in a comparison": ((*COMPARE, MODELS, "--set", "width=64"), "type --set model.width=64"),
    "several models": (
        ("run", "--task", "copy-paste", "--model", "pmnet,mamba"),
        "type: bench compare --models pmnet,mamba --task copy-paste",
    ),
    "a value of nothing": ((*RUN, "--set", "steps="), "type --set steps=VALUE, or leave it out"),
    "empty data": (("run", "--model", "pmnet", "--task", "byte-lm", "--data", ""), "--data is empty; type a value"),
    "empty store": ((*RUN, "--runs", ""), "--runs is empty; type a value"),
    "empty run": (("verify", ""), "is empty; type a value"),
    "a family of models": (("show", "hf"), "hf:<model type>, hf:<folder> or hf:<hub id>"),
}


@pytest.mark.parametrize("case", ANSWERED)
def test_what_cannot_be_meant_is_answered_with_what_to_type(bench, case):
    arguments, line = ANSWERED[case]
    finished = bench(*arguments)
    assert (finished.code, finished.out) == (2, ""), finished
    assert line in finished.err
    assert f"bench {' '.join(arguments)}" not in finished.err
