"""Tasks that read data from files, and tasks that only measure."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from command_line import Bench, Finished

from seqbench.running.trained import load_run

READING = ("run", "--model", "toy_model:Neighbour", "--task", "toy_text:Reading")
MEASURING = ("run", "--model", "toy_model:Neighbour", "--task", "toy_text:Measuring")
TEXT = "the quick brown fox\njumps over\nthe lazy dog\n"


@pytest.fixture(scope="module")
def text(bench: Bench) -> Path:
    path = bench.folder / "here.txt"
    path.write_text(TEXT)
    return path


@pytest.fixture(scope="module")
def trained(bench: Bench, text: Path) -> Path:
    done = bench(*READING, "--data", str(text), "--output", "trained")
    assert done.code == 0, done.err
    return bench.folder / "trained"


def refusal(finished: Finished) -> str:
    assert finished.code == 2, finished.err
    assert "Traceback" not in finished.err
    return finished.err


def test_an_option_of_the_task_sets_its_field_in_both_spellings(bench: Bench, text: Path) -> None:
    for spelling in (("--data", str(text)), (f"--data={text}",), ("--set", f"task.data={text}")):
        plan = bench(*READING, *spelling, "--dry-run", "--json")
        assert plan.code == 0, plan.err
        assert plan.json["task"]["data"] == str(text)


def test_an_option_that_neither_the_command_nor_the_task_has_is_refused(bench: Bench) -> None:
    assert "No such option '--dat'" in refusal(bench(*READING, "--dat", "x"))
    assert "--data" in refusal(
        bench("run", "--model", "toy_model:Neighbour", "--task", "toy_task:Recall", "--data", "x")
    )
    assert "requires an argument" in refusal(bench(*READING, "--data"))


def test_the_options_of_a_task_are_shown_with_it(bench: Bench) -> None:
    assert "--data" in bench("show", "toy_text:Reading").out


def test_data_that_is_not_there_is_refused_before_anything_starts(bench: Bench) -> None:
    assert "nowhere.txt cannot be read; name a file with --data" in refusal(bench(*READING, "--data", "nowhere.txt"))
    assert not (bench.folder / "runs").exists()


def test_the_same_data_at_another_place_is_the_same_run(bench: Bench, text: Path) -> None:
    elsewhere = bench.folder / "elsewhere.txt"
    shutil.copy(text, elsewhere)
    first = bench(*READING, "--data", str(text), "--dry-run", "--json").json["run"]
    assert bench(*READING, "--data", str(elsewhere), "--dry-run", "--json").json["run"] == first
    elsewhere.write_text(TEXT.replace("fox", "cat"))
    assert bench(*READING, "--data", str(elsewhere), "--dry-run", "--json").json["run"] != first


def test_a_published_score_stands_beside_ours(bench: Bench, trained: Path) -> None:
    shown = bench("show", str(trained)).out
    assert "published: loss 0.5, Scribe, 1M (arXiv 0000.00000, table 1)" in shown


def test_a_run_is_verified_on_the_data_that_it_was_made_with(bench: Bench, trained: Path, tmp_path: Path) -> None:
    assert bench("verify", str(trained)).code == 0
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    moved = json.loads((run / "run.json").read_text())
    moved["locations"]["data"] = str(tmp_path / "other.txt")
    (run / "run.json").write_text(json.dumps(moved))
    assert "other.txt cannot be read" in refusal(bench("verify", str(run)))
    (tmp_path / "other.txt").write_text(TEXT + "more\n")
    assert "is not what the run was made with" in refusal(bench("verify", str(run)))


def test_the_model_of_a_run_is_loaded_also_when_its_data_has_moved(trained: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    stored = json.loads((run / "run.json").read_text())
    stored["locations"]["data"] = str(tmp_path / "nowhere.txt")
    (run / "run.json").write_text(json.dumps(stored))
    loaded = load_run(run)
    logits = loaded.predictor.logits(torch.zeros(1, 3, dtype=torch.int64))
    assert logits.shape == (1, 3, 128)
    assert loaded.tokenizer is None


def test_a_task_that_only_measures_refuses_random_weights(bench: Bench, text: Path) -> None:
    assert "would have random weights; name a trained one with --init" in refusal(
        bench(*MEASURING, "--data", str(text))
    )


def test_a_task_that_only_measures_refuses_what_concerns_training(bench: Bench, text: Path, trained: Path) -> None:
    measuring = (*MEASURING, "--data", str(text), "--init", str(trained))
    assert "leave --set steps out" in refusal(bench(*measuring, "--set", "steps=5"))
    assert "leave --tokens out" in refusal(bench(*measuring, "--tokens", "1k"))


def test_a_task_that_only_measures_gives_the_figures_of_the_trained_model(
    bench: Bench, text: Path, trained: Path
) -> None:
    measuring = (*MEASURING, "--data", str(text), "--init", str(trained))
    assert bench(*measuring, "--dry-run").code == 0
    done = bench(*measuring, "--json")
    assert done.code == 0, done.err
    assert done.json["measurements"] == bench.result("trained")["measurements"]
    assert (done.json["steps"], done.json["tokens"]) == (0, 0)


def test_an_interrupted_evaluation_goes_on_behind_the_parts_that_it_has(
    bench: Bench, text: Path, trained: Path
) -> None:
    seen = bench.folder / "seen.txt"
    command = (*READING, "--data", str(text), "--output", "killed")
    assert bench(*command, TOY_KILL="2", TOY_SEEN=str(seen)).code != 0
    assert seen.read_text().split() == ["0", "1"]
    again = bench(*command, TOY_SEEN=str(seen))
    assert again.code == 0, again.err
    assert seen.read_text().split() == ["0", "1", "2"]
    assert bench.result("killed")["measurements"] == bench.result("trained")["measurements"]
    assert not (bench.folder / "killed" / "evaluation.jsonl").exists()
