"""What is on disk: complete or absent, readable by people, and never somebody else's."""

import json
import math
import subprocess
import sys

import pytest
import torch
from toy_model import Neighbour, NeighbourSettings

from seqbench.errors import RequestError, RunFailure
from seqbench.store.files import read_json_lines, write_atomically, write_json, write_json_lines
from seqbench.store.run_folder import RunFolder
from seqbench.training.checkpoint import list_checkpoints, load_checkpoint, save_checkpoint
from seqbench.training.optimizer import build_optimizers
from seqbench.training.settings import TrainerSettings

FILES = ("state.json", "model.safetensors", "optimizers.safetensors", "random.safetensors")


def trained(optimizer="adamw", seed=0, steps=3):
    torch.manual_seed(seed)
    model = Neighbour().build(NeighbourSettings())
    optimizers = build_optimizers(model, TrainerSettings(optimizer=optimizer))
    step(model, optimizers, steps)
    return model, optimizers


def step(model, optimizers, steps=3):
    """Training steps with dropout: they depend on weights, moments and the random generator."""
    for _ in range(steps):
        model(torch.randint(8, (4, 6))).logits.square().sum().backward()
        for each in optimizers:
            each.step()
            each.zero_grad()


def equal(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_checkpoint_brings_everything_back_to_the_bit(tmp_path, optimizer):
    model, optimizers = trained(optimizer)
    path = save_checkpoint(tmp_path, 3, model, optimizers, {"tokens": 72, "seconds": 0.1})
    step(model, optimizers)
    restored, restored_optimizers = trained(optimizer, seed=1)
    torch.manual_seed(99)
    assert load_checkpoint(path, restored, restored_optimizers) == {"tokens": 72, "seconds": 0.1, "step": 3}
    assert not equal(restored, model)
    step(restored, restored_optimizers)
    assert equal(restored, model)


def test_a_tied_head_stays_tied(tmp_path):
    model, optimizers = trained()
    path = save_checkpoint(tmp_path, 3, model, optimizers, {})
    load_checkpoint(path, model, optimizers)
    assert model.lm_head.weight is model.embedding.weight


def test_a_checkpoint_is_safetensors_and_json_and_nothing_that_runs_code(tmp_path):
    path = save_checkpoint(tmp_path, 3, *trained(), {})
    assert sorted(file.name for file in path.iterdir()) == sorted(FILES)


def test_the_newest_checkpoint_replaces_the_older_and_what_a_crash_left(tmp_path):
    (tmp_path / ".step-00000002.77.tmp").mkdir()
    (tmp_path / ".step-00000002.77.tmp" / "model.safetensors").write_bytes(b"half")
    assert list_checkpoints(tmp_path) == []
    model, optimizers = trained()
    save_checkpoint(tmp_path, 3, model, optimizers, {})
    newest = save_checkpoint(tmp_path, 10, model, optimizers, {})
    assert list_checkpoints(tmp_path) == [newest]
    assert list(tmp_path.iterdir()) == [newest]


def test_the_same_checkpoint_can_be_written_again(tmp_path):
    model, optimizers = trained()
    save_checkpoint(tmp_path, 3, model, optimizers, {"tokens": 1})
    path = save_checkpoint(tmp_path, 3, model, optimizers, {"tokens": 2})
    assert load_checkpoint(path, model, optimizers)["tokens"] == 2


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["truncated", "empty", "garbage", "absent", "other"])
def test_a_damaged_checkpoint_is_one_message_that_names_the_file(tmp_path, name, damage):
    model, optimizers = trained()
    path = save_checkpoint(tmp_path, 3, model, optimizers, {})
    content = (path / name).read_bytes()
    if damage == "absent":
        (path / name).unlink()
    elif damage == "other":
        (path / name).write_bytes((path / FILES[FILES.index(name) - 1]).read_bytes() if name != FILES[0] else b"[]")
    else:
        (path / name).write_bytes({"truncated": content[:-9], "empty": b"", "garbage": b"\xff" * 99}[damage])
    with pytest.raises(RunFailure, match="cannot be read") as failure:
        load_checkpoint(path, model, optimizers)
    assert failure.value.reason == "corrupt-checkpoint"
    assert name in str(failure.value)
    assert "--retry-failed" in str(failure.value)


def test_json_has_no_nan(tmp_path):
    write_json(tmp_path / "a.json", {"values": [math.nan, 1.5, {"deep": (math.inf, -math.inf)}]})
    assert json.loads((tmp_path / "a.json").read_text()) == {"values": [None, 1.5, {"deep": [None, None]}]}


