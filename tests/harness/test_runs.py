"""`bench runs`: what a store holds, and taking things out of it."""

import json
import os
import pty
import signal
import time
from pathlib import Path

import pytest
from command_line import TOY, Bench

RUN = ("run", *TOY, "--runs", "store")

# Larger than any process id of Linux (2^22) or macOS (99998).
NO_PROCESS = 2**22 + 1


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
    assert (whole["state"], whole["step"], whole["progress"], whole["budget"]) == ("complete", 12, 1, "12 steps")
    assert whole["detail"].startswith("accuracy 0.")
    assert rows["toy_model:Neighbour (no-dropout)", 3]["state"] == "complete"
    failed = rows["toy_model:RaisesInForward", 0]
    assert (failed["state"], failed["detail"]) == ("failed", "error")
    shown = bench("runs", "--runs", "store").out
    assert "3 runs" in shown and whole["hash"] in shown and "100% of 12 steps" in shown


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
    for _ in range(3000):
        if list(bench.folder.glob("busy/*/*/checkpoints/step-*")):
            break
        time.sleep(0.1)
    [row] = bench(*busy).json
    assert row["state"] == "running" and 0 < row["step"] < 100000 and 0 < row["progress"] < 1
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
    command = ("runs", "--runs", "doomed", "--hash", first["hash"], "--remove")
    code, err = on_a_terminal(bench, *command, typed="n\n")
    assert code == 0 and "delete 1 run?" in err and "nothing removed" in err
    # Ctrl-D.
    code, err = on_a_terminal(bench, *command, typed="\x04")
    assert code == 1 and "nothing was done" in err and "Aborted" not in err
    assert len(bench("runs", "--runs", "doomed", "--json").json) == 2
    bench("runs", "--runs", "doomed", "--hash", first["hash"], "--remove", "--yes")
    assert bench("runs", "--runs", "doomed", "--json").json == [second]


def on_a_terminal(bench: Bench, *arguments: str, typed: str) -> tuple[int, str]:
    """Exit code and standard error of a command at whose terminal something is typed."""
    terminal, end = pty.openpty()
    process = bench.start(*arguments, stdin=end)
    os.write(terminal, typed.encode())
    _, err = process.communicate(timeout=60)
    os.close(end)
    os.close(terminal)
    return process.returncode, err


def test_where_nobody_can_be_asked_nothing_is_removed(bench: Bench) -> None:
    bench("run", *TOY, "--runs", "scripted")
    refused = bench("runs", "--runs", "scripted", "--remove")
    assert refused.code == 2
    assert "--remove asks before it deletes 1 run, and nobody is there to answer; add --yes" in refused.err
    assert len(bench("runs", "--runs", "scripted", "--json").json) == 1


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


def test_a_result_that_was_changed_is_listed_as_damaged(bench: Bench) -> None:
    bench("run", *TOY, "--runs", "changed")
    [path] = bench.folder.glob("changed/*/*/result.json")
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 1'))
    [row] = bench("runs", "--runs", "changed", "--json").json
    assert (row["state"], row["model"]) == ("damaged", "toy_model:Neighbour")
    assert "result.json cannot be read: it differs from its checksum" in row["detail"]


@pytest.mark.parametrize("content", ["[]", '{"project": "thesis"}', '{"hash": 5, "identity": {"model": []}}'])
def test_what_another_program_or_version_wrote_is_listed_and_never_removed(bench: Bench, content: str) -> None:
    folder = bench.folder / "mixed" / "task" / "foreign"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(content)
    [row] = bench("runs", "--runs", "mixed", "--json").json
    assert row["state"] == "foreign"
    refused = bench("runs", "--runs", "mixed", "--remove", "--yes")
    assert refused.code == 2
    assert "was not written by this version of bench; remove it by hand" in refused.err
    assert (folder / "run.json").read_text() == content


def test_a_removal_that_was_killed_is_finished_by_the_next_and_blocks_no_run(bench: Bench) -> None:
    """A run goes out of sight at once and is taken apart afterwards."""
    bench("run", *TOY, "--runs", "halved")
    [folder] = bench.folder.glob("halved/*/*")
    half = folder.with_name(f".{folder.name}.removed.{NO_PROCESS}.tmp")
    folder.rename(half)
    assert bench("runs", "--runs", "halved", "--json").json == []
    assert bench("run", *TOY, "--runs", "halved").code == 0
    assert list(folder.parent.iterdir()) == [folder]


@pytest.mark.slow
def test_two_comparisons_at_once_make_each_run_once(bench: Bench) -> None:
    """The second one waits for what the first one is at work on and takes its results."""
    models = "toy_model:Neighbour,toy_model:ShortSighted"
    command = ("compare", "--models", models, "--task", TOY[3], "--set", "steps=30", "--seeds", "1", "--runs", "shared")
    both = [bench.start(*command, "--output", name, TOY_PAUSE="2") for name in ("one", "other")]
    said = [process.communicate(timeout=300)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    one, other = (json.loads((bench.folder / name / "comparison.json").read_text()) for name in ("one", "other"))
    # Equal with their clocks: these are the same results, not such as were made twice.
    assert one["results"] == other["results"]
    assert all(result["status"] == "complete" for result in one["results"])
    assert "another bench process is at work on it" in "".join(said)


def test_a_store_that_is_not_there_is_refused(bench: Bench) -> None:
    finished = bench("runs", "--runs", "nowhere")
    assert finished.code == 2
    assert "there is no folder nowhere" in finished.err
