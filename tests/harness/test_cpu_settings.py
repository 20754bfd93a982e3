"""benchmarks/cpu_settings.py: what it compares, and what it recommends."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from toy_model import Neighbour

SCRIPTS = Path(__file__).parent.parent.parent / "benchmarks"
sys.path.append(str(SCRIPTS))

from cpu_settings import Combination, Relative, combinations, over_models, recommended, relative  # noqa: E402

DEFAULT, SHORT, SINGLE = (
    Combination("tuned", "fp32", 2),
    Combination("tuned", "bf16", 2),
    Combination("tuned", "fp32", 1),
)


@pytest.mark.parametrize(("most", "counts"), [(1, [1]), (2, [2, 1]), (6, [6, 4, 2, 1]), (8, [8, 4, 2, 1])])
def test_every_setting_is_combined_with_every_other_and_the_default_comes_first(most: int, counts: list[int]) -> None:
    found = combinations(most)
    assert found[0] == Combination("tuned", "fp32", most)
    assert [each.threads for each in found[: len(counts)]] == counts
    assert len(set(found)) == len(found) == 4 * len(counts)


def test_throughput_is_set_in_relation_to_the_default_of_the_same_round() -> None:
    # The machine slows down threefold from the first round to the last.
    found = relative({DEFAULT: [1.0, 2.0, 3.0], SHORT: [0.5, 1.0, 2.0]}, DEFAULT)
    assert found == {DEFAULT: Relative(1, 1, 1), SHORT: Relative(2, 1.5, 2)}


def test_every_model_counts_the_same_whatever_its_size() -> None:
    large, small = {DEFAULT: [100.0], SHORT: [50.0]}, {DEFAULT: [1.0], SHORT: [2.0]}
    assert relative(over_models([large, small]), DEFAULT)[SHORT].median == pytest.approx(1)


def test_the_fastest_that_won_every_round_is_recommended_and_the_default_where_none_did() -> None:
    always, mostly, slower = Relative(1.2, 1.1, 1.3), Relative(1.9, 0.9, 2.5), Relative(0.8, 0.7, 0.9)
    assert recommended({DEFAULT: Relative(1, 1, 1), SHORT: mostly, SINGLE: always}, DEFAULT) == SINGLE
    assert recommended({DEFAULT: Relative(1, 1, 1), SHORT: mostly, SINGLE: slower}, DEFAULT) == DEFAULT


@pytest.mark.slow
def test_the_script_measures_all_combinations_and_says_what_to_type(tmp_path: Path) -> None:
    script = SCRIPTS / "cpu_settings.py"
    models = f"{Neighbour.__module__}:Neighbour"
    arguments = ["--models", models, "--task", "toy_task:Recall", "--rounds", "1", "--steps", "2"]
    environment = {"PYTHONPATH": str(Path(__file__).parent / "support"), "OMP_NUM_THREADS": "1", "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, script, *arguments], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    for combination in combinations(1):
        assert len(re.findall(rf"{combination} +\d+\.\d\d \(\d", done.stdout)) == 2
    assert "one run at a time: " in done.stdout