def test_a_write_that_fails_leaves_the_old_content_and_no_litter(tmp_path):
    path = tmp_path / "result.json"
    write_json(path, {"old": 1})

    def fail(temporary):
        temporary.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, fail)
    assert json.loads(path.read_text()) == {"old": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_a_last_line_that_was_cut_off_is_left_out(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write_json_lines(path, [{"step": 1}, {"step": 2}])
    path.write_text(path.read_text() + '{"step": 3, "lo')
    assert read_json_lines(path) == [{"step": 1}, {"step": 2}]


RUN = {
    "hash": "a" * 64,
    "identity": {"model": {"name": "toy"}, "task": {"name": "recall"}, "seed": 0},
}


@pytest.fixture
def folder(tmp_path):
    folder = RunFolder(tmp_path / "deep" / "run")
    folder.open(RUN, {"threads": 1})
    return folder


def log_lines(folder, *rows):
    for row in rows:
        folder.log(row)
    folder.close()


def test_a_run_folder_is_made_with_its_parents_and_entered_again(folder):
    folder.open(RUN, {"threads": 2})
    assert folder.read_run() == RUN
    assert folder.read_result() is None


def test_a_folder_with_another_run_is_refused_and_left_alone(folder):
    other = {"hash": "b" * 64, "identity": {**RUN["identity"], "seed": 7}}
    with pytest.raises(RequestError, match=r"holds another run \(toy on recall, seed 0, aaaaaaaa\), not .* seed 7"):
        folder.open(other, {})
    assert folder.read_run() == RUN


def test_a_folder_with_something_else_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("do not touch")
    folder = RunFolder(tmp_path)
    with pytest.raises(RequestError, match="is not empty and holds no run"), folder.locked():
        folder.open(RUN, {})
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("content", ["[]", "{}", '{"hash": "x"}', "not json", "", "null"])
def test_a_run_json_of_another_program_is_refused(tmp_path, content):
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(RequestError, match=r"run\.json"):
        RunFolder(tmp_path).open(RUN, {})
    assert (tmp_path / "run.json").read_text() == content


def test_a_refused_request_leaves_no_new_folder(tmp_path):
    with pytest.raises(RequestError, match="too large"), RunFolder(tmp_path / "run").locked():
        raise RequestError("too large")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("place", ["below a file", "a file", "the kernel's", "too long"])
def test_a_place_that_cannot_be_written_is_refused(tmp_path, place):
    """The tests may run with every permission: places that even then cannot be written."""
    (tmp_path / "file").write_text("")
    path = {
        "below a file": tmp_path / "file" / "run",
        "a file": tmp_path / "file",
        "the kernel's": tmp_path.__class__("/proc/run"),
        "too long": tmp_path / ("x" * 300),
    }[place]
    if place == "the kernel's" and not sys.platform.startswith("linux"):
        pytest.skip("/proc is Linux's")
    with pytest.raises(RequestError, match=r"cannot write to .*\n.*--output"), RunFolder(path).locked():
        pass
    with pytest.raises(RequestError, match=r"cannot write to|cannot be read"):
        RunFolder(path).open(RUN, {})


def test_two_processes_do_not_work_in_one_folder(folder):
    holder = (
        "import fcntl, sys; lock = open(sys.argv[1], 'a'); fcntl.flock(lock, fcntl.LOCK_EX);"
        " print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", holder, str(folder.path / ".lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(RequestError, match="another bench process is at work"), folder.locked():
            pass
        process.stdin.close()
        process.wait()
    with folder.locked():
        pass


def test_the_log_goes_back_to_the_checkpoint_that_a_run_goes_on_from(folder):
    train, evaluation = {"kind": "train"}, {"kind": "evaluation"}
    rows = [{**train, "step": 2}, {**evaluation, "step": 2}, {**train, "step": 4}, {**evaluation, "step": 4}]
    log_lines(folder, *rows, {**train, "step": 6})
    metrics = folder.path / "metrics.jsonl"
    metrics.write_text(metrics.read_text() + '{"kind": "train", "st')
    folder.rewind_metrics(4)
    # The evaluation at step 4 came after the checkpoint and will be made again.
    assert read_json_lines(metrics) == rows[:3]
    log_lines(folder, {**train, "step": 6})
    assert read_json_lines(metrics) == [*rows[:3], {**train, "step": 6}]
