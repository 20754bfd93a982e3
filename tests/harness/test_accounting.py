"""Memory: what a run needs, and the advice when it does not fit."""

import pytest

from seqbench.accounting.counting import count_parameters
from seqbench.errors import RequestError
from seqbench.planning.fresh_model import build_model
from seqbench.planning.memory_estimate import MemoryEstimate, estimate_memory, require_memory, require_weights
from seqbench.planning.plan import resolve
from seqbench.planning.request import RunRequest
from seqbench.running.preview import estimate_training

MEBI = 2**20


def plan(**changes):
    return resolve(RunRequest("toy_model:Neighbour", "toy_task:Recall", device="cpu", changes=changes))


def advice(estimate, available, **changes):
    with pytest.raises(RequestError) as refused:
        require_memory(plan(**changes), estimate, available)
    first, second = str(refused.value).splitlines()
    assert "memory" in first
    return second


def test_the_peak_is_what_stays_and_the_larger_of_training_and_evaluation():
    estimate = MemoryEstimate(fixed=100, batch=10, per_sequence=20, evaluation=50)
    assert [estimate.total(size) for size in (1, 2, 3)] == [160, 160, 170]


def test_a_run_that_fits_is_let_through():
    estimate = MemoryEstimate(fixed=100, batch=10, per_sequence=20, evaluation=50)
    require_memory(plan(batch_size="4"), estimate, 190)
    require_memory(plan(batch_size="64", micro_batch_size="4"), estimate, 190)
    with pytest.raises(RequestError):
        require_memory(plan(batch_size="5"), estimate, 190)


@pytest.mark.parametrize(
    ("sizes", "told"),
    [
        ((900 * MEBI, 0, 1, 1), "smaller preset"),
        ((1, 0, 700 * MEBI, 1), "choose shorter sequences"),
        ((1, 0, 1, 700 * MEBI), "choose shorter test lengths"),
        ((1, 700 * MEBI, MEBI, 1), "choose a smaller batch_size"),
        ((MEBI, 0, 100 * MEBI, 1), "type --set micro_batch_size=4"),
    ],
)
def test_the_advice_names_what_would_fit(sizes, told):
    assert told in advice(MemoryEstimate(*sizes), 500 * MEBI, batch_size="64")


def test_longer_sequences_and_larger_batches_need_more():
    short, long, many = plan(), plan(**{"task.length": "600"}), plan(batch_size="4000")
    estimates = [estimate_memory(each, build_model(each)) for each in (short, long, many)]
    assert estimates[1].per_sequence > 50 * estimates[0].per_sequence
    assert estimates[1].evaluation > 50 * estimates[0].evaluation
    assert estimates[2].batch == 1000 * estimates[0].batch
    assert estimates[2].per_sequence == estimates[0].per_sequence


def test_estimates_use_the_length_that_the_task_expects_and_ask_nothing_of_one_that_is_not_trained(monkeypatch):
    bounded = plan(**{"task.length": "600"})
    model = build_model(bounded)
    before, cost = estimate_memory(bounded, model), estimate_training(bounded, model)
    monkeypatch.setattr(type(bounded.task), "estimated_sequence", property(lambda self: self.longest_sequence // 4))
    after = estimate_memory(bounded, model)
    assert after.batch == before.batch // 4 and after.evaluation == before.evaluation
    assert after.per_sequence == pytest.approx(before.per_sequence / 4, rel=0.01)
    assert estimate_training(bounded, model).tokens == cost.tokens / 4

    def missing(self):
        raise AssertionError("there is no training data to look at")

    monkeypatch.setattr(type(bounded.task), "estimated_sequence", property(missing))
    untrained = plan(steps="0", warmup_steps="0", **{"task.length": "600"})
    assert estimate_memory(untrained, model) == before
    assert estimate_training(untrained, model).tokens == 0


def test_a_model_is_weighed_before_it_is_built():
    require_weights(plan(), 10 * MEBI)
    with pytest.raises(RequestError, match="smaller preset"):
        require_weights(plan(**{"model.width": "100000000"}), 2**50)


def test_parameters_are_counted_once_and_by_group():
    toy = plan(**{"task.symbols": "10"})
    # A tied embedding of 10 x 8; 16 x 8 weights and 8 biases; two times 8 of the norm.
    assert count_parameters(toy.model, build_model(toy)) == {"embedding": 80, "inner": 152}
