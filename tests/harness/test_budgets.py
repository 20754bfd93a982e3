"""What ends training: steps, tokens, FLOPs or seconds; and what happens when memory runs out on the way."""

import pytest
import torch
import toy_model
import toy_task

from seqbench.training.budget import TrainingBudget
from seqbench.training.settings import TrainerSettings
from seqbench.training.trainer import Trainer


class Silent:
    def advance(self, step, share, loss, tokens_per_second):
        pass

    def note(self, message):
        pass


def trained(tmp_path, budget=None, model=None, log=None, **settings):
    settings = TrainerSettings(**{**toy_task.TRAINER, **settings})
    torch.manual_seed(0)
    plugin = toy_model.Neighbour()
    config = plugin.presets["tiny"]
    trainer = Trainer(
        model or plugin.build(config),
        toy_task.Recall(toy_task.RecallSettings(padded=True)),
        settings,
        0,
        torch.device("cpu"),
        "fp32",
        tmp_path / "checkpoints",
        (log if log is not None else []).append,
        budget,
        lambda length: plugin.flops(config, length).training_total,
    )
    trainer.train(Silent(), lambda step: None)
    return trainer


@pytest.mark.parametrize("target", [1, 100, 313])
def test_tokens_end_training_with_the_batch_that_reaches_them(tmp_path, target):
    state = trained(tmp_path, TrainingBudget("tokens", target)).state
    before = trained(tmp_path / "before", TrainingBudget("steps", state.step - 1)).state if state.step > 1 else None
    assert state.tokens >= target
    assert before is None or before.tokens < target


def test_flops_are_those_that_the_plugin_declares_for_the_real_tokens(tmp_path):
    """The toy's FLOPs are in proportion to the tokens, padding not counted."""
    state = trained(tmp_path, TrainingBudget("flops", 100_000)).state
    per_token = toy_model.Neighbour().flops(toy_model.Neighbour.presets["tiny"], 1).training_total
    assert state.flops == per_token * state.tokens >= 100_000


def test_seconds_end_training_and_count_neither_warm_up_nor_evaluation(tmp_path):
    log = []
    budget = TrainingBudget("seconds", 0.3)
    state = trained(tmp_path, budget, log=log, log_interval=1, checkpoint_interval=0, evaluation_interval=0).state
    assert log[-2]["seconds"] < 0.3 <= log[-1]["seconds"] == state.seconds
    assert log[-1]["progress"] == 1.0
    assert [row["seconds"] for row in log] == sorted(row["seconds"] for row in log)


def test_the_learning_rate_ends_at_the_final_fraction_whatever_the_budget(tmp_path):
    final = {}
    for number, budget in enumerate([None, TrainingBudget("tokens", 2_000), TrainingBudget("flops", 2_000_000)]):
        log = []
        trained(tmp_path / str(number), budget, log=log, steps=100, log_interval=1)
        final[number] = log[-1]["learning_rate"] / toy_task.TRAINER["learning_rate"]
        assert max(row["learning_rate"] for row in log) == pytest.approx(toy_task.TRAINER["learning_rate"], rel=0.01)
    assert all(value == pytest.approx(0.1, abs=0.01) for value in final.values())


def test_a_token_budget_that_was_interrupted_goes_on_to_the_same_weights(tmp_path):
    """Stopped by a smaller budget, whose schedule is not this one's: the same budget's checkpoint is what goes on."""

    class Stop(Exception):
        pass

    def stop(step):
        raise Stop

    budget = TrainingBudget("tokens", 400)
    whole = trained(tmp_path / "whole", budget)
    with pytest.raises(Stop):
        interrupted(tmp_path / "cut", budget, stop)
    again = trained(tmp_path / "cut", budget)
    assert again.state.tokens == whole.state.tokens
    weights = zip(whole.model.parameters(), again.model.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in weights)


def interrupted(tmp_path, budget, evaluate):
    settings = TrainerSettings(**toy_task.TRAINER)
    torch.manual_seed(0)
    model = toy_model.Neighbour().build(toy_model.Neighbour.presets["tiny"])
    task = toy_task.Recall(toy_task.RecallSettings(padded=True))
    log = [].append
    trainer = Trainer(model, task, settings, 0, torch.device("cpu"), "fp32", tmp_path / "checkpoints", log, budget)
    trainer.train(Silent(), evaluate)


class Hungry(toy_model.NeighbourModel):
    """Fits two sequences into memory while it trains."""

    def forward(self, input_ids, attention_mask=None, **rest):
        if self.training and input_ids.shape[0] > 2:
            self.dropout(torch.ones(5))
            raise torch.OutOfMemoryError("tried to allocate 7 PiB")
        return super().forward(input_ids, attention_mask, **rest)


def hungry(dropout=0.0):
    torch.manual_seed(0)
    return Hungry(toy_model.NeighbourConfig(vocab_size=8, width=8, dropout=dropout))


def test_when_memory_runs_out_the_micro_batch_is_halved_and_the_batch_stays(tmp_path):
    log = []
    trainer = trained(tmp_path / "hungry", model=hungry(), log=log, batch_size=8)
    assert [row["micro_batch_size"] for row in log if row["kind"] == "micro-batch"] == [4, 2]
    assert trainer.state.micro_batch_size == 2
    other = trained(tmp_path / "cut", model=hungry(), batch_size=8, micro_batch_size=2)
    weights = zip(trainer.model.parameters(), other.model.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in weights)


def test_a_failed_attempt_leaves_the_random_numbers_as_they_were(tmp_path):
    trainer = trained(tmp_path / "hungry", model=hungry(0.5), batch_size=8)
    other = trained(tmp_path / "cut", model=hungry(0.5), batch_size=8, micro_batch_size=2)
    weights = zip(trainer.model.parameters(), other.model.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in weights)


def test_a_single_sequence_that_does_not_fit_is_the_end(tmp_path):
    class Starving(toy_model.NeighbourModel):
        def forward(self, input_ids, attention_mask=None, **rest):
            raise torch.OutOfMemoryError("tried to allocate 7 PiB")

    with pytest.raises(torch.OutOfMemoryError):
        trained(tmp_path, model=Starving(toy_model.NeighbourConfig()))
