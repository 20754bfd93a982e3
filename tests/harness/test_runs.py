"""`bench runs`: what a store holds, and taking things out of it."""

import signal
import time
from pathlib import Path

import pytest
from command_line import TOY, Bench

RUN = ("run", *TOY, "--runs", "store")


@pytest.fixture(scope="module")
def store(bench: Bench) -> Path:
    """A complete run, its ablation, and a failed run."""
    bench(*RUN)
    bench(*RUN, "--ablate", "no-dropout", "--seed", "3")
    bench("run", "--model", "toy_model:RaisesInForward", "--task", TOY[3], "--runs", "store")
    return bench.folder / "store"


def listed(bench: Bench, *arguments: str) -> list[dict]:
    finished = bench("runs", "--runs", "store", "--json", *arguments)
    assert finished.code == 0, finished.err
    return finished.json


def test_every_run_is_listed_with_state_and_progress(bench: Bench, store: Path) -> None:
    rows = {(row["model"], row["seed"]): row for row in listed(bench)}
    whole = rows["toy_model:Neighbour", 0]
    assert (whole["state"], whole["step"], whole["steps"]) == ("complete", 12, 12)
    assert whole["detail"].startswith("accuracy 0.")
    assert rows["toy_model:Neighbour (no-dropout)", 3]["state"] == "complete"
    failed = rows["toy_model:RaisesInForward", 0]
    assert (failed["state"], failed["detail"]) == ("failed", "error")
    shown = bench("runs", "--runs", "store").out
    assert "3 runs" in shown and whole["hash"] in shown


def test_runs_are_found_by_model_task_state_and_hash(bench: Bench, store: Path) -> None:
    assert len(listed(bench, "--model", "toy_model:Neighbour")) == 2
    assert len(listed(bench, "--model", "toy_model:Neighbour (no-dropout)")) == 1
    assert len(listed(bench, "--state", "failed")) == 1
    assert len(listed(bench, "--task", "toy_task:Recall")) == 3
    assert listed(bench, "--task", "nothing") == []
    [one] = listed(bench, "--state", "failed")
    assert listed(bench, "--hash", one["hash"][:4]) == [one]


def test_a_run_at_work_and_one_that_was_killed_are_told_apart_and_the_former_is_not_removed(bench: Bench) -> None:
    process = bench.start("run", *TOY, "--runs", "busy", "--set", "steps=100000", "--set", "checkpoint_interval=5")
    busy = ("runs", "--runs", "busy", "--json")
    for _ in range(600):
        if list(bench.folder.glob("busy/*/*/checkpoints/step-*")):
            break
        time.sleep(0.1)
    [row] = bench(*busy).json
    assert row["state"] == "running" and 0 < row["step"] < row["steps"] == 100000
    refused = bench(*busy, "--remove", "--yes")
    assert refused.code == 2 and "is running; stop it first" in refused.err
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert bench(*busy).json[0]["state"] == "unfinished"
    assert bench(*busy, "--remove", "--yes").code == 0
    assert bench(*busy).json == []
    assert not list(bench.folder.glob("busy/*/*"))


def test_removal_asks_first_and_takes_only_what_was_listed(bench: Bench) -> None:
    for seed in ("1", "2"):
        bench("run", *TOY, "--runs", "doomed", "--seed", seed)
    [first, second] = bench("runs", "--runs", "doomed", "--json").json
    declined = bench("runs", "--runs", "doomed", "--hash", first["hash"], "--remove")
    assert "delete these 1 runs?" in declined.err
    assert len(bench("runs", "--runs", "doomed", "--json").json) == 2
    bench("runs", "--runs", "doomed", "--hash", first["hash"], "--remove", "--yes")
    assert bench("runs", "--runs", "doomed", "--json").json == [second]


def test_a_damaged_run_is_listed_and_hides_no_other(bench: Bench) -> None:
    bench("run", *TOY, "--runs", "damaged")
    [good] = bench("runs", "--runs", "damaged", "--json").json
    broken = bench.folder / "damaged" / "toy_task-Recall" / "broken"
    broken.mkdir()
    (broken / "run.json").write_text('{"hash"')
    rows = bench("runs", "--runs", "damaged", "--json").json
    assert [row["state"] for row in rows] == ["damaged", "complete"]
    assert "broken/run.json cannot be read" in rows[0]["detail"]
    assert rows[1] == good


def test_a_store_that_is_not_there_is_refused(bench: Bench) -> None:
    finished = bench("runs", "--runs", "nowhere")
    assert finished.code == 2
    assert "there is no folder nowhere" in finished.err
