"""A model that reads the future or other rows is not scored unnoticed: refused, or marked wherever its figures are."""

import dataclasses
import io
import json

import pytest
from leaking_model import Honest
from rich.console import Console

from seqbench.comparing.grid import grid_run
from seqbench.contracts import Flops
from seqbench.planning.request import RunRequest
from seqbench.report.measurements_csv import results_csv
from seqbench.report.results import shown_names
from seqbench.report.table import comparison_report, run_report
from seqbench.running.runner import execute
from seqbench.soundness import gate
from seqbench.soundness.gate import Examination, Unsound
from seqbench.soundness.subject import RunSubject
from seqbench.soundness.verdict import CHECKS, failures


class Costly(Honest):
    """Claims the FLOPs of 30 million parameters."""

    def flops(self, config, sequence_length):
        return Flops({"all": 6 * 10**7 * sequence_length})


def request(model, **changes):
    return RunRequest(f"leaking_model:{model}", "toy_task:Recall", **changes)


def examined(model, tmp_path, **changes):
    """Clauses that fail before training."""
    return set(failures(Examination(grid_run(request(model, **changes), tmp_path).plan, None)._findings))


def run(model, runs, **changes):
    cell = grid_run(request(model, **changes), runs)
    return execute(cell.plan, cell.folder, runs)


def text_of(document):
    console = Console(file=io.StringIO(), width=200)
    console.print(document)
    return console.file.getvalue()


@pytest.mark.parametrize("model", ["Honest", "Drawing", "Declaring"])
def test_a_model_that_keeps_or_declares_the_clauses_passes(model, tmp_path):
    assert examined(model, tmp_path) == set()


@pytest.mark.parametrize(
    ("model", "clause"),
    [
        ("Peeking", "causal"),
        ("PeekingInTraining", "causal"),
        ("PeekingInEvaluation", "causal"),
        ("PeekingFaintly", "causal"),
        ("MixingRows", "rows-independent"),
        ("Remembering", "rows-independent"),
        ("SeeingPadding", "padding"),
    ],
)
def test_each_way_to_cheat_fails_its_clause(model, clause, tmp_path):
    assert clause in examined(model, tmp_path)


def test_a_leak_in_long_sequences_alone_is_found_at_the_longest_length_of_training(tmp_path):
    assert "causal" not in examined("PeekingFar", tmp_path)
    assert "causal" in examined("PeekingFar", tmp_path, changes={"task.length": "120"})


def test_the_settings_of_the_run_are_examined_those_of_an_ablation_too(tmp_path):
    assert "causal" in examined("Honest", tmp_path, changes={"model.peeks": "true"})
    assert "causal" in examined("Honest", tmp_path, ablation="peek")
    assert "causal" in examined("Honest", tmp_path, ablation="peek@eval")


def test_a_model_that_fails_is_refused_and_leaves_no_run(tmp_path):
    with pytest.raises(Unsound, match=r"(?s)fails the clause causal.*position.*bench check.*--allow-unchecked"):
        run("Peeking", tmp_path)
    assert not list(tmp_path.glob("*/*/run.json"))


def test_with_allow_unchecked_it_runs_and_every_table_says_so(tmp_path):
    honest, cheat = run("Honest", tmp_path), run("Peeking", tmp_path, allow_unchecked=True)
    assert (honest["soundness"]["state"], cheat["soundness"]["state"]) == ("sound", "unsound")
    assert shown_names([honest, cheat])["leaking_model:Peeking"].endswith("(UNSOUND)")
    both = comparison_report([honest, cheat], lambda result: None)
    for document in (run_report(cheat), both):
        for text in (text_of(document), document.markdown()):
            assert "UNSOUND, its figures say nothing: causal" in text
    assert "UNSOUND" not in text_of(run_report(honest))
    assert {line.split(",")[-2] for line in results_csv([honest, cheat]).splitlines()} == {
        "soundness",
        "sound",
        "unsound",
    }
    card = next(tmp_path.glob("*/leaking_model-Peeking-*/model/README.md"))
    assert "UNSOUND" in card.read_text()


def test_a_declared_exemption_stands_in_every_table(tmp_path):
    result = run("Declaring", tmp_path)
    assert result["soundness"]["clauses"]["padding"] == {"state": "declared", "message": "it reads rows of one length"}
    for document in (run_report(result), comparison_report([result], lambda result: None)):
        assert "does not fulfil padding, as its plugin declares: it reads rows of one length" in text_of(document)
    assert results_csv([result]).splitlines()[1].endswith(",padding")


