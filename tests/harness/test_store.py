"""What is on disk: complete or absent, readable by people, and never somebody else's."""

import errno
import fcntl
import json
import math
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from toy_model import Neighbour, NeighbourSettings

from seqbench.errors import Busy, RequestError
from seqbench.store.checksums import checksums, damaged_files
from seqbench.store.damage import DamagedFile
from seqbench.store.files import (
    read_json_lines,
    remove_folder,
    remove_leftovers,
    write_atomically,
    write_folder_atomically,
    write_json,
    write_json_lines,
    write_text,
)
from seqbench.store.lock import acquire
from seqbench.store.repair import repair
from seqbench.store.run_folder import RunFolder
from seqbench.training.checkpoint import list_checkpoints, load_checkpoint, restore_newest, save_checkpoint
from seqbench.training.optimizer import build_optimizers
from seqbench.training.settings import TrainerSettings

FILES = ("state.json", "model.safetensors", "optimizers.safetensors", "random.safetensors")

# Larger than any process id of Linux (2^22) or macOS (99998).
NO_PROCESS = 2**22 + 1


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
    assert sorted(file.name for file in path.iterdir()) == sorted((*FILES, "SHA256SUMS"))


def test_the_newest_two_checkpoints_stay(tmp_path):
    model, optimizers = trained()
    saved = [save_checkpoint(tmp_path, step, model, optimizers, {}) for step in (3, 9, 10, 123456789)]
    assert list_checkpoints(tmp_path) == saved[-2:]
    assert sorted(tmp_path.iterdir()) == sorted(saved[-2:])


def test_what_a_crash_left_half_written_is_no_checkpoint_and_goes(tmp_path):
    (tmp_path / f".step-00000002.written.{NO_PROCESS}.tmp").mkdir()
    (tmp_path / f".step-00000002.written.{NO_PROCESS}.tmp" / "model.safetensors").write_bytes(b"half")
    (tmp_path / f".result.{NO_PROCESS}.tmp.json").write_bytes(b"half")
    (tmp_path / f".plot.{os.getppid()}.tmp.png").write_bytes(b"being drawn by another process")
    (tmp_path / ".hidden.tmp").write_text("not ours")
    assert list_checkpoints(tmp_path) == []
    remove_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".hidden.tmp", f".plot.{os.getppid()}.tmp.png"]


def test_the_same_checkpoint_can_be_written_again(tmp_path):
    model, optimizers = trained()
    save_checkpoint(tmp_path, 3, model, optimizers, {"tokens": 1})
    path = save_checkpoint(tmp_path, 3, model, optimizers, {"tokens": 2})
    assert load_checkpoint(path, model, optimizers)["tokens"] == 2


def test_a_checkpoint_that_cannot_be_written_takes_no_room_and_costs_no_older_one(tmp_path, monkeypatch):
    model, optimizers = trained()
    older = save_checkpoint(tmp_path, 3, model, optimizers, {})

    def full(path):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("seqbench.store.files.flush", full)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(tmp_path, 6, model, optimizers, {})
    assert list(tmp_path.iterdir()) == [older]


DAMAGES = {
    "truncated": lambda content: content[:-9],
    "empty": lambda content: b"",
    "garbage": lambda content: b"\xff" * 99,
    "one bit": lambda content: content[:-20] + bytes([content[-20] ^ 1]) + content[-19:],
}


@pytest.mark.parametrize("name", (*FILES, "SHA256SUMS"))
@pytest.mark.parametrize("damage", [*DAMAGES, "absent"])
def test_a_damaged_checkpoint_is_named_and_set_aside_and_the_one_before_it_is_loaded(tmp_path, capsys, name, damage):
    model, optimizers = trained()
    save_checkpoint(tmp_path, 3, model, optimizers, {"tokens": 1})
    step(model, optimizers)
    path = save_checkpoint(tmp_path, 6, model, optimizers, {"tokens": 2})
    content = (path / name).read_bytes()
    (path / name).unlink()
    if damage != "absent":
        (path / name).write_bytes(DAMAGES[damage](content))
    assert restore_newest(tmp_path, model, optimizers) == {"tokens": 1, "step": 3}
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["step-00000003", "step-00000006.corrupt-1"]
    told = capsys.readouterr().err
    assert str(path) in told and "set aside as step-00000006.corrupt-1" in told
    # A flipped bit in a checksum accuses the file that it belongs to.
    assert name in told or name == "SHA256SUMS"


