"""A run that is killed, interrupted or simply asked for again ends with the same bits as one that was left alone."""

import os
import signal
import subprocess
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
    "by termination in an evaluation": "SIGTERM@validation:2",
    "by a closed terminal after the last step": "SIGHUP@train:11",
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


@pytest.mark.parametrize(
    ("place", "code", "step"),
    [
        ("by ctrl-c", 130, 6),
        ("by ctrl-c in an evaluation", 130, 4),
        ("by termination", 143, 6),
        ("by termination in an evaluation", 143, 8),
        ("by a closed terminal after the last step", 129, 12),
    ],
)
def test_an_interrupted_command_saves_the_step_that_it_was_at(outcomes, place, code, step):
    first, again = outcomes[place, "muon"]
    assert (first.code, first.out) == (code, "")
    assert f", saved in {place}-muon at step {step}; to go on, type: bench run " in first.err
    assert f"continues from step {step}" in again.err
    assert "Traceback" not in first.err


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


def damage(path):
    """One bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damaged", [1, 2])
def test_a_damaged_checkpoint_is_set_aside_and_the_run_ends_with_the_same_bits(bench, outcomes, damaged):
    """It goes on from the checkpoint before it, or begins again when there is none."""
    name = f"damaged-{damaged}"
    command = ("run", *TOY, "--set", "optimizer=muon", "--output", name)
    bench(*command, TOY_SIGNAL="SIGKILL@train:10")
    checkpoints = bench.folder / name / "checkpoints"
    for step in (8, 4)[:damaged]:
        damage(checkpoints / f"step-{step:08d}" / "model.safetensors")
    again = bench(*command)
    assert again.code == 0, again.err
    assert "step-00000008/model.safetensors is damaged (it differs from its checksum)" in again.err
    assert ("continues from step 4" in again.err) == (damaged == 1)
    assert (checkpoints / "step-00000008.corrupt-1").is_dir()
    [never] = outcomes["never", "muon"]
    assert without_clocks(bench.result(name)) == without_clocks(never.json)
    assert weights(bench, name) == weights(bench, "never-muon")
    assert [row["step"] for row in bench.log(name)] == [row["step"] for row in bench.log("never-muon")]


@pytest.mark.parametrize("name", ["result.json", "items.jsonl", "model/model.safetensors"])
def test_a_damaged_file_of_a_finished_run_is_made_again_from_the_last_checkpoint(bench, name):
    command = ("run", *TOY, "--seed", "5", "--output", "finished")
    first = bench(*command)
    path = bench.folder / "finished" / name
    whole = path.read_bytes()
    damage(path)
    again = bench(*command)
    assert (again.code, again.out) == (0, first.out)
    assert f"{name} is damaged (it differs from its checksum)" in again.err
    assert "continues from step 12" in again.err
    assert path.read_bytes() == whole or name == "result.json"
    assert bench(*command).err == ""


def test_an_ablation_at_evaluation_tests_no_damaged_weights(bench):
    whole, ablated = ("run", *TOY, "--runs", "store"), ("run", *TOY, "--runs", "store", "--ablate", "deaf@eval")
    bench(*whole)
    [path] = bench.folder.glob("store/*/*/model/model.safetensors")
    sound = path.read_bytes()
    damage(path)
    finished = bench(*ablated)
    assert finished.code == 0, finished.err
    assert "model.safetensors is damaged" in finished.err
    assert path.read_bytes() == sound


@pytest.mark.parametrize("inner", ["", "model"])
def test_a_run_does_not_start_from_damaged_weights_of_another(bench, inner):
    bench("run", *TOY, "--output", f"source{inner}")
    damage(bench.folder / f"source{inner}" / "model" / "model.safetensors")
    refused = bench("run", *TOY, "--init", str(bench.folder / f"source{inner}" / inner), "--output", "started")
    assert refused.code == 2
    assert "model.safetensors cannot be read: it differs from its checksum" in refused.err
    assert not (bench.folder / "started").exists()


@pytest.fixture
def small_disk(bench):
    """A file system of its own with hardly any room."""
    place = bench.folder / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(place)]
    mounted = subprocess.run(mount, capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_full_disk_is_told_and_loses_no_checkpoint(bench, small_disk):
    """A real one: the first checkpoint finds room and the second does not."""
    command = ("run", *TOY, "--set", "model.width=64", "--output", "small/run")
    full = bench(*command)
    assert full.code == 1
    assert "the disk takes nothing more (" in full.err
    assert "No space left on device" in full.err
    assert "Traceback" not in full.out + full.err
    assert [path.name for path in (small_disk / "run" / "checkpoints").iterdir()] == ["step-00000004"]
    assert not (small_disk / "run" / "result.json").exists()
    subprocess.run(["mount", "-o", "remount,size=8m", small_disk], check=True)
    again = bench(*command)
    assert again.code == 0, again.err
    assert "continues from step 4" in again.err
    bench(*command[:-1], "roomy")
    assert weights(bench, "small/run") == weights(bench, "roomy")
    assert without_clocks(bench.result("small/run")) == without_clocks(bench.result("roomy"))


def test_a_checkpoint_that_is_larger_than_allowed_is_told_and_costs_no_other(bench):
    """Where no file system can be mounted: a limit to the size of files, as a quota sets it."""
    command = ("run", *TOY, "--set", "model.width=64", "--output", "limited")
    bench(*command, TOY_SIGNAL="SIGKILL@train:6")
    full = bench(*command, TOY_LARGEST_FILE="20000")
    assert full.code == 1
    assert "the disk takes nothing more (" in full.err
    assert "File too large" in full.err
    assert "Traceback" not in full.out + full.err
    assert [path.name for path in (bench.folder / "limited" / "checkpoints").iterdir()] == ["step-00000004"]
    again = bench(*command)
    assert again.code == 0
    assert "continues from step 4" in again.err
