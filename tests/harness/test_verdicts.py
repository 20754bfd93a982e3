"""Who is ahead: what a comparison says of each pair of models, by seeds and by items."""

import json

import numpy as np
import pytest
from stored_results import failed, items, no_items, result, shown
from toy_task import Recall, RecallSettings

from seqbench.report.item_scores import ItemScores, ItemsUnusable, read_item_scores
from seqbench.report.table import comparison_report
from seqbench.report.verdicts import judge
from seqbench.statistics.items import compare_items
from seqbench.statistics.paired import compare_seeds
from seqbench.statistics.verdict import compare_all
from seqbench.store.files import finite, write_json_lines

FIGURES = {"good": (0.91, 0.93, 0.92), "fair": (0.80, 0.93, 0.70), "poor": (0.51, 0.53, 0.53)}


def runs(figures=FIGURES, seeds=range(3), **changes):
    """Results whose overall figures are these."""
    return [
        result(model, seed, (values[seed], values[seed]), **changes)
        for seed in seeds
        for model, values in figures.items()
    ]


def pairs(results, read_items=no_items):
    return {(pair.first, pair.second): pair for pair in judge(results, read_items).pairs}


def in_other_units(results, unit="bits per byte", higher_is_better=False):
    for stored in results:
        stored["task"]["higher_is_better"] = higher_is_better
        for measurement in stored["measurements"]:
            measurement["unit"] = unit
    return results


def test_every_pair_has_its_word():
    words = {names: pair.word for names, pair in pairs(runs()).items()}
    assert words == {
        ("good", "fair"): "not distinguishable",
        ("good", "poor"): "ahead",
        ("fair", "poor"): "not distinguishable",
    }
    assert pairs(list(reversed(runs())))["poor", "good"].word == "behind"


def test_a_smaller_loss_is_ahead():
    assert pairs(in_other_units(runs()))["good", "poor"].word == "behind"


def test_verdicts_are_those_of_the_statistics_on_the_figure_over_the_whole_test_set():
    results = runs()
    for stored in results:
        # What was measured at single places decides nothing.
        stored["measurements"][0]["value"] = 0.0
    values = {model: dict(enumerate(figures)) for model, figures in FIGURES.items()}
    expected = compare_all(values, True, resolution=1 / 1000)
    assert [pair.verdict for pair in judge(results, no_items).pairs] == expected


def test_the_resolution_is_one_item_for_a_fraction_and_none_for_anything_else():
    """Equal differences: with steps of 1/1000 the deviation is what rounding makes, without steps it is zero."""
    shifted = {"one": (0.5, 0.6, 0.7), "other": (0.499, 0.599, 0.699)}
    assert judge(runs(shifted), no_items).figure.resolution == 1 / 1000
    assert pairs(runs(shifted))["one", "other"].word == "not distinguishable"
    assert judge(in_other_units(runs(shifted)), no_items).figure.resolution == 0


def test_two_seeds_allow_no_claim_and_the_table_says_what_does():
    results = runs({"good": FIGURES["good"], "poor": FIGURES["poor"]}, seeds=range(2))
    assert pairs(results)["good", "poor"].word == "too few seeds"
    text = shown(comparison_report(results, no_items))
    assert "too few seeds" in text
    assert "a verdict takes 3 seeds or more" in text
    assert "Holm over" not in text


def test_models_are_compared_over_the_seeds_that_both_have():
    results = [each for each in runs() if (each["model"]["name"], each["seed"]) != ("fair", 1)]
    pair = pairs([*results, failed("fair", 1)])["good", "fair"]
    assert pair.seeds == (0, 2)
    assert pair.word == "too few seeds"
    assert pair.verdict.comparison.difference == pytest.approx((0.91 - 0.80 + 0.92 - 0.70) / 2)


def test_a_figure_that_is_no_number_is_left_out_and_named():
    results = runs()
    results[1]["measurements"][-1]["value"] = None
    judgement = judge(results, no_items)
    assert judgement.values["fair"] == {1: 0.93, 2: 0.70}
    assert "fair, seed 0: its figure is missing or no finite number; left out" in judgement.remarks


