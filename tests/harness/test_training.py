"""The one training loop: schedule, optimizers, gradients, and what it does with a model or task that goes wrong."""

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from toy_model import Neighbour, NeighbourSettings
from toy_task import Recall, RecallSettings

from seqbench.contracts import IGNORED_LABEL
from seqbench.errors import RunFailure
from seqbench.training.data_order import DataOrderHash
from seqbench.training.matrices import split_parameters
from seqbench.training.muon import Muon
from seqbench.training.optimizer import build_optimizers
from seqbench.training.schedule import learning_rate_at
from seqbench.training.settings import TrainerSettings
from seqbench.training.trainer import Trainer

SETTINGS = TrainerSettings(
    steps=6,
    batch_size=6,
    warmup_steps=2,
    learning_rate=1e-2,
    log_interval=1,
    evaluation_interval=0,
    checkpoint_interval=0,
)
# No dropout: the same gradient however the batch is cut.
QUIET = NeighbourSettings(dropout=0.0)


class Silent:
    def advance(self, step, share, loss, tokens_per_second):
        pass

    def note(self, message):
        pass


def built(config=QUIET, seed=0):
    torch.manual_seed(seed)
    return Neighbour().build(config)


@pytest.fixture
def train(tmp_path):
    """Train a toy model; returns model, state and log."""

    def run(settings=SETTINGS, task=None, precision="fp32", model=None, evaluate=lambda step: None, **changes):
        log = []
        model = model or built()
        settings = dataclasses.replace(settings, **changes)
        task = task or Recall(RecallSettings())
        trainer = Trainer(model, task, settings, 0, torch.device("cpu"), precision, tmp_path / "none", log.append)
        state = trainer.train(Silent(), evaluate)
        return model, state, log

    return run


def rates(**changes):
    settings = TrainerSettings(**{"steps": 11, "warmup_steps": 0, "learning_rate": 1.0, **changes})
    return [learning_rate_at(step, settings) for step in range(settings.steps)]


def test_warm_up_rises_evenly_and_reaches_the_peak():
    assert rates(warmup_steps=3)[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])


def test_cosine_ends_at_the_final_fraction_and_is_half_way_in_the_middle():
    decay = rates(final_learning_rate_fraction=0.2)
    assert decay[0] == 1.0
    assert decay[5] == pytest.approx(0.6)
    assert decay[-1] == pytest.approx(0.2)
    assert decay == sorted(decay, reverse=True)


def test_constant_stays_at_the_peak():
    assert rates(schedule="constant", warmup_steps=2)[2:] == [1.0] * 9


@pytest.mark.parametrize("steps", [1, 2])
def test_the_shortest_runs_have_a_rate(steps):
    assert all(0 < rate <= 1 and math.isfinite(rate) for rate in rates(steps=steps, warmup_steps=steps - 1))


def test_weights_of_linear_maps_are_apart_from_embeddings_heads_biases_and_norms():
    model = built()
    matrices, rest = split_parameters(model)
    assert [id(each.parameter) for each in matrices] == [id(model.inner.weight)]
    named = {id(each) for _, each in rest}
    assert named == {id(each) for each in model.parameters()} - {id(model.inner.weight)}
    # The head is tied: one parameter, an embedding, listed once.
    assert model.lm_head.weight is model.embedding.weight
    assert len(rest) == len(named)


def test_a_head_of_its_own_counts_as_an_embedding_and_frozen_weights_are_left_out():
    model = built()
    model.lm_head.weight = nn.Parameter(torch.zeros(8, 8))
    model.norm.weight.requires_grad = False
    matrices, rest = split_parameters(model)
    parameters = [each for _, each in rest]
    assert any(each is model.lm_head.weight for each in parameters)
    assert not any(each is model.norm.weight for each in [*(matrix.parameter for matrix in matrices), *parameters])


def test_adamw_decays_weights_of_linear_maps_only():
    [optimizer] = build_optimizers(built(), dataclasses.replace(SETTINGS, weight_decay=0.3))
    assert [(len(group["params"]), group["weight_decay"]) for group in optimizer.param_groups] == [(1, 0.3), (4, 0.0)]


