"""A run that is killed, interrupted or simply asked for again ends with the same bits as one that was left alone."""

import os
import signal
import time

import pytest
from command_line import TOY

PLACES = {
    "between checkpoints": "SIGKILL@train:6",
    "before the first checkpoint": "SIGKILL@train:2",
    "at a checkpoint": "SIGKILL@train:8",
    "in an evaluation": "SIGKILL@validation:2",
    "in the final test": "SIGKILL@test:1",
    "by ctrl-c": "SIGINT@train:5",
    "by ctrl-c in an evaluation": "SIGINT@validation:1",
    "by termination": "SIGTERM@train:5",
}
OPTIMIZERS = ("adamw", "muon")


@pytest.fixture(scope="module")
def outcomes(bench):
    """Place -> what the stopped command and the same command again did; "never" is the run that was left alone."""
    finished = {}
    for place, signals in {"never": None, **PLACES}.items():
        # Muon comes with an AdamW beside it, so one place is enough for AdamW alone.
        for optimizer in OPTIMIZERS if place in ("never", "between checkpoints") else ("muon",):
            command = ("run", *TOY, "--json", "--set", f"optimizer={optimizer}", "--output", f"{place}-{optimizer}")
            first = [bench(*command, TOY_SIGNAL=signals)] if signals else []
            finished[place, optimizer] = [*first, bench(*command)]
    return finished


@pytest.fixture(params=[(place, "muon") for place in PLACES] + [("between checkpoints", "adamw")], ids="-".join)
def stopped(request):
    return request.param


def without_clocks(result):
    return {key: value for key, value in result.items() if key not in ("seconds", "wall_seconds", "finished")}


def weights(bench, folder):
    return (bench.folder / folder / "model" / "model.safetensors").read_bytes()


def test_the_result_is_that_of_an_uninterrupted_run(bench, outcomes, stopped):
    place, optimizer = stopped
    first, again = outcomes[stopped]
    assert first.code != 0
    assert again.code == 0, again.err
    [never] = outcomes["never", optimizer]
    assert without_clocks(again.json) == without_clocks(never.json)
    assert again.json == bench.result(f"{place}-{optimizer}")


def test_the_weights_are_those_of_an_uninterrupted_run(bench, outcomes, stopped):
    assert outcomes[stopped]
    place, optimizer = stopped
    assert weights(bench, f"{place}-{optimizer}") == weights(bench, f"never-{optimizer}")
    assert weights(bench, "never-muon") != weights(bench, "never-adamw")


def test_the_log_has_each_step_once(bench, outcomes, stopped):
    place, optimizer = stopped
    assert outcomes[stopped]
    log, expected = bench.log(f"{place}-{optimizer}"), bench.log(f"never-{optimizer}")
    steps = [row["step"] for row in log if row["kind"] == "train"]
    assert steps == sorted(set(steps))
    assert steps[-1] == 12
    evaluations = [[row for row in rows if row["kind"] == "evaluation"] for rows in (log, expected)]
    assert evaluations[0] == evaluations[1]
    if not place.startswith("by"):
        # A line more stands where ctrl-c cut an interval in two.
        told = [[(row["step"], row.get("loss"), row.get("tokens")) for row in rows] for rows in (log, expected)]
        assert told[0] == told[1]


def test_only_missing_work_is_done(outcomes):
    _, again = outcomes["between checkpoints", "muon"]
    assert "continues from step 4" in again.err
    _, again = outcomes["before the first checkpoint", "muon"]
    assert "continues" not in again.err
    _, again = outcomes["in the final test", "muon"]
    assert "continues from step 12" in again.err
    assert "validation" not in again.err


@pytest.mark.parametrize("place", ["by ctrl-c", "by ctrl-c in an evaluation", "by termination"])
def test_an_interrupted_command_saves_and_says_how_to_go_on(outcomes, place):
    first, _ = outcomes[place, "muon"]
    assert first.code == 130
    assert first.out == ""
    assert f"stopped and saved in {place}-muon; the same command goes on from there" in first.err
    assert "Traceback" not in first.err


def test_an_interrupted_run_loses_no_step(outcomes):
    _, again = outcomes["by ctrl-c", "muon"]
    assert "continues from step 6" in again.err


def test_the_same_command_again_trains_nothing_and_prints_the_same(bench, outcomes):
    [never] = outcomes["never", "adamw"]
    command = ("run", *TOY, "--set", "optimizer=adamw", "--output", "never-adamw")
    before = {path: path.stat().st_mtime_ns for path in (bench.folder / "never-adamw").rglob("*.json*")}
    # A batch that were made now would kill the process.
    as_json = bench(*command, "--json", TOY_SIGNAL="SIGKILL@train:0")
    as_table = bench(*command, TOY_SIGNAL="SIGKILL@test:1")
    assert (as_json.code, as_json.out, as_json.err) == (0, never.out, "")
    assert as_table.code == 0
    assert f"{never.json['measurements'][-1]['value']:.3f}" in as_table.out
    assert before == {path: path.stat().st_mtime_ns for path in (bench.folder / "never-adamw").rglob("*.json*")}


def test_a_run_killed_from_outside_goes_on(bench):
    """With real processes, a real signal, and at whatever instruction it comes."""
    command = ("run", *TOY, "--json", "--set", "steps=60", "--output", "outside")
    process = bench.start(*command, TOY_PAUSE="1")
    checkpoints = bench.folder / "outside" / "checkpoints"
    deadline = time.monotonic() + 120
    while not list(checkpoints.glob("step-*")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    refused = bench(*command)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert refused.code == 2
    assert "another bench process is at work on outside" in refused.err
    again, alone = bench(*command), bench(*command[:-1], "alone")
    assert "continues from step" in again.err
    assert without_clocks(again.json) == without_clocks(alone.json)
    assert weights(bench, "outside") == weights(bench, "alone")


def test_a_damaged_checkpoint_is_a_failed_result_and_can_be_removed(bench):
    command = ("run", *TOY, "--output", "damaged")
    bench(*command, TOY_SIGNAL="SIGKILL@train:6")
    [checkpoint] = (bench.folder / "damaged" / "checkpoints").iterdir()
    (checkpoint / "model.safetensors").write_bytes(b"nothing")
    failed = bench(*command)
    assert failed.code == 1
    assert "corrupt-checkpoint" in failed.out
    assert "Traceback" not in failed.out + failed.err
    for path in checkpoint.iterdir():
        path.unlink()
    checkpoint.rmdir()
    assert bench(*command).out == failed.out
    assert bench(*command, "--retry-failed").code == 0


def test_a_full_disk_is_told_and_loses_no_checkpoint(bench):
    command = ("run", *TOY, "--set", "model.width=64", "--output", "full")
    bench(*command, TOY_SIGNAL="SIGKILL@train:6")
    full = bench(*command, TOY_LARGEST_FILE="20000")
    assert full.code == 1
    assert "Traceback" not in full.err
    assert [path.name for path in (bench.folder / "full" / "checkpoints").glob("step-*")] == ["step-00000004"]
    again = bench(*command, "--retry-failed")
    assert again.code == 0
    assert "continues from step 4" in again.err