def test_a_model_that_failed_with_every_seed_is_named_in_its_pairs():
    found = pairs([*runs(), *(failed("broken", seed) for seed in range(3))])
    assert {names: pair.word for names, pair in found.items() if "broken" in names} == {
        (model, "broken"): "failed" for model in FIGURES
    }
    assert found["good", "poor"].word == "ahead"


def test_models_without_a_common_seed_are_a_pair_too():
    found = pairs([result("one", 0), result("other", 1)])
    assert found["one", "other"].word == "too few seeds"
    assert found["one", "other"].verdict is None


def test_nothing_is_judged_where_there_is_no_figure():
    assert judge([failed()], no_items) is None


def test_items_are_averaged_over_the_common_seeds():
    rng = np.random.default_rng(0)
    scores = {(model, seed): rng.random(40) for model in ("one", "other") for seed in range(3)}
    weights = rng.integers(1, 9, 40).astype(float)
    results = [result(model, seed) for model, seed in scores if (model, seed) != ("other", 1)]

    def read(stored):
        return items(scores[stored["model"]["name"], stored["seed"]], weights)

    pair = pairs([*results, failed("other", 1)], read)["one", "other"]
    ours, theirs = ((scores[model, 0] + scores[model, 2]) / 2 for model in ("one", "other"))
    assert pair.items == compare_items(ours, theirs, weights)


def test_items_are_corrected_for_the_number_of_pairs():
    rng = np.random.default_rng(1)
    scores = {model: (rng.random(60) < share) for model, share in (("a", 0.9), ("b", 0.7), ("c", 0.4))}
    found = judge([result(model) for model in scores], lambda stored: items(scores[stored["model"]["name"]])).pairs
    assert all(pair.items_p_value >= pair.items.p_value for pair in found)
    smallest = min(found, key=lambda pair: pair.items.p_value)
    assert smallest.items_p_value == pytest.approx(3 * smallest.items.p_value)


def test_each_run_is_read_once():
    read = []

    def reader(stored):
        read.append((stored["model"]["name"], stored["seed"]))
        return items([0.0, 1.0])

    judge(runs(), reader)
    assert sorted(read) == sorted(set(read))


def test_where_items_are_missing_the_comparison_by_seeds_stands_and_the_reason_is_told():
    def read(stored):
        if (stored["model"]["name"], stored["seed"]) == ("poor", 2):
            raise ItemsUnusable("items.jsonl is missing")
        return items([0.0, 1.0, 1.0])

    judgement = judge(runs(), read)
    found = {(pair.first, pair.second): pair for pair in judgement.pairs}
    assert found["good", "poor"].items is found["good", "poor"].items_p_value is None
    assert found["good", "poor"].word == "ahead"
    assert found["good", "fair"].items is not None
    assert judgement.remarks == ["no comparison by item for poor seed 2: items.jsonl is missing"]
    assert judge(runs(), no_items).remarks == ["no comparison by item: the task stores no items"]


def test_other_items_are_not_compared():
    others = {"good": items([1.0, 0.0]), "fair": items([1.0, 0.0], weights=[1, 2]), "poor": items([1.0, 0.0, 1.0])}
    judgement = judge(runs(), lambda stored: others[stored["model"]["name"]])
    assert [pair.items for pair in judgement.pairs] == [None] * 3
    assert "their items are not the same" in judgement.remarks[0]


def test_the_table_of_pairs_has_every_figure_of_the_statistics():
    figures = {"good": FIGURES["good"], "poor": FIGURES["poor"]}
    scores = {"good": [1.0, 0.9, 0.9], "poor": [0.5, 0.5, 0.6]}
    text = shown(comparison_report(runs(figures), lambda stored: items(scores[stored["model"]["name"]])))
    [line] = [line for line in text.splitlines() if line.split()[:3] == ["good", "poor", "ahead"]]
    seeds = compare_seeds(figures["good"], figures["poor"], 1 / 1000)
    [verdict] = compare_all({model: dict(enumerate(values)) for model, values in figures.items()}, True, 1 / 1000)
    by_item = compare_items(np.array(scores["good"]), np.array(scores["poor"]), np.ones(3))
    for told in (
        f"{seeds.difference:+.4f} [{seeds.interval[0]:+.4f}, {seeds.interval[1]:+.4f}]",
        f"{seeds.effect_size:+.1f}",
        f"{verdict.detectable:.4f}",
        f"{by_item.difference:+.4f} [{by_item.interval[0]:+.4f}, {by_item.interval[1]:+.4f}]",
        f"{by_item.p_value:.3f}",
    ):
        assert told in line, told
    assert seeds.p_value < 0.001
    assert "< 0.001" in line


