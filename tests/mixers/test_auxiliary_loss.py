"""An auxiliary loss is trained on beside the next token's, whatever the cut of a batch, and told apart from it."""

from typing import Any

import pytest
import torch
from accelerate import Accelerator
from exceptional import Penalised, Restrained
from torch import Tensor

from seqbench.contracts import Batch
from seqbench.mixers import Chunk, MixerPlugin, Tree
from seqbench.report.training_log import arrange_log
from seqbench.testing.model.subject import ModelSubject
from seqbench.testing.model.training import auxiliary_loss
from seqbench.testing.report import ClauseFailure
from seqbench.training.compilation import CompiledLoss, SummedLoss
from seqbench.training.gradients import GradientAccumulator

SETTINGS = Penalised.config_class(vocab_size=50, hidden_size=16, intermediate_size=16, num_hidden_layers=2)


@pytest.fixture
def model() -> Any:
    torch.manual_seed(0)
    built = Penalised().build(SETTINGS)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.mul_(5)
    return built.train()


def batch() -> Batch:
    tokens = torch.randint(0, 50, (6, 12), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(tokens)
    mask[2, 7:] = 0
    labels = tokens.masked_fill(mask == 0, -100)
    labels[4, :9] = -100
    return Batch(tokens, labels, mask)


def gradients(model: Any, size: int, loss: Any = None) -> tuple[Tensor, Tensor, Tensor]:
    model.zero_grad()
    accumulator = GradientAccumulator(model, loss or SummedLoss(model), Accelerator(cpu=True), size, lambda size: None)
    loss, auxiliary = accumulator.accumulate(batch(), 0)
    assert auxiliary is not None
    return loss, auxiliary, torch.cat([parameter.grad.flatten() for parameter in model.parameters()])


def test_the_objective_is_the_mean_over_tokens_and_the_mean_over_rows(model: Any) -> None:
    """Written out for the whole batch at once."""
    rows = batch()
    output = model(rows.input_ids, attention_mask=rows.attention_mask)
    expected = torch.nn.functional.cross_entropy(output.logits.flatten(0, 1), rows.labels.flatten())
    added = output.auxiliary_loss.mean()
    (expected + added).backward()
    whole = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
    loss, auxiliary, found = gradients(model, 6)
    assert torch.allclose(loss, expected) and torch.allclose(auxiliary, added) and added > 1e-3
    assert (found - whole).abs().max() < 1e-6 * whole.abs().max()


@pytest.mark.parametrize("size", [1, 4])
def test_micro_batches_change_nothing_but_rounding(model: Any, size: int) -> None:
    whole, cut = gradients(model, 6), gradients(model, size)
    for expected, found in zip(whole, cut, strict=True):
        assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


def test_a_compiled_loss_has_it_too(model: Any) -> None:
    plain, compiled = gradients(model, 3), gradients(model, 3, CompiledLoss(model, "fp32", backend="aot_eager"))
    for expected, found in zip(plain, compiled, strict=True):
        assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


def test_the_loss_of_labels_is_the_next_tokens_alone(model: Any) -> None:
    model.eval()
    tokens = batch().input_ids
    with torch.no_grad():
        output = model(tokens, labels=tokens)
        expected = torch.nn.functional.cross_entropy(output.logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
    assert torch.allclose(output.loss, expected)
    assert output.auxiliary_loss.shape == (6,)


def test_the_log_keeps_the_two_apart() -> None:
    rows = [
        {"kind": "train", "step": 2, "losses": [3.0, 2.0], "gradient_norms": [1, 1], "auxiliary_losses": [0.5, 0.25]}
    ]
    log = arrange_log(rows)
    assert log.loss.values.tolist() == [3.0, 2.0] and log.auxiliary_loss.values.tolist() == [0.5, 0.25]


class OverTheBatch(Restrained):
    """As mixtures of experts have it: a mean over all tokens of a call."""

    def forward(self, hidden: Tensor, state: Tree, chunk: Chunk) -> tuple[Tensor, Tree, Tree, Tensor]:
        added, state, stream, _ = super().forward(hidden, state, chunk)
        return added, state, stream, added.square().mean().expand(hidden.shape[0])


class WithPadding(Restrained):
    """Padding counts."""

    def forward(self, hidden: Tensor, state: Tree, chunk: Chunk) -> tuple[Tensor, Tree, Tree, Tensor]:
        added, state, stream, _ = super().forward(hidden, state, chunk)
        return added, state, stream, (added + 1).square().mean(dim=(1, 2))


@pytest.mark.parametrize("wrong", [OverTheBatch, WithPadding])
def test_the_check_finds_a_loss_that_is_not_each_rows_own(wrong: type) -> None:
    plugin: Any = type("Wrong", (MixerPlugin,), {"name": "wrong", "summary": "", "version": "1", "mixer": wrong})
    plugin.presets = {"tiny": plugin.config_class(hidden_size=16, intermediate_size=16, num_hidden_layers=2)}
    with pytest.raises(ClauseFailure, match="auxiliary losses of rows in one batch"):
        auxiliary_loss(ModelSubject(plugin(), "tiny"))
