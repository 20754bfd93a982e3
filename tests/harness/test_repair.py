"""Repair: what is not as it was written is named, set aside and made again, and nothing else is touched."""

import errno
import shutil
from pathlib import Path

import pytest
from stored_results import result
from stored_run import DAMAGES, NO_PROCESS, OTHER_RUN, RUN, cover, log_lines, opened, train

from seqbench.errors import RequestError
from seqbench.store.damage import DamagedFile
from seqbench.store.files import write_folder_atomically, write_json_lines, write_text
from seqbench.store.repair import repair
from seqbench.store.run_folder import RunFolder


@pytest.fixture
def folder(tmp_path):
    return opened(tmp_path / "deep" / "run")


RESULT = {"schema": 1, **result(), "value": 0.123456789}


@pytest.fixture
def finished(folder):
    """A run with everything that a result rests on."""
    log_lines(folder, train(1), train(2))
    write_json_lines(folder.items, [{"index": 0, "accuracy": 1.0}])
    write_folder_atomically(folder.model, lambda path: (path / "model.safetensors").write_bytes(b"w" * 100))
    (folder.model / "README.md").write_text("about the model")
    folder.write_result(RESULT)
    return folder


def stored(folder):
    """The result that can be relied on, as it was given."""
    found = folder.finished_result(RUN["hash"])
    return found and {key: value for key, value in found.items() if key != "files"}


def everything(folder):
    return {str(path): path.read_bytes() for path in folder.path.rglob("*") if path.is_file()}


def test_a_sound_run_is_left_as_it_is(finished, capsys):
    before = everything(finished)
    repair(finished, RUN)
    assert stored(finished) == RESULT
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
    for damage in (
        b"",
        b"\0" * 50,
        whole[:-9],
        whole.replace(b'"seed": 0', b'"seed": 1'),
        whole.replace(RUN["hash"].encode(), OTHER_RUN["hash"].encode()),
    ):
        path.write_bytes(damage)
        repair(folder, RUN)
        assert path.read_bytes() == whole
        assert "run.json is damaged" in capsys.readouterr().err
    assert len(list(folder.path.glob("run.json.corrupt-*"))) == 5


def test_a_request_is_mended_also_after_a_crash_in_between_and_never_for_another_run(folder):
    (folder.path / "run.json").write_bytes(b"")
    with pytest.raises(DamagedFile):
        repair(folder, OTHER_RUN)
    (folder.path / "run.json").unlink()
    repair(folder, OTHER_RUN)
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
    finished.metrics.write_bytes(content.replace(b'{"kind": "train", "step": 1', b'{"kind": "tra\0n", "step": 1'))
    repair(finished, RUN)
    assert "metrics.jsonl is damaged (line 1 cannot be read; left out)" in capsys.readouterr().err
    rows = finished.read_log()
    assert [(row["kind"], row["step"]) for row in rows] == [("train", 2), ("damage", 0)]
    assert (finished.path / "metrics.jsonl.corrupt-1").exists()
    assert stored(finished) == RESULT


def test_what_people_change_or_take_away_is_not_damaged(finished, capsys):
    (finished.model / "README.md").write_text("my own words")
    repair(finished, RUN)
    shutil.rmtree(finished.model)
    repair(finished, RUN)
    assert stored(finished) == RESULT
    assert capsys.readouterr().err == ""


def test_a_result_of_a_newer_version_is_refused_and_stays(finished):
    path = finished.path / "result.json"
    path.write_text(path.read_text().replace('"schema": 1', '"schema": 2'))
    cover(path)
    with pytest.raises(RequestError, match="has schema 2 and this version of seqbench knows 1; install the version"):
        repair(finished, RUN)
    assert path.exists()


def test_the_folder_of_another_run_or_program_is_not_repaired(finished, tmp_path):
    finished.items.write_bytes(b"")
    before = everything(finished)
    repair(finished, OTHER_RUN)
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