def test_every_run_has_its_figure_and_every_model_its_mean_and_interval():
    text = shown(comparison_report(runs(), no_items))
    lines = {line[:15].strip(): line[15:].split() for line in text.splitlines()}
    assert lines["seed 0"] == ["0.9100", "0.8000", "0.5100"]
    assert lines["mean"] == ["0.9200", "0.8100", "0.5233"]
    assert lines["95 % interval"][:3] == ["0.8952", "to", "0.9448"]


def test_what_a_verdict_rests_on_stands_below_it():
    text = " ".join(shown(comparison_report(runs(), no_items)).split())
    for told in ("p after Holm over 3 pairs", "roughly normal", "learns only sometimes", "not of the architectures"):
        assert told in text
    four = {model: (*values, values[0] + 0.005) for model, values in FIGURES.items()}
    assert "learns only sometimes" not in shown(comparison_report(runs(four, range(4)), no_items))


def test_the_verdicts_are_stored_as_plain_data():
    data = comparison_report([*runs(), failed("broken")], no_items).data["verdicts"]
    assert json.loads(json.dumps(finite(data))) == finite(data)
    assert data["schema"] == 1
    assert data["figure"] == {"metric": "accuracy", "unit": "fraction", "higher_is_better": True, "resolution": 0.001}
    assert [model["model"] for model in data["models"]] == ["good", "fair", "poor", "broken"]
    assert data["models"][0]["values"] == {"0": 0.91, "1": 0.93, "2": 0.92}
    assert data["models"][3]["failed"] == {"0": "divergence"}
    [pair] = [pair for pair in data["pairs"] if (pair["first"], pair["second"]) == ("good", "poor")]
    assert pair["verdict"] == "ahead"
    assert pair["seeds"] == [0, 1, 2]
    assert pair["interval"][0] < pair["difference"] < pair["interval"][1]
    assert pair["items"] is None


TASK = Recall(RecallSettings())


def stored_items(path, accuracies):
    write_json_lines(path, [{"index": index, "accuracy": value} for index, value in accuracies])
    return path


def test_items_are_read_in_the_order_of_their_index(tmp_path):
    scores = read_item_scores(TASK, stored_items(tmp_path / "items.jsonl", [(1, 0.5), (0, 1.0)]), 0.75)
    assert isinstance(scores, ItemScores)
    assert (scores.index.tolist(), scores.scores.tolist(), scores.weights.tolist()) == ([0, 1], [1.0, 0.5], [1.0, 1.0])


class Unscored(Recall):
    def item_score(self, item):
        return item["no such field"], 1.0


@pytest.mark.parametrize(
    ("task", "accuracies", "figure", "reason"),
    [
        (TASK, None, 0.75, "is missing"),
        (TASK, [], 0.75, "stores no items"),
        (TASK, [(0, 1.0), (1, 0.5)], 0.7, "its items make 0.75, not the 0.7 of the result"),
        (TASK, [(0, 1.0), (1, None)], 0.5, "cannot score its items"),
        (Unscored(RecallSettings()), [(0, 1.0)], 1.0, "KeyError: 'no such field'"),
    ],
)
def test_items_that_do_not_make_the_figure_are_not_used(tmp_path, task, accuracies, figure, reason):
    path = tmp_path / "items.jsonl"
    if accuracies is not None:
        stored_items(path, accuracies)
    with pytest.raises(ItemsUnusable, match=reason):
        read_item_scores(task, path, figure)