def test_nothing_is_loaded_of_damaged_checkpoints(tmp_path):
    """Not even the files that are whole: with no checkpoint left the run begins as if there had been none."""
    model, optimizers = trained()
    path = save_checkpoint(tmp_path, 3, model, optimizers, {})
    (path / "optimizers.safetensors").write_bytes(b"")
    fresh, fresh_optimizers = trained(seed=1, steps=0)
    untouched, _ = trained(seed=1, steps=0)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    assert restore_newest(tmp_path, fresh, fresh_optimizers) is None
    assert equal(fresh, untouched)
    assert torch.equal(torch.get_rng_state(), before)


def test_what_is_set_aside_is_never_overwritten(tmp_path):
    model, optimizers = trained()
    for number in (1, 2):
        path = save_checkpoint(tmp_path, 3, model, optimizers, {"tokens": number})
        (path / "SHA256SUMS").write_text("")
        assert restore_newest(tmp_path, model, optimizers) is None
    kept = [json.loads((tmp_path / f"step-00000003.corrupt-{n}" / "state.json").read_text()) for n in (1, 2)]
    assert [content["state"]["tokens"] for content in kept] == [1, 2]


def resigned(path, **changes):
    """A checkpoint whose state says something else, with checksums that hold."""
    state = json.loads((path / "state.json").read_text())
    (path / "state.json").write_text(json.dumps({**state, **changes}))
    (path / "SHA256SUMS").write_text(checksums(path, FILES))


def test_a_checkpoint_of_a_newer_version_is_refused_and_stays(tmp_path):
    model, optimizers = trained()
    path = save_checkpoint(tmp_path, 3, model, optimizers, {})
    resigned(path, schema=99)
    with pytest.raises(RequestError, match="has schema 99 and this version of seqbench knows 1"):
        restore_newest(tmp_path, model, optimizers)
    assert list_checkpoints(tmp_path) == [path]


def test_a_checkpoint_of_another_model_is_refused_and_stays(tmp_path):
    path = save_checkpoint(tmp_path, 3, *trained(), {})
    other = Neighbour().build(NeighbourSettings(width=12))
    with pytest.raises(RequestError, match=r"model\.safetensors is whole and does not fit(.|\n)*version"):
        restore_newest(tmp_path, other, build_optimizers(other, TrainerSettings()))
    assert list_checkpoints(tmp_path) == [path]


def test_checksums_are_in_the_format_of_sha256sum(tmp_path):
    path = save_checkpoint(tmp_path, 3, *trained(), {})
    if shutil.which("sha256sum") is None:
        pytest.skip("there is no sha256sum here")
    checked = subprocess.run(["sha256sum", "--check", "SHA256SUMS"], cwd=path, capture_output=True, text=True)
    assert (checked.returncode, checked.stdout.count(": OK")) == (0, len(FILES))


def test_checksums_that_lead_out_of_the_folder_are_not_followed(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "thesis.tex").write_text("do not touch")
    for name in ("../thesis.tex", str(tmp_path / "thesis.tex")):
        (tmp_path / "run" / "SHA256SUMS").write_text(f"{'0' * 64}  {name}\n")
        [damage] = damaged_files(tmp_path / "run", ())
        assert damage.path == tmp_path / "run" / "SHA256SUMS"


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


def test_a_line_in_the_middle_that_is_no_json_is_named(tmp_path):
    path = tmp_path / "items.jsonl"
    path.write_text('{"index": 0}\n{"index": \n{"index": 2}\n')
    with pytest.raises(DamagedFile, match=r"items\.jsonl cannot be read: line 2"):
        read_json_lines(path)


def test_a_folder_is_replaced_as_a_whole_or_not_at_all(tmp_path):
    path = tmp_path / "model"
    write_folder_atomically(path, lambda folder: (folder / "old").write_text("old"))

    def fail(folder):
        (folder / "new").write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_folder_atomically(path, fail)
    assert [entry.name for entry in path.iterdir()] == ["old"]
    write_folder_atomically(path, lambda folder: (folder / "new").write_text("new"))
    assert [entry.name for entry in path.iterdir()] == ["new"]
    assert list(tmp_path.iterdir()) == [path]


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


