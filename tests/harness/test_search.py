"""An equal search: the same points for every model, chosen on validation, its cost counted."""

import dataclasses
import math

import pytest

from seqbench.comparing.search import SEED_OFFSET, Search, parse_axis
from seqbench.errors import RequestError
from seqbench.planning.request import RunRequest

REQUEST = RunRequest("", "toy_task:Recall", device="cpu", seed=3)
MODELS = ("toy_model:Neighbour", "toy_model:ShortSighted")


class Trainer:
    """Answers for trials: a figure by learning rate and model, and what it was asked."""

    def __init__(self, figure):
        self.figure, self.requests = figure, []

    def __call__(self, requests):
        self.requests += requests
        return [self._result(request) for request in requests]

    def _result(self, request):
        value = self.figure(request.model, float(request.changes.get("learning_rate", 0)))
        if value is None:
            return {"status": "failed", "failure": {"reason": "divergence"}}
        measurement = {"metric": "accuracy", "value": value, "coordinates": {}}
        return {
            "status": "complete",
            "task": {"primary_metric": "accuracy"},
            "measurements": [measurement],
            "tokens": 100,
            "seconds": 2.0,
            "training_flops": 7,
        }


def asked(*axes, share=1.0, halving=False, request=REQUEST):
    """A search for both models."""
    requests = {model: dataclasses.replace(request, model=model) for model in MODELS}
    return Search(requests, [parse_axis(axis) for axis in axes], share, halving)


def found(figure, *axes, **options):
    trainer = Trainer(figure)
    choices = asked(*axes, **options).carry_out(trainer)
    return {choice.model: choice for choice in choices}, trainer.requests


def outlook(figure, stored, *axes, **options):
    """What is left to do where the first `stored` requests of the search with `figure` have results."""
    trainer = Trainer(figure)
    search = asked(*axes, **options)
    search.carry_out(trainer)
    known = {repr(request): trainer([request])[0] for request in trainer.requests[:stored]}
    return search.look_ahead(lambda request: known.get(repr(request)))


def peak_at(best):
    """Largest at a learning rate of `best`, by its distance in ratios."""
    return lambda model, rate: -abs(math.log(rate / best))


def test_a_range_is_spread_in_equal_ratios_and_a_list_is_taken_as_it_is():
    assert parse_axis("lr=1e-4:1e-2:5").values == ("0.0001", "0.000316", "0.001", "0.00316", "0.01")
    assert parse_axis("weight_decay=0:0.2:3").values == ("0", "0.1", "0.2")
    assert parse_axis("optimizer=adamw,muon").values == ("adamw", "muon")
    assert parse_axis("trainer.learning_rate=1,2").field == "learning_rate"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lr", "takes FIELD=LOW:HIGH:COUNT"),
        ("learning_rat=1:2:3", "did you mean learning_rate"),
        ("lr=1e-2:1e-4:5", "less than HIGH"),
        ("lr=1:2", "reads LOW:HIGH:COUNT"),
        ("lr=1:2:1", "COUNT from 2 to 1,000"),
        ("lr=a:b:3", "reads LOW:HIGH:COUNT"),
        ("lr=0.1,0.1", "0.1, 0.1 are not all different"),
    ],
)
def test_what_is_no_axis_is_refused_with_an_example(text, message):
    with pytest.raises(RequestError, match=message):
        parse_axis(text)


def test_every_model_gets_the_same_points_and_its_own_best():
    choices, requests = found(
        lambda model, rate: peak_at(1e-3 if "Neighbour" in model else 3e-3)(model, rate), "lr=1e-4:1e-2:5"
    )
    assert dict(choices[MODELS[0]].point) == {"learning_rate": "0.001"}
    assert dict(choices[MODELS[1]].point) == {"learning_rate": "0.00316"}
    points = {
        model: [request.changes["learning_rate"] for request in requests if request.model == model] for model in MODELS
    }
    assert points[MODELS[0]] == points[MODELS[1]] == list(parse_axis("lr=1e-4:1e-2:5").values)


def test_trials_see_validation_only_and_have_seeds_of_their_own():
    _, requests = found(peak_at(1e-3), "lr=1e-4:1e-2:5")
    assert {request.split for request in requests} == {"validation"}
    assert {request.seed for request in requests} == {3 + SEED_OFFSET}


def test_a_best_point_at_an_edge_extends_the_range_once_in_the_same_ratio():
    choices, _ = found(peak_at(1e-1), "lr=1e-4:1e-2:3")
    tried = [dict(trial.point)["learning_rate"] for trial in choices[MODELS[0]].trials]
    assert tried == ["0.0001", "0.001", "0.01", "0.1", "1"]
    assert dict(choices[MODELS[0]].point) == {"learning_rate": "0.1"}
    assert choices[MODELS[0]].at_edge == ()
    assert choices[MODELS[0]].extended == ("learning_rate",)


def test_what_is_still_at_the_edge_after_that_is_said():
    choices, _ = found(peak_at(1e3), "lr=1e-4:1e-2:3")
    assert choices[MODELS[0]].at_edge == ("learning_rate",)
    assert len(choices[MODELS[0]].trials) == 5


def test_a_list_of_values_is_not_extended():
    choices, _ = found(peak_at(1.0), "lr=0.001,0.01,0.1")
    assert len(choices[MODELS[0]].trials) == 3
    assert choices[MODELS[0]].extended == ()


