"""`bench verify`: a reviewer tests a finished run again from its files."""

import json
import shutil
from pathlib import Path

import pytest
from command_line import TOY, Bench
from safetensors.torch import load_file, save_file
from stored_run import edit

RUN = ("run", *TOY)


@pytest.fixture(scope="module")
def finished(bench: Bench) -> Path:
    """A run that has learnt something, so that other weights measure otherwise."""
    assert bench(*RUN, "--set", "learning_rate=0.1", "--output", "finished").code == 0
    return bench.folder / "finished"


@pytest.fixture
def changed(finished: Path, tmp_path: Path) -> Path:
    """A copy of the run, to be changed."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def failing(bench: Bench, folder: Path) -> list[str]:
    verified = bench("verify", str(folder), "--json")
    assert verified.code == 1, verified.err
    return [finding["what"] for finding in verified.json if not finding["holds"]]


def test_every_figure_of_a_finished_run_holds_to_the_bit(bench: Bench, finished: Path) -> None:
    verified = bench("verify", str(finished), "--json")
    assert verified.code == 0, verified.err
    machine, *figures = verified.json
    assert machine["detail"].startswith("as then")
    assert all(figure["detail"].startswith("equal") for figure in figures)
    measured = len(bench.result("finished")["measurements"])
    assert len(figures) == measured + 4
    assert f"{measured + 5} of {measured + 5} hold" in bench("verify", str(finished)).out


def test_a_figure_that_was_changed_by_hand_does_not_hold(bench: Bench, changed: Path) -> None:
    result = json.loads((changed / "result.json").read_text())
    result["measurements"][0]["value"] += 0.5
    edit(changed / "result.json", measurements=result["measurements"])
    assert failing(bench, changed) == ["accuracy, lookback 1, reach None"]


def test_a_file_that_differs_from_its_checksum_is_named(bench: Bench, changed: Path) -> None:
    with (changed / "items.jsonl").open("a") as items:
        items.write("{}\n")
    assert failing(bench, changed) == ["files"]
    assert "items.jsonl" in bench("verify", str(changed)).out


def test_on_another_machine_a_figure_may_differ_by_rounding_only(bench: Bench, changed: Path) -> None:
    result = json.loads((changed / "result.json").read_text())
    edit(changed / "environment.json", threads=64)
    result["measurements"][0]["value"] += 0.0005
    edit(changed / "result.json", measurements=result["measurements"])
    verified = bench("verify", str(changed), "--json")
    assert verified.code == 0
    assert "threads 64, now 1" in verified.json[0]["detail"]
    result["measurements"][0]["value"] += 0.1
    edit(changed / "result.json", measurements=result["measurements"])
    assert failing(bench, changed) == ["accuracy, lookback 1, reach None"]


def test_other_weights_do_not_give_the_figures(bench: Bench, changed: Path) -> None:
    path = changed / "model" / "model.safetensors"
    tensors = {name: tensor.flip(0).contiguous() for name, tensor in load_file(path).items()}
    save_file(tensors, path, metadata={"format": "pt"})
    assert any("accuracy" in what for what in failing(bench, changed))


def test_another_stream_of_data_is_noticed(bench: Bench, changed: Path) -> None:
    edit(changed / "result.json", data_order_sha256="0" * 64)
    assert failing(bench, changed) == ["order of the training data"]


def test_an_ablation_at_evaluation_is_verified_with_the_weights_of_the_run_that_trained_it(bench: Bench) -> None:
    bench(*RUN, "--runs", "store", "--ablate", "deaf@eval", "--output", "deaf")
    assert bench("verify", "deaf", "--runs", "store").code == 0
    assert bench("verify", "deaf", "--runs", "elsewhere").code == 2


def test_a_changed_request_other_versions_and_unfinished_runs_are_refused(bench: Bench, changed: Path) -> None:
    run = json.loads((changed / "run.json").read_text())
    cases = {"was changed": {**run, "identity": {**run["identity"], "seed": 5}}}
    for message, content in cases.items():
        (changed / "run.json").write_text(json.dumps(content))
        refused = bench("verify", str(changed))
        assert refused.code == 2 and message in refused.err
    (changed / "run.json").write_text(json.dumps(run))
    (changed / "result.json").unlink()
    assert "is not finished" in bench("verify", str(changed)).err
    assert "holds no run" in bench("verify", str(changed.parent)).err


def test_a_run_of_another_version_is_refused_naming_both(bench: Bench, changed: Path) -> None:
    from seqbench.store.identity import hash_of

    run = json.loads((changed / "run.json").read_text())
    run["identity"]["task"]["version"] = "0"
    (changed / "run.json").write_text(json.dumps({**run, "hash": hash_of(run["identity"])}))
    refused = bench("verify", str(changed))
    assert refused.code == 2
    assert "was made with version 0 of task toy_task:Recall, and 1 is installed" in refused.err


def test_a_failed_run_has_no_figures(bench: Bench) -> None:
    bench("run", "--model", "toy_model:RaisesInForward", "--task", TOY[3], "--output", "failed")
    refused = bench("verify", "failed")
    assert refused.code == 2
    assert "holds a failed run (error)" in refused.err
