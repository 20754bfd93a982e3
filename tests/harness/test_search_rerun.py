"""`bench compare --search` where trials are stored: they are not made again, and the plan says what is left."""

import json
import shutil
from pathlib import Path

import pytest
from command_line import Bench
from stored_grid import store_grid, store_trials

from seqbench.comparing.grid import columns
from seqbench.comparing.search import Search, parse_axis
from seqbench.planning.request import RunRequest

MODELS = ("toy_model:Neighbour", "toy_model:ShortSighted")
RATES = "lr=1e-3,1e-1"
COMMAND = ("compare", "--models", ",".join(MODELS), "--task", "toy_task:Recall", "--seeds", "1", "--jobs", "2")
SEARCH = ("--search", RATES, "--trial-share", "0.5")
REQUESTS = columns(RunRequest("", "toy_task:Recall"), MODELS)


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory):
    """A store with the four trials of a search, and what they chose."""
    runs = tmp_path_factory.mktemp("searched")
    search = Search({request.model: request for request in REQUESTS}, [parse_axis(RATES)], 0.5, False)
    choices = search.carry_out(lambda requests: store_trials(requests, runs))
    return runs, {choice.model: dict(choice.point) for choice in choices}


@pytest.fixture
def store(searched, tmp_path: Path) -> Path:
    return Path(shutil.copytree(searched[0], tmp_path / "store"))


@pytest.fixture
def finished(searched, store: Path) -> Path:
    """The store with the final runs too."""
    store_grid(REQUESTS, 1, store, searched[1])
    return store


def test_without_any_trial_all_of_it_is_to_do(bench: Bench) -> None:
    told = bench(*COMMAND, *SEARCH, "--runs", "empty", "--dry-run").out
    assert "2 of 2 runs to do, after 4 trials of a search; 2 side by side" in told
    ranged = bench(*COMMAND, "--search", "lr=1e-3:1e-1:3", "--runs", "empty", "--dry-run").out
    assert "after 6 trials of a search (up to 4 more where the best point lies at an edge)" in ranged


def test_a_stored_trial_counts_as_done(bench: Bench, store: Path) -> None:
    shutil.rmtree(min(path.parent for path in store.glob("*/*/run.json")))
    told = bench(*COMMAND, *SEARCH, "--runs", str(store), "--dry-run").out
    assert "2 of 2 runs to do, after 1 trial of a search" in told


def test_when_the_trials_decide_the_search_the_found_runs_are_planned(bench: Bench, searched, store: Path) -> None:
    told = bench(*COMMAND, *SEARCH, "--runs", str(store), "--dry-run").out
    assert "2 of 2 runs to do; 2 side by side" in told
    assert "of a search" not in told
    [before] = store_grid(REQUESTS[:1], 1, store, searched[1])
    told = bench(*COMMAND, *SEARCH, "--runs", str(store), "--dry-run").out
    assert "1 of 2 runs to do" in told
    assert before["hash"][:8] in told


def test_a_rerun_does_nothing_says_so_and_prints_the_same_again(bench: Bench, finished: Path) -> None:
    def times() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in finished.glob("*/toy_model*/**/*")}

    # The first one draws the figures that `execute` leaves to the command.
    command, kills = (*COMMAND, *SEARCH, "--runs", str(finished)), {"TOY_SIGNAL": "SIGKILL@train:0"}
    first, before = bench(*command, **kills), times()
    again = bench(*command, **kills)
    assert first.code == again.code == 0, again.err
    assert "nothing to do, all is stored: 2 runs and 4 trials of the search" in again.err
    # Nothing is timed, so no sizes and times are shown.
    assert "FLOPs/token" not in again.err
    assert again.out == first.out
    assert times() == before


def test_trials_their_cost_and_the_choice_stand_in_every_table_and_in_the_data(
    bench: Bench, searched, finished: Path
) -> None:
    out = bench(*COMMAND, *SEARCH, "--runs", str(finished)).out
    [folder] = finished.glob("*/comparison-*")
    record = json.loads((folder / "comparison.json").read_text())["search"]
    for text in (out, (folder / "table.txt").read_text(), (folder / "table.md").read_text()):
        assert "search: accuracy on the validation set" in text
        assert text.count("chosen") == 4
        for choice in record:
            rate, tokens = choice["point"][0][1], sum(trial["tokens"] for trial in choice["trials"])
            assert f"{choice['model']}: learning rate {rate} chosen of 2 trials, {tokens:,} tokens" in text
    assert {choice["model"]: dict(choice["point"]) for choice in record} == searched[1]


def test_that_a_range_was_extended_is_said(bench: Bench, tmp_path: Path) -> None:
    search = Search({MODELS[0]: REQUESTS[0]}, [parse_axis("lr=1e-5:1e-4:2")], 0.5, False)
    [choice] = search.carry_out(lambda requests: store_trials(requests, tmp_path))
    assert choice.extended == ("learning_rate",)
    store_grid(REQUESTS[:1], 1, tmp_path, {MODELS[0]: dict(choice.point)})
    command = [*COMMAND, "--search", "lr=1e-5:1e-4:2", "--trial-share", "0.5", "--runs", str(tmp_path)]
    command[2] = MODELS[0]
    assert "learning rate tried beyond its range, at whose edge the best lay" in bench(*command).out
