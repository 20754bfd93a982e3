"""`seqbench.evaluating.streaming.stream`: sequences of any length, for every model that carries its state."""

import functools
import weakref
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from model_support import largest_difference, pad_rows, random_tokens
from torch import Tensor, nn
from toy_model import NeighbourConfig, StatelessModel
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from seqbench.errors import RequestError
from seqbench.evaluating.streaming import StreamChunk, stream
from seqbench.plugins.registry import MODEL_GROUP, announced, find_model

pytestmark = pytest.mark.transformers

VOCABULARY, LENGTH = 41, 50
TOKENS = random_tokens(2, LENGTH, VOCABULARY)
# Plugins that are named with an argument: one to try them with.
ARGUMENTS = {"hf": "hf:llama"}
SHIPPED = sorted(ARGUMENTS.get(name, name) for name in announced(MODEL_GROUP))


class SumConfig(PreTrainedConfig):
    model_type = "toy-sum"


class SumModel(PreTrainedModel):
    """Logits are the embeddings summed over all tokens so far; the state is that sum, changed in place."""

    config_class = SumConfig

    def __init__(self, config: SumConfig) -> None:
        super().__init__(config)
        self.embedding = nn.Embedding(VOCABULARY, 3)
        self.dropout = nn.Dropout(0.5)
        self.calls: list[SimpleNamespace] = []
        self.post_init()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        past_key_values: dict[str, Tensor] | None = None,
        use_cache: bool = False,
        **_: Any,
    ) -> CausalLMOutputWithPast:
        self.calls.append(SimpleNamespace(gradients=torch.is_grad_enabled(), shape=tuple(input_ids.shape)))
        inputs = self.dropout(self.embedding(input_ids))
        if attention_mask is not None:
            inputs = inputs * attention_mask.unsqueeze(2)
        state = {"sum": torch.zeros(input_ids.shape[0], 3)} if past_key_values is None else past_key_values
        sums = state["sum"].unsqueeze(1) + inputs.cumsum(dim=1)
        state["sum"] = sums[:, -1].clone()
        return CausalLMOutputWithPast(logits=sums, past_key_values=state if use_cache else None)  # type: ignore[arg-type]


@functools.cache
def toy() -> SumModel:
    torch.manual_seed(0)
    return SumModel(SumConfig())


@functools.cache
def shipped(name: str) -> PreTrainedModel:
    plugin = find_model(name)
    torch.manual_seed(0)
    return plugin.build(plugin.with_vocabulary(plugin.presets["tiny"], VOCABULARY))


