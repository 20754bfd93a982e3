"""What a model had seen of the test set: counted for each run, stored, and said wherever its figures are shown."""

import pytest
import torch
from stored_grid import store_grid, store_trials
from stored_results import no_items, result, shown

from seqbench.comparing.comparability import require_comparable
from seqbench.comparing.grid import grid_run
from seqbench.contracts import Contamination
from seqbench.errors import RequestError
from seqbench.planning.request import RunRequest
from seqbench.report.ablations import ablation_report
from seqbench.report.contamination import contamination_notes
from seqbench.report.model_card import model_card
from seqbench.report.table import comparison_report, run_report
from seqbench.store.run_folder import RunFolder
from seqbench_tasks.parity import ParityTask


def record(split="test", items=200, distinct=None, in_training=0, in_test=0, **coordinates):
    found = Contamination(split, items, items if distinct is None else distinct, in_training, in_test, coordinates)
    return vars(found)


def told(*results):
    return [line.text for line in contamination_notes(results)]


def test_nothing_is_said_where_nothing_was_seen_or_counted():
    assert told(result(), result(contamination=[]), result(contamination=[record(), record("validation")])) == []


def test_a_share_and_where_it_lies():
    parts = [
        record(in_training=25),
        record(items=20, in_training=20, length=5),
        record(items=40, in_training=5, length=9),
    ]
    assert told(result(contamination=parts)) == [
        "25 of 200 (12.5 %) test samples stood in the training data (20 of 20 (100.0 %) at length 5; "
        "5 of 40 (12.5 %) at length 9)"
    ]


def test_only_the_worst_places_are_named():
    parts = [record(items=10, in_training=number, key_count=number) for number in range(1, 7)]
    [line] = told(result(contamination=[record(in_training=21), *parts]))
    assert line.index("at key count 6") < line.index("at key count 3") < line.index("2 more places")
    assert "key count 2" not in line


def test_runs_that_saw_different_parts_give_a_range_and_none_is_lost():
    seeds = [result(seed=seed, contamination=[record(in_training=count)]) for seed, count in enumerate((4, 0, 12))]
    assert told(*seeds) == ["0 to 12 of 200 (0.0 % to 6.0 %) test samples stood in the training data"]


def test_repeats_and_validation_samples_are_told_too():
    records = [record(distinct=190), record("validation", items=50, in_training=50, in_test=3)]
    assert told(result(contamination=records)) == [
        "190 of 200 (95.0 %) test samples are different ones",
        "50 of 50 (100.0 %) validation samples stood in the training data",
        "3 of 50 (6.0 %) validation samples are test samples too",
    ]


SEEN = "stood in the training data"
# Of five bits there are 32 strings: too few to keep any from training.
TASK = {
    "task.windows": "2",
    "task.least_length": "1",
    "task.test_length_multiple": "2",
    "task.test_samples": "40",
    "task.validation_samples": "10",
    "steps": "4",
    "warmup_steps": "1",
    "batch_size": "8",
    "evaluation_interval": "0",
}


def request(seed=0, **changes):
    return RunRequest("toy_model:Neighbour", "parity", changes={**TASK, **changes}, seed=seed)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    runs = tmp_path_factory.mktemp("runs")
    return runs, store_trials([request()], runs)[0]


def test_a_run_stores_what_it_saw(stored):
    task = grid_run(request(), stored[0]).plan.task
    assert [vars(each) for each in task.contamination(0, 4, 8)] == stored[1]["contamination"]
    [whole] = [each for each in stored[1]["contamination"] if each["split"] == "test" and not each["coordinates"]]
    assert 0 < whole["in_training"] < whole["items"] == whole["distinct"] < 32


def test_every_table_says_so(stored):
    other = store_trials([request(seed=1)], stored[0])[0]
    model = torch.nn.Linear(1, 1)
    for text in (
        shown(run_report(stored[1])),
        shown(comparison_report([stored[1], other], no_items)),
        shown(ablation_report([stored[1]], no_items)),
        model_card(stored[1], model),
    ):
        assert SEEN in text


def test_a_run_that_is_taken_up_again_counts_the_same(stored):
    cell = grid_run(request(), stored[0])
    cell.folder.remove_result()
    [again] = store_trials([request()], stored[0])
    assert again["contamination"] == stored[1]["contamination"]
    assert again["measurements"] == stored[1]["measurements"]


def test_an_ablation_at_evaluation_saw_what_its_model_was_trained_on(stored):
    results = store_grid([request()], 1, stored[0])
    ablated = RunRequest("toy_model:Neighbour", "parity", changes=TASK, ablation="deaf@eval")
    [tested] = store_trials([ablated], stored[0])
    assert tested["contamination"] == results[0]["contamination"]


def test_a_store_with_both_versions_of_a_task_never_mixes_them(stored, monkeypatch):
    runs, new = stored
    current = grid_run(request(), runs)
    monkeypatch.setattr(ParityTask, "version", "1")
    before = grid_run(request(), runs)
    before.plan.task.version = "1"
    assert before.folder.path != current.folder.path and before.folder.finished_result(before.plan.run_hash) is None
    [old] = store_trials([request()], runs)
    monkeypatch.undo()
    # Each command finds its own, whichever ran last.
    assert current.folder.finished_result(current.plan.run_hash)["hash"] == new["hash"] != old["hash"]
    assert RunFolder(current.folder.path).finished_result(before.plan.run_hash) is None
    with pytest.raises(RequestError, match="cannot be compared: the version of the task is 1 and 2"):
        require_comparable([before, current], [old, new])
