"""comparison.json: whose it is, whatever has happened to it, so that no damage blocks a comparison for ever."""

import os

import pytest
from stored_results import result

from seqbench.store.comparison_file import compared_runs, write_comparison
from seqbench.store.sealed import sealed_document

RUNS, OTHERS = ["a" * 64, "b" * 64], ["c" * 64, "d" * 64]


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "comparison.json"
    write_comparison(path, content(RUNS))
    return path


def content(runs):
    results = [{**result(seed=seed), "hash": run} for seed, run in enumerate(runs)]
    return sealed_document({"schema": 1, "runs": runs, "results": results})


def test_a_whole_one_says_whose_it_is(path, tmp_path):
    assert compared_runs(path, RUNS) == RUNS
    assert compared_runs(path, RUNS[:1]) == RUNS
    assert compared_runs(path, OTHERS) == RUNS
    assert compared_runs(tmp_path / "nothing.json", RUNS) is None
    assert path.exists()


def test_any_bit_may_change_and_the_same_comparison_goes_on(path, tmp_path, capsys):
    whole = path.read_bytes()
    for bit in range(0, 8 * len(whole), 11):
        changed = bytearray(whole)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        assert compared_runs(path, RUNS) in (None, RUNS), bit
        assert path.exists() or "comparison.json is damaged" in capsys.readouterr().err
        for aside in tmp_path.glob("*.corrupt-*"):
            aside.unlink()


def test_a_damaged_one_of_other_runs_is_left_alone(path):
    path.write_bytes(path.read_bytes().replace(b"accuracy", b"accurazy"))
    assert compared_runs(path, OTHERS) == []
    assert path.exists()


@pytest.mark.parametrize("foreign", ["[]", "null", '{"runs": 5}', '{"project": "thesis"}'])
def test_what_another_program_wrote_is_left_alone(path, foreign):
    path.write_text(foreign)
    assert compared_runs(path, RUNS) == []
    assert path.read_text() == foreign


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo, lambda path: path.symlink_to("nowhere")])
def test_what_is_no_file_is_set_aside(path, make, capsys):
    path.unlink()
    make(path)
    assert compared_runs(path, RUNS) is None
    assert "comparison.json is damaged" in capsys.readouterr().err


def test_one_of_an_earlier_version_has_no_checksum_and_is_of_its_runs(path):
    write_comparison(path, {name: value for name, value in content(RUNS).items() if name != "sha256"})
    assert compared_runs(path, RUNS) == RUNS
    assert compared_runs(path, OTHERS) == []