def test_muon_takes_the_matrices_and_adamw_the_rest():
    model = built()
    muon, adamw = build_optimizers(model, dataclasses.replace(SETTINGS, optimizer="muon", momentum=0.8))
    assert isinstance(muon, Muon)
    assert isinstance(adamw, torch.optim.AdamW)
    assert [each is model.inner.weight for each in muon.param_groups[0]["params"]] == [True]
    assert muon.param_groups[0]["momentum"] == 0.8
    assert len(adamw.param_groups[0]["params"]) == 4


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_training_lowers_the_loss(train, optimizer):
    _, _, log = train(steps=150, optimizer=optimizer, learning_rate=3e-2)
    assert log[-1]["loss"] < 0.9 * log[0]["loss"]


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("micro", [1, 2, 4, 6])
def test_micro_batches_give_the_gradient_of_the_whole_batch(train, micro, padded):
    task = Recall(RecallSettings(padded=padded))
    whole, _, log = train(task=task)
    cut, _, cut_log = train(task=task, micro_batch_size=micro)
    for key in ("loss", "gradient_norm"):
        assert [row[key] for row in cut_log] == pytest.approx([row[key] for row in log], rel=1e-5)
    for one, other in zip(whole.parameters(), cut.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    assert [row["data_order_sha256"] for row in cut_log] == [row["data_order_sha256"] for row in log]


def test_the_loss_is_the_mean_over_labelled_tokens_of_the_whole_batch(train):
    task = Recall(RecallSettings(padded=True))
    batch = task.training_batch(0, 0, 6)
    logits = built()(batch.input_ids, attention_mask=batch.attention_mask).logits
    expected = F.cross_entropy(logits.flatten(0, 1), batch.labels.flatten(), ignore_index=IGNORED_LABEL)
    _, state, log = train(task=task, steps=1, warmup_steps=0, micro_batch_size=2)
    assert log[0]["loss"] == pytest.approx(expected.item(), rel=1e-5)
    assert state.tokens == int(batch.attention_mask.sum())


def test_clipping_scales_the_step_and_not_the_reported_norm(train):
    _, _, free = train(gradient_clip_norm=None, steps=1, warmup_steps=0)
    before, after = built(), train(gradient_clip_norm=1e-12, steps=1, warmup_steps=0, weight_decay=0.0)
    assert after[2][0]["gradient_norm"] == pytest.approx(free[0]["gradient_norm"])
    # AdamW divides by the root of the second moment; far below its epsilon nothing moves.
    for one, other in zip(before.parameters(), after[0].parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


def test_the_log_has_rate_norm_tokens_and_data_of_each_line(train):
    _, state, log = train(log_interval=4)
    assert [row["step"] for row in log] == [4, 6]
    assert log[0]["learning_rate"] == learning_rate_at(3, SETTINGS)
    assert log[-1]["tokens"] == state.tokens == 6 * 6 * 6
    assert log[-1]["data_order_sha256"] == state.data_order
    assert 0 < log[0]["seconds"] < log[1]["seconds"] == state.seconds


def test_every_step_is_in_exactly_one_line_whatever_the_intervals(train, tmp_path):
    """A line before each evaluation and checkpoint, so that neither loses what was summed up so far."""
    _, _, log = train(steps=12, log_interval=5, evaluation_interval=4, checkpoint_interval=3)
    assert [row["step"] for row in log] == [3, 4, 5, 6, 8, 9, 10, 12]


def test_each_line_has_the_loss_and_gradient_norm_of_each_of_its_steps(train):
    _, _, singly = train(steps=12)
    _, _, log = train(steps=12, log_interval=5, evaluation_interval=4, checkpoint_interval=3)
    for one, each in (("loss", "losses"), ("gradient_norm", "gradient_norms")):
        assert [value for row in log for value in row[each]] == [row[one] for row in singly]
        assert [row[one] for row in log] == pytest.approx([sum(row[each]) / len(row[each]) for row in log])
    assert [len(row["losses"]) for row in log] == [3, 1, 1, 1, 2, 1, 1, 2]


def test_gradient_norms_by_module_add_up_to_that_of_the_step(train):
    _, _, log = train(log_interval=4, gradient_clip_norm=1e-3)
    assert [list(row["module_gradient_norms"]) for row in log] == [["embedding", "inner", "norm"]] * 2
    for row in log:
        squares = [norm**2 for norm in row["module_gradient_norms"].values()]
        assert sum(squares) == pytest.approx(row["gradient_norms"][-1] ** 2, rel=1e-5)
        assert min(squares) > 0


def test_a_module_norm_is_that_of_the_whole_batch_before_clipping(train):
    batch, model = Recall(RecallSettings()).training_batch(0, 0, 6), built()
    logits = model(batch.input_ids).logits
    F.cross_entropy(logits.flatten(0, 1), batch.labels.flatten(), ignore_index=IGNORED_LABEL).backward()
    expected = torch.cat([each.grad.flatten() for each in model.inner.parameters()]).norm().item()
    _, _, [row] = train(steps=1, warmup_steps=0, micro_batch_size=2, gradient_clip_norm=1e-3)
    assert row["module_gradient_norms"]["inner"] == pytest.approx(expected, rel=1e-4)


def test_gradient_norms_by_module_come_at_the_log_interval_and_at_the_last_step(train):
    _, _, log = train(steps=8, log_interval=3, evaluation_interval=4)
    assert [row["step"] for row in log] == [3, 4, 6, 8]
    assert [row["step"] for row in log if "module_gradient_norms" in row] == [3, 6, 8]


def test_evaluations_come_at_their_interval_and_not_at_the_end(train):
    seen = []
    train(steps=9, evaluation_interval=3, evaluate=seen.append)
    assert seen == [3, 6]


def test_bf16_trains_in_fp32_weights(train):
    model, _, log = train(precision="bf16", steps=30, warmup_steps=2, learning_rate=3e-2)
    assert {each.dtype for each in model.parameters()} == {torch.float32}
    assert log[-1]["loss"] < log[0]["loss"]
    assert (
        train(steps=1, warmup_steps=0)[2][0]["loss"] != train(precision="bf16", steps=1, warmup_steps=0)[2][0]["loss"]
    )


@pytest.mark.parametrize(("log_interval", "last"), [(1, 3), (4, 4), (5, 5)])
def test_a_loss_that_is_not_finite_ends_the_run_at_the_next_line_which_names_the_step(train, log_interval, last):
    model, calls = built(), []

    def spoil(module, inputs, output):
        calls.append(output)
        return output * math.nan if len(calls) == 3 else output

    model.inner.register_forward_hook(spoil)
    with pytest.raises(RunFailure, match="loss is no longer finite at step 3;") as failure:
        train(model=model, log_interval=log_interval)
    assert failure.value.reason == "divergence"
    assert len(calls) == last


def test_a_gradient_that_is_not_finite_ends_the_run_too(train):
    model = built()
    model.inner.weight.register_hook(lambda gradient: gradient * math.inf)
    with pytest.raises(RunFailure, match="gradient norm is no longer finite at step 1;"):
        train(model=model)


def test_a_batch_without_labels_is_the_tasks_error(train):
    with pytest.raises(RunFailure, match="batch 0 of the task has no labelled position") as failure:
        train(task=Recall(RecallSettings(labelled=False)))
    assert failure.value.reason == "task-error"


def chained(indices, task=None, batch_size=4):
    order = DataOrderHash()
    for index in indices:
        order.add((task or Recall(RecallSettings())).training_batch(0, index, batch_size))
    return order.digest


def test_the_data_order_hash_tells_content_order_and_length():
    assert chained([0, 1]) == chained([0, 1])
    others = [chained([1, 0]), chained([0]), chained([0, 1, 2]), chained([0, 1], batch_size=3), chained([])]
    padded = chained([0, 1], Recall(RecallSettings(padded=True)))
    assert len({chained([0, 1]), padded, *others}) == 7


def test_the_data_order_hash_goes_on_from_a_stored_digest():
    order = DataOrderHash(chained([0, 1]))
    order.add(Recall(RecallSettings()).training_batch(0, 2, 4))
    assert order.digest == chained([0, 1, 2])