def test_a_result_from_before_models_were_examined_is_marked(tmp_path):
    result = {key: value for key, value in run("Honest", tmp_path).items() if key != "soundness"}
    assert shown_names([result]) == {"leaking_model:Honest": "leaking_model:Honest (UNCHECKED)"}
    assert "unchecked: stored before models were examined" in text_of(run_report(result))


@pytest.mark.parametrize(("model", "clause"), [("PeekingLater", "causal"), ("MixingLater", "rows-independent")])
def test_what_a_model_does_once_it_is_trained_is_found_with_a_test_batch(model, clause, tmp_path):
    assert clause not in examined(model, tmp_path)
    result = run(model, tmp_path)
    assert (result["status"], result["failure"]["reason"]) == ("failed", "unsound")
    assert result["failure"]["message"].startswith(f"the trained model fails the clause {clause}")
    assert result["measurements"] == []
    allowed = grid_run(request(model, allow_unchecked=True), tmp_path)
    again = execute(allowed.plan, allowed.folder, tmp_path, retry_failed=True)
    assert (again["status"], again["soundness"]["state"]) == ("complete", "unsound")
    assert f"{clause} (trained)" in text_of(run_report(again))


def test_the_examination_is_made_once_for_a_model_and_again_for_other_settings(tmp_path, monkeypatch):
    made = []
    examine = gate._examine
    monkeypatch.setattr(gate, "_examine", lambda plan, config: made.append(config) or examine(plan, config))
    for changes in ({}, {"seed": 1}, {"ablation": None, "seed": 2}):
        run("Honest", tmp_path, **changes)
    assert len(made) == 1
    run("Honest", tmp_path, changes={"model.width": "6"})
    assert len(made) == 2
    # A damaged finding is none.
    path = tmp_path / CHECKS
    path.write_text(path.read_text().replace("passed", "failed", 1))
    assert run("Honest", tmp_path, seed=3)["soundness"]["state"] == "sound"
    assert len(made) == 3


def test_the_examination_changes_no_bit_of_a_run(tmp_path, monkeypatch):
    first = run("Drawing", tmp_path / "first")
    (tmp_path / "second").mkdir()
    kept = json.loads((tmp_path / "first" / CHECKS).read_text())
    cell = grid_run(request("Drawing"), tmp_path / "second")
    monkeypatch.setattr(
        gate, "_examine", lambda plan, config: {name: gate.Finding(**one) for name, one in kept["clauses"].items()}
    )
    second = execute(cell.plan, cell.folder, tmp_path / "second")
    assert first["measurements"] == second["measurements"]


def test_a_refusal_is_one_message_with_exit_code_2_for_commands_too(bench):
    refused = bench("run", "--model", "leaking_model:Peeking", "--task", "toy_task:Recall")
    assert refused.code == 2
    assert "leaking_model:Peeking fails the clause causal" in refused.err
    assert "Traceback" not in refused.err
    allowed = bench("run", "--model", "leaking_model:Peeking", "--task", "toy_task:Recall", "--allow-unchecked")
    assert allowed.code == 0
    assert "leaking_model:Peeking (UNSOUND)" in allowed.out
    stored = bench("run", "--model", "leaking_model:Peeking", "--task", "toy_task:Recall")
    assert "leaking_model:Peeking (UNSOUND)" in stored.out


def test_a_request_carries_the_flag_to_the_runs_of_a_grid():
    plain = request("Honest")
    assert "--allow-unchecked" not in plain.arguments()
    assert "--allow-unchecked" in dataclasses.replace(plain, allow_unchecked=True).arguments()


def test_the_trained_model_is_tried_on_the_longest_test_sequences_and_on_a_batch_of_training(tmp_path, monkeypatch):
    seen = []
    clauses = {"causal": lambda probe, batch: seen.append(tuple(batch.input_ids.shape))}
    monkeypatch.setattr(gate, "TRAINED_CLAUSES", clauses)
    cell = grid_run(RunRequest("leaking_model:Honest", "unready:LongTest", changes={"task.length": "9"}), tmp_path)
    execute(cell.plan, cell.folder, tmp_path)
    assert sorted(seen) == [(2, 9), (2, 9), (2, 18)]


def test_long_sequences_are_cut_to_what_a_large_model_can_be_tried_on(tmp_path):
    small = grid_run(request("Honest", changes={"task.length": "3000"}), tmp_path).plan
    assert RunSubject(small, small.model_config).affordable(3000) == 3000
    large = dataclasses.replace(small, model=Costly())
    subject = RunSubject(large, large.model_config)
    assert (subject.length, subject.affordable(3000)) == (17, 93)