@torch.no_grad()
def whole(model: PreTrainedModel, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
    """Logits of one call over the whole sequence."""
    return model.eval()(tokens, attention_mask=mask).logits


def joined(chunks: Iterator[StreamChunk]) -> Tensor:
    return torch.cat([chunk.logits for chunk in chunks], dim=1)


def cut(tokens: Tensor, sizes: list[int]) -> Iterator[Tensor]:
    """The sequence in parts of the given sizes, and a last one."""
    yield from tokens.split([*sizes, tokens.shape[1] - sum(sizes)], dim=1)


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("chunk_length", [1, 7, LENGTH, 1000])
def test_a_stream_equals_the_full_forward_whatever_the_chunks(name: str, chunk_length: int) -> None:
    model = shipped(name)
    assert largest_difference(joined(stream(model, TOKENS, chunk_length=chunk_length)), whole(model, TOKENS)) < 1e-4


@pytest.mark.parametrize("name", SHIPPED)
def test_the_state_of_one_stream_continues_in_another(name: str) -> None:
    model = shipped(name)
    first = list(stream(model, TOKENS[:, :23], chunk_length=10))
    second = stream(model, TOKENS[:, 23:], chunk_length=8, state=first[-1].state)
    both = torch.cat((joined(iter(first)), joined(second)), dim=1)
    assert largest_difference(both, whole(model, TOKENS)) < 1e-4


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("side", ["left", "right"])
def test_rows_of_different_length_are_streamed_with_a_mask(name: str, side: str) -> None:
    """Also where a whole chunk of a row is padding."""
    model = shipped(name)
    rows = [random_tokens(1, length, VOCABULARY, seed=length)[0] for length in (20, 13, 3)]
    tokens, mask = pad_rows(rows, [20 - len(row) if side == "left" else 0 for row in rows], 20)
    logits = joined(stream(model, tokens, mask, chunk_length=6))
    for index, row in enumerate(rows):
        assert largest_difference(logits[index, mask[index].bool()], whole(model, row.unsqueeze(0))[0]) < 1e-4


@given(st.lists(st.integers(0, 12), max_size=4), st.lists(st.integers(0, 12), max_size=4), st.integers(1, 60))
def test_a_sequence_may_come_in_parts_of_any_sizes(sizes: list[int], mask_sizes: list[int], chunk_length: int) -> None:
    """Tokens and mask each in their own; the chunks are those of the whole sequence."""
    mask = (random_tokens(2, LENGTH, 4) > 0).long()
    expected = list(stream(toy(), TOKENS, mask, chunk_length=chunk_length))
    found = list(stream(toy(), cut(TOKENS, sizes), cut(mask, mask_sizes), chunk_length=chunk_length))
    assert [chunk.start for chunk in found] == list(range(0, LENGTH, chunk_length))
    for one, other in zip(found, expected, strict=True):
        assert one.start == other.start
        assert torch.equal(one.input_ids, other.input_ids)
        assert one.attention_mask is not None and other.attention_mask is not None
        assert torch.equal(one.attention_mask, other.attention_mask)
        assert torch.equal(one.logits, other.logits)
    assert torch.equal(torch.cat([chunk.input_ids for chunk in found], dim=1), TOKENS)


@pytest.mark.parametrize(
    "kind",
    [
        lambda tokens: tokens.to(torch.uint8),
        lambda tokens: tokens.to(torch.int32),
        lambda tokens: tokens.numpy(),
        lambda tokens: np.frombuffer(tokens[:1].to(torch.uint8).numpy().tobytes(), np.uint8)[None],
        lambda tokens: (part.numpy().astype(np.uint16) for part in cut(tokens, [3, 20])),
    ],
    ids=["uint8", "int32", "array", "bytes", "parts of uint16"],
)
def test_tokens_may_be_any_integers(kind: Callable[[Tensor], Any]) -> None:
    logits = joined(stream(toy(), kind(TOKENS), chunk_length=9))
    assert torch.equal(logits, joined(stream(toy(), TOKENS[: logits.shape[0]], chunk_length=9)))


def test_the_loss_of_a_file_read_piece_by_piece_is_that_of_the_whole() -> None:
    """The example of the docstring."""
    nats, last = 0.0, None
    for chunk in stream(toy(), cut(TOKENS[:1], [17, 9]), chunk_length=11):
        logits, targets = chunk.logits[0, :-1], chunk.input_ids[0]
        if last is None:
            targets = targets[1:]
        else:
            logits = torch.cat((last, logits))
        nats += F.cross_entropy(logits, targets.clamp(max=2), reduction="sum").item()
        last = chunk.logits[0, -1:].clone()
    expected = F.cross_entropy(whole(toy(), TOKENS[:1])[0, :-1], TOKENS[0, 1:].clamp(max=2), reduction="sum")
    assert nats == pytest.approx(expected.item(), rel=1e-5)


def test_nothing_keeps_earlier_logits_and_tokens_alive() -> None:
    parts: list[weakref.ref[np.ndarray[Any, Any]]] = []
    logits: list[weakref.ref[Tensor]] = []

    def pieces() -> Iterator[Tensor]:
        for seed in range(20):
            # Memory of the array is the tensor's, whatever view of it remains.
            piece = random_tokens(1, 10, VOCABULARY, seed=seed).numpy().copy()
            parts.append(weakref.ref(piece))
            yield torch.from_numpy(piece)
            del piece
            assert all(reference() is None for reference in parts)

    def at_each_step(*_: Any) -> None:
        assert all(reference() is None for reference in logits)

    model = SumModel(SumConfig())
    model.register_forward_pre_hook(at_each_step)
    for chunk in stream(model, pieces(), chunk_length=7):
        logits.append(weakref.ref(chunk.logits))
        del chunk
    assert len(logits) == -(-200 // 7)


def test_no_more_is_read_than_the_next_chunk_needs() -> None:
    read = []

    def pieces() -> Iterator[Tensor]:
        for start in range(100):
            read.append(start)
            yield TOKENS[:, :5]

    chunks = stream(toy(), pieces(), chunk_length=8)
    assert read == []
    next(chunks)
    assert read == [0, 1]


def test_between_steps_the_model_and_gradients_are_as_the_caller_has_them() -> None:
    """Whatever parts are in training mode; also when the caller stops early, and when a step fails."""
    model = SumModel(SumConfig()).train()
    model.embedding.eval()
    modes = {name: module.training for name, module in model.named_modules()}
    assert modes == {"": True, "embedding": False, "dropout": True}
    for _ in stream(model, TOKENS, chunk_length=20):
        assert torch.is_grad_enabled()
        assert {name: module.training for name, module in model.named_modules()} == modes
        break
    assert model.calls[-1].gradients is False
    with pytest.raises(IndexError):
        list(stream(model, TOKENS + VOCABULARY))
    assert {name: module.training for name, module in model.named_modules()} == modes
    assert torch.is_grad_enabled()


def test_a_step_is_in_evaluation_mode_and_without_gradients() -> None:
    model = SumModel(SumConfig()).train()
    chunks = list(stream(model, TOKENS, chunk_length=20))
    assert not any(chunk.logits.requires_grad for chunk in chunks)
    assert torch.equal(joined(iter(chunks)), joined(stream(model.eval(), TOKENS, chunk_length=20)))
    assert [call.shape for call in model.calls[:3]] == [(2, 20), (2, 20), (2, 10)]


def test_autocast_is_the_callers() -> None:
    model = shipped("transformer")
    with torch.autocast("cpu", torch.bfloat16):
        assert next(stream(model, TOKENS)).logits.dtype == torch.bfloat16
    assert next(stream(model, TOKENS)).logits.dtype == torch.float32


def test_a_model_without_a_state_is_refused_by_name() -> None:
    with pytest.raises(RequestError, match=r"StatelessModel returned no past_key_values, .* cannot be streamed"):
        next(stream(StatelessModel(NeighbourConfig()), torch.zeros(1, 4, dtype=torch.int64)))


@pytest.mark.parametrize(
    ("tokens", "named"),
    [
        (torch.zeros(1, 0, dtype=torch.int64), "input_ids holds no tokens"),
        (torch.zeros(0, 3, dtype=torch.int64), r"input_ids of shape \(0, 3\) has no rows"),
        (torch.zeros(3, dtype=torch.int64), r"shape \(batch, length\), not \(3,\); one sequence is tokens\[None\]"),
        (torch.zeros(1, 3), "input_ids must be integers, not torch.float32"),
        (torch.ones(1, 3, dtype=torch.bool), "input_ids must be integers, not torch.bool"),
        (np.zeros((1, 3)), "input_ids must be integers, not float64"),
        (7, "must be a tensor, an array or an iterable of them, not int"),
    ],
    ids=str,
)
def test_a_sequence_that_is_none_is_refused_at_the_call(tokens: Any, named: str) -> None:
    with pytest.raises(RequestError, match=named):
        stream(toy(), tokens)


@pytest.mark.parametrize(
    ("parts", "named"),
    [
        ([], "input_ids holds no tokens"),
        ([TOKENS[:, :0]], "input_ids holds no tokens"),
        ([TOKENS, TOKENS[:1]], "input_ids: a part has 1 rows after parts of 2"),
        ([TOKENS, TOKENS[0]], r"shape \(batch, length\), not \(50,\)"),
        ([[1, 2]], "made of tensors or arrays, not of list"),
        (b"abc", "made of tensors or arrays, not of int"),
    ],
    ids=["nothing", "empty", "other batch", "one dimension", "list", "bytes"],
)
def test_parts_that_are_none_are_refused_when_they_come(parts: Any, named: str) -> None:
    with pytest.raises(RequestError, match=named):
        list(stream(toy(), parts, chunk_length=8))


@pytest.mark.parametrize("chunk_length", [0, -1])
def test_chunks_have_at_least_one_token(chunk_length: int) -> None:
    with pytest.raises(RequestError, match=f"chunk_length must be at least 1, not {chunk_length}"):
        stream(toy(), TOKENS, chunk_length=chunk_length)


@pytest.mark.parametrize(
    "mask", [torch.ones(2, LENGTH - 1), torch.ones(2, LENGTH + 1), torch.ones(1, LENGTH), torch.ones(2, LENGTH + 6)]
)
def test_a_mask_of_another_shape_is_refused(mask: Tensor) -> None:
    with pytest.raises(RequestError, match="attention_mask and input_ids differ in shape"):
        list(stream(toy(), TOKENS, mask.bool(), chunk_length=8))
