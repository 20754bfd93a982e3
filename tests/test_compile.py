"""torch.compile takes every installed model whole: one graph for a training step, one for a forward pass.

"aot_eager" traces forward and backward as the real backends do and then runs torch's own operators, so that the results
are those of an uncompiled model to rounding.
"""

import functools
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from model_support import enliven, largest_difference, pad_rows, random_tokens
from torch import Tensor
from transformers import PreTrainedModel

from seqbench.contracts import describe_settings, with_settings
from seqbench.plugins.registry import MODEL_GROUP, announced, find_model, takes_argument

# Plugins that are named with an argument: one to try them with.
ARGUMENTS = {"hf": "llama"}
MODELS = sorted(announced(MODEL_GROUP))
# Those with operations, or a way of carrying state, that no other of them has: further ones of a family are traced once
# each. Machine code is made of fewer, which takes a minute each.
OF_EACH_KIND = ("gated-convolution", "gla", "hf", "mamba", "mamba2", "pmnet", "retnet", "transformer")
MADE_INTO_MACHINE_CODE = ("gla", "mamba", "pmnet")
# torch does not trace its own recurrent layers: `--compile` refuses these by name.
NOT_TRACED = {"gru", "lstm"}
VOCABULARY = 41
# Beyond every length up to which some model computes in another way.
LENGTH = 70
# Lengths of a run whose batches differ, and the graphs that serve them all: the first length has one of its own, and
# those around which a model changes its way of computing another.
LENGTHS = (40, 48, 33, 70, 130, 128, 200, 90)
MOST_GRAPHS = 4


@pytest.fixture(autouse=True)
def nothing_compiled_before() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@functools.cache
def build(name: str) -> PreTrainedModel:
    """The smallest preset with two layers (each model's layers are alike) and weights that make every part matter."""
    plugin = find_model(f"{name}:{ARGUMENTS[name]}" if takes_argument(announced(MODEL_GROUP)[name]) else name)
    config = plugin.with_vocabulary(plugin.presets[plugin.default_preset], VOCABULARY)
    if "num_hidden_layers" in describe_settings(type(config)):
        config = with_settings(config, {"num_hidden_layers": "2"}, name)
    torch.manual_seed(0)
    return enliven(plugin.build(config), 4)


class Compiled:
    """A function compiled by "aot_eager"; `graphs` counts what it was cut into, over all calls."""

    def __init__(self, function: Callable[..., Any], fullgraph: bool = True) -> None:
        self.graphs = 0
        self._function = torch.compile(function, backend=self._count, fullgraph=fullgraph)

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)

    def _count(self, graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
        self.graphs += 1
        return torch._dynamo.lookup_backend("aot_eager")(graph, inputs)


def batches() -> dict[str, tuple[Tensor, Tensor | None]]:
    rows = [random_tokens(1, length, VOCABULARY, seed=length)[0] for length in (LENGTH, LENGTH - 7)]
    return {"whole rows": (random_tokens(2, LENGTH, VOCABULARY), None), "padded rows": pad_rows(rows, (0, 3), LENGTH)}


def loss_and_gradients(step: Callable[..., Tensor], model: PreTrainedModel, *batch: Any) -> tuple[Tensor, list[Tensor]]:
    model.train().zero_grad()
    loss = step(*batch)
    loss.backward()
    return loss.detach(), [parameter.grad.clone() for parameter in model.parameters()]


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        *((name, "padded rows") for name in MODELS if name not in NOT_TRACED),
        *((name, "whole rows") for name in OF_EACH_KIND),
    ],
)
def test_a_training_step_is_one_graph_and_gives_the_same_loss_and_gradients(name: str, rows: str) -> None:
    model, (tokens, mask) = build(name), batches()[rows]

    def step(tokens: Tensor, mask: Tensor | None) -> Tensor:
        return model(tokens, attention_mask=mask, labels=tokens).loss

    compiled = Compiled(step)
    loss, gradients = loss_and_gradients(compiled, model, tokens, mask)
    expected_loss, expected = loss_and_gradients(step, model, tokens, mask)
    assert compiled.graphs == 1
    assert abs(loss - expected_loss) < 1e-5
    for gradient, own in zip(expected, gradients, strict=True):
        assert largest_difference(own, gradient) < 1e-4 * max(1.0, gradient.abs().max().item())
    loss_and_gradients(compiled, model, tokens, mask)
    assert compiled.graphs == 1, "the same batch is compiled again"


@pytest.mark.parametrize("name", sorted(NOT_TRACED))
def test_what_torch_does_not_trace_is_no_graph_that_computes_something_else(name: str) -> None:
    model, (tokens, mask) = build(name), batches()["padded rows"]
    with pytest.raises(torch._dynamo.exc.Unsupported):
        Compiled(lambda tokens, mask: model(tokens, attention_mask=mask).logits)(tokens, mask)


@pytest.mark.parametrize("name", OF_EACH_KIND)
def test_a_forward_pass_for_evaluation_is_one_graph_and_gives_the_same_logits(name: str) -> None:
    model, tokens = build(name).eval(), random_tokens(2, LENGTH, VOCABULARY)

    def logits(tokens: Tensor) -> Tensor:
        return model(tokens).logits

    compiled = Compiled(logits)
    with torch.no_grad():
        assert largest_difference(compiled(tokens), logits(tokens)) < 1e-4
    assert compiled.graphs == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", OF_EACH_KIND)
def test_batches_of_many_lengths_share_a_few_graphs(name: str) -> None:
    model = build(name).train()

    def loss(tokens: Tensor) -> Tensor:
        return model(tokens, labels=tokens).loss

    compiled = Compiled(loss)
    for length in LENGTHS:
        tokens = random_tokens(2, length, VOCABULARY)
        assert abs(compiled(tokens) - loss(tokens)) < 1e-5
    assert compiled.graphs <= MOST_GRAPHS


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="compiling for a CPU needs g++")
@pytest.mark.parametrize("name", MADE_INTO_MACHINE_CODE)
def test_compiled_to_machine_code_it_gives_the_same_loss_and_gradients(name: str) -> None:
    model, (tokens, mask) = build(name), batches()["padded rows"]

    def step(tokens: Tensor, mask: Tensor) -> Tensor:
        return model(tokens, attention_mask=mask, labels=tokens).loss

    loss, gradients = loss_and_gradients(torch.compile(step, fullgraph=True), model, tokens, mask)
    expected_loss, expected = loss_and_gradients(step, model, tokens, mask)
    assert abs(loss - expected_loss) < 1e-4
    for gradient, own in zip(expected, gradients, strict=True):
        assert largest_difference(own, gradient) < 1e-3 * max(1.0, gradient.abs().max().item())