def test_whoever_only_looks_refuses_nobody(folder):
    """`bench runs` asks whether a run is at work by holding its lock for a moment."""
    lock = (folder.path / ".lock").open("a")
    fcntl.flock(lock, fcntl.LOCK_SH)
    threading.Timer(0.2, lock.close).start()
    with folder.locked():
        assert lock.closed


def test_a_lock_ends_with_its_process_also_by_kill_9(folder):
    holder = (
        "import sys; from pathlib import Path; from seqbench.store.lock import acquire;"
        " lock = acquire(Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", holder, str(folder.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        assert folder.is_locked()
        process.kill()
        process.wait()
    assert not folder.is_locked()
    with folder.locked():
        assert folder.is_locked()


def test_a_lock_on_a_folder_that_was_removed_and_made_again_is_no_lock(tmp_path):
    """Who waited for the old folder's lock must not work beside who has the new folder's."""
    folder = RunFolder(tmp_path / "run")
    folder.open(RUN, {})
    waiting = threading.Thread(target=lambda: held.append(acquire(folder.path)))
    held = []
    with folder.locked():
        waiting.start()
        time.sleep(0.1)
        remove_folder(folder.path)
    waiting.join()
    assert folder.is_locked()
    with pytest.raises(Busy), folder.locked():
        pass
    held[0].close()


RESULT = {"schema": 1, "status": "complete", "model": {}, "task": {}, "value": 0.123456789}


@pytest.fixture
def finished(folder):
    """A run with everything that a result rests on."""
    log_lines(folder, {"kind": "train", "step": 1, "loss": 2.5}, {"kind": "train", "step": 2, "loss": 1.5})
    write_json_lines(folder.items, [{"index": 0, "accuracy": 1.0}])
    write_folder_atomically(folder.model, lambda path: (path / "model.safetensors").write_bytes(b"w" * 100))
    (folder.model / "README.md").write_text("about the model")
    folder.write_result(RESULT)
    return folder


def everything(folder):
    return {str(path): path.read_bytes() for path in folder.path.rglob("*") if path.is_file()}


def test_a_sound_run_is_left_as_it_is(finished, capsys):
    before = everything(finished)
    repair(finished, RUN)
    assert finished.finished_result(RUN["hash"]) == RESULT
    assert everything(finished) == before
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("name", ["result.json", "items.jsonl", "model/model.safetensors", "SHA256SUMS"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_named_and_set_aside_and_its_result_is_no_longer_shown(finished, capsys, name, damage):
    path = finished.path / name
    content = DAMAGES[damage](path.read_bytes())
    path.write_bytes(content)
    before = everything(finished)
    if name in ("result.json", "items.jsonl"):
        assert finished.finished_result(RUN["hash"]) is None
    assert everything(finished) == before
    repair(finished, RUN)
    told = capsys.readouterr().err
    aside = Path(f"{finished.path / name.partition('/')[0]}.corrupt-1") / name.partition("/")[2]
    if (name, damage) != ("SHA256SUMS", "one bit"):
        assert f"{path} is damaged" in told
        assert aside.read_bytes() == content
        assert not path.exists()
    assert "set aside as" in told
    assert finished.read_result() is None
    repair(finished, RUN)
    assert capsys.readouterr().err == ""


def test_a_bit_of_a_request_that_has_changed_is_noticed_and_mended(folder, capsys):
    path = folder.path / "run.json"
    whole = path.read_bytes()
    for damage in (b"", b"\0" * 50, whole[:-9], whole.replace(b'"seed": 0', b'"seed": 1'), whole.replace(b"aa", b"ab")):
        path.write_bytes(damage)
        repair(folder, RUN)
        assert path.read_bytes() == whole
        assert "run.json is damaged" in capsys.readouterr().err
    assert len(list(folder.path.glob("run.json.corrupt-*"))) == 5


def test_a_request_is_mended_also_after_a_crash_in_between_and_never_for_another_run(folder):
    other = {"hash": "b" * 64, "identity": {**RUN["identity"], "seed": 7}}
    (folder.path / "run.json").write_bytes(b"")
    with pytest.raises(DamagedFile):
        repair(folder, other)
    (folder.path / "run.json").unlink()
    repair(folder, other)
    assert folder.read_run() is None
    repair(folder, RUN)
    assert folder.read_run() == RUN


def test_a_damaged_environment_is_set_aside_and_written_again(folder, capsys):
    (folder.path / "environment.json").write_bytes(b"\xff")
    repair(folder, RUN)
    assert "environment.json is damaged" in capsys.readouterr().err
    folder.open(RUN, {"threads": 3})
    assert folder.read_environment() == {"run": RUN["hash"], "threads": 3}


def test_a_damaged_line_of_the_log_is_left_out_and_costs_no_training(finished, capsys):
    content = finished.metrics.read_bytes()
    finished.metrics.write_bytes(content.replace(b'{"kind": "train", "step": 1', b'{"ki\0d": "train", "step": 1'))
    repair(finished, RUN)
    assert "metrics.jsonl is damaged (line 1 cannot be read; left out)" in capsys.readouterr().err
    assert [row["step"] for row in read_json_lines(finished.metrics)] == [2]
    assert (finished.path / "metrics.jsonl.corrupt-1").exists()
    assert finished.finished_result(RUN["hash"]) == RESULT


def test_what_people_change_or_take_away_is_not_damaged(finished, capsys):
    (finished.model / "README.md").write_text("my own words")
    repair(finished, RUN)
    shutil.rmtree(finished.model)
    finished.items.unlink()
    repair(finished, RUN)
    assert finished.finished_result(RUN["hash"]) == RESULT
    assert capsys.readouterr().err == ""


def test_a_result_of_a_newer_version_is_refused_and_stays(finished):
    path = finished.path / "result.json"
    (finished.path / "SHA256SUMS").unlink()
    path.write_text(path.read_text().replace('"schema": 1', '"schema": 2'))
    with pytest.raises(RequestError, match="has schema 2 and this version of seqbench knows 1; install the version"):
        repair(finished, RUN)
    assert path.exists()


def test_the_folder_of_another_run_or_program_is_not_repaired(finished, tmp_path):
    other = {"hash": "b" * 64, "identity": {**RUN["identity"], "seed": 7}}
    finished.items.write_bytes(b"")
    before = everything(finished)
    repair(finished, other)
    assert everything(finished) == before
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "thesis.tex").write_text("do not touch")
    (tmp_path / "foreign" / f".a.{NO_PROCESS}.tmp").write_text("nor this")
    repair(RunFolder(tmp_path / "foreign"), RUN)
    assert len(list((tmp_path / "foreign").iterdir())) == 2


def test_a_crash_between_checksums_and_result_accuses_no_file(folder, monkeypatch, capsys):
    """A run that failed is tried again, and the new result does not find room."""
    folder.write_result({**RESULT, "status": "failed"})

    def full(path, text, write=write_text):
        if path.name == "result.json":
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, text)

    monkeypatch.setattr("seqbench.store.run_folder.write_text", full)
    with pytest.raises(OSError, match="No space left"):
        folder.write_result(RESULT)
    repair(folder, RUN)
    assert capsys.readouterr().err == ""
    assert folder.read_result() is None


def test_a_process_killed_before_it_wrote_a_request_blocks_nobody(tmp_path):
    folder = RunFolder(tmp_path)
    (tmp_path / ".lock").touch()
    (tmp_path / f".run.{NO_PROCESS}.tmp.json").write_bytes(b'{"ha')
    repair(folder, RUN)
    folder.open(RUN, {})
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "environment.json", "run.json"]


def test_a_line_that_does_not_fit_on_the_disk_is_not_half_in_the_log(folder, monkeypatch):
    log_lines(folder, {"kind": "train", "step": 1})
    write, calls = os.write, []

    def half(descriptor, content):
        calls.append(content)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, content[: len(content) // 2])

    monkeypatch.setattr(os, "write", half)
    with pytest.raises(OSError, match="No space left"):
        folder.log({"kind": "train", "step": 2})
    monkeypatch.undo()
    log_lines(folder, {"kind": "train", "step": 3})
    assert [row["step"] for row in read_json_lines(folder.metrics)] == [1, 3]


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