def test_a_failed_or_not_finite_trial_is_worse_than_any_other_and_costs_nothing_more():
    figures = {"0.001": None, "0.01": math.nan, "0.1": -5.0, "1": None, "10": None}
    choices, _ = found(lambda model, rate: figures[f"{rate:g}"], "lr=0.001:0.1:3")
    assert dict(choices[MODELS[0]].point) == {"learning_rate": "0.1"}
    assert [trial.failure for trial in choices[MODELS[0]].trials] == [
        "divergence",
        None,
        None,
        "divergence",
        "divergence",
    ]


def test_a_model_whose_trials_all_fail_ends_the_search_with_its_name():
    with pytest.raises(RequestError, match="every trial of the search failed for model toy_model:ShortSighted"):
        found(lambda model, rate: None if "Short" in model else 1.0, "lr=0.001:0.1:3")


def test_a_trial_is_a_shortened_training_with_a_schedule_of_its_own():
    """The toy trains for 12 steps, 2 of them warm-up; or for as many tokens as the budget says."""
    _, requests = found(peak_at(1e-3), "lr=1e-4:1e-2:3", share=0.5)
    assert {(request.changes["steps"], request.changes["warmup_steps"]) for request in requests} == {("6", "1")}
    budget = dataclasses.replace(REQUEST, budget_kind="tokens", budget_target=1000)
    _, requests = found(peak_at(1e-3), "lr=1e-4:1e-2:3", share=0.5, request=budget)
    assert {request.budget_target for request in requests} == {500}


def test_halving_trains_all_points_a_quarter_and_the_better_half_on():
    choices, requests = found(peak_at(1e-3), "lr=1e-5:1e-1:5", halving=True)
    trials = choices[MODELS[0]].trials
    assert [trial.share for trial in trials] == [0.25] * 5 + [1.0] * 3
    assert {dict(trial.point)["learning_rate"] for trial in trials[5:]} == {"0.0001", "0.001", "0.01"}
    assert dict(choices[MODELS[0]].point) == {"learning_rate": "0.001"}
    per_model = [sum(request.model == model for request in requests) for model in MODELS]
    assert per_model[0] == per_model[1]


def test_the_best_of_the_better_half_is_at_no_edge_while_worse_points_lie_beyond_it():
    figures = {1e-5: -9.0, 1e-4: 3.0, 1e-3: 2.0, 1e-2: 1.0, 1e-1: 0.0}
    choices, _ = found(lambda model, rate: figures[rate], "lr=1e-5:1e-1:5", halving=True)
    tried = [dict(trial.point)["learning_rate"] for trial in choices[MODELS[0]].trials if trial.share == 1.0]
    assert tried == ["0.0001", "0.001", "0.01"]
    assert dict(choices[MODELS[0]].point) == {"learning_rate": "0.0001"}
    assert choices[MODELS[0]].at_edge == ()


def test_several_axes_are_searched_together():
    choices, _ = found(lambda model, rate: rate, "lr=0.1,0.2", "optimizer=adamw,muon")
    assert len(choices[MODELS[0]].trials) == 4
    assert dict(choices[MODELS[0]].point) == {"learning_rate": "0.2", "optimizer": "adamw"}


def test_the_cost_of_every_trial_is_kept():
    choices, _ = found(peak_at(1e-3), "lr=1e-4:1e-2:5")
    assert [(trial.tokens, trial.seconds, trial.flops) for trial in choices[MODELS[0]].trials] == [(100, 2.0, 7)] * 5


def test_a_search_that_has_not_begun_tells_its_trials_and_how_many_may_follow():
    ahead = outlook(peak_at(1e-3), 0, "lr=1e-4:1e-2:5")
    assert ahead.missing == {model: {1.0: 5} for model in MODELS}
    assert ahead.extensions == 2 * 2
    assert ahead.choices is None
    assert outlook(lambda model, rate: 1.0, 0, "optimizer=adamw,muon").extensions == 0


def test_stored_trials_count_as_done():
    ahead = outlook(peak_at(1e-3), 7, "lr=1e-4:1e-2:5")
    assert ahead.missing == {MODELS[0]: {1.0: 0}, MODELS[1]: {1.0: 3}}
    assert ahead.choices is None


def test_trials_beyond_an_edge_are_counted_once_they_are_known_to_be_needed():
    ahead = outlook(peak_at(1e-1), 6, "lr=1e-4:1e-2:3")
    assert ahead.missing == {model: {1.0: 2} for model in MODELS}
    assert ahead.extensions == 0


def test_halving_tells_both_of_its_stages():
    ahead = outlook(peak_at(1e-3), 0, "lr=1e-5:1e-1:5", halving=True)
    assert ahead.missing == {model: {0.25: 5, 1.0: 3} for model in MODELS}
    second = outlook(peak_at(1e-3), 10, "lr=1e-5:1e-1:5", halving=True)
    assert second.missing == {model: {1.0: 3} for model in MODELS}


@pytest.mark.parametrize("halving", [False, True])
def test_stored_trials_decide_the_search_as_running_them_did(halving):
    choices, requests = found(peak_at(1e-1), "lr=1e-4:1e-2:5", halving=halving)
    ahead = outlook(peak_at(1e-1), len(requests), "lr=1e-4:1e-2:5", halving=halving)
    assert (ahead.missing, ahead.extensions) == ({}, 0)
    assert list(ahead.choices) == list(choices.values())
