"""Files and folders are written as a whole or not at all, and read as people wrote them."""

import json
import math
import subprocess
import sys

import pytest

from seqbench.store.damage import DamagedFile
from seqbench.store.files import (
    append_line,
    read_json_lines,
    write_atomically,
    write_folder_atomically,
    write_json,
    write_json_lines,
)


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


def test_a_line_that_finds_no_room_is_not_half_there(tmp_path):
    """With a limit to the size of files, in a process of its own: what fits is written before the rest is refused."""
    path = tmp_path / "lines"
    append_line(path, '{"first": 1}\n')
    code = f"""
import pathlib, resource
from seqbench.store.files import append_line
resource.setrlimit(resource.RLIMIT_FSIZE, (20, 20))
append_line(pathlib.Path({str(path)!r}), '{{"second": 2}}' + chr(10))
"""
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "File too large" in finished.stderr
    assert path.read_text() == '{"first": 1}\n'


def test_a_line_after_a_torn_one_stands_on_its_own(tmp_path):
    path = tmp_path / "lines"
    path.write_text('{"first": 1}\n{"tor')
    append_line(path, '{"second": 2}\n')
    assert path.read_text() == '{"first": 1}\n{"tor\n{"second": 2}\n'
