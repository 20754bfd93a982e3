"""Models over lengths and modes: warmed up one after another, then timed in turns."""

import functools
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel

from seqbench.accounting.counting import parameter_bytes
from seqbench.errors import RequestError
from seqbench.planning.activations import saved_bytes
from seqbench.planning.memory_estimate import gibibytes
from seqbench.plugins.kernels import forget_taken_paths, requested_paths, taken_paths
from seqbench.speed.clock import Timed, seconds_of
from seqbench.speed.failures import NotRun, describe_failure, release, room
from seqbench.speed.forecast import Forecast
from seqbench.speed.passes import DECODE_STEPS, DecodePass, PrefillPass, TrainingPass
from seqbench.speed.positions import Positions, tensor_bytes
from seqbench.speed.records import FAILED, NOT_RUN, Record
from seqbench.speed.rounds import Cell
from seqbench.speed.subjects import Subject, autocast
from seqbench.speed.warm_up import rise_of, warm_up

# The shares of the first length at which a model is tried out, where that length is a long one.
_TRIED_SHARES = (16, 8, 4)
_LONG_LENGTH = 512
# Untimed calls of a cell, on top of its repeats.
_UNTIMED_CALLS = 3


@dataclass(frozen=True)
class Conditions:
    """What holds for every model.

    Attributes:
        modes, lengths: what is measured; lengths ascending, positions for "decode".
        batch_size: sequences side by side.
        compiled: whether models go through torch.compile.
        repeats: rounds.
        time_limit: seconds that one cell may take by estimate, reaching its position included.
    """

    modes: Sequence[str]
    lengths: Sequence[int]
    batch_size: int
    device: torch.device
    precision: str
    compiled: bool
    repeats: int
    time_limit: float


class Watcher(Protocol):
    """Told while models are warmed up."""

    def warming(self, record: Record) -> None:
        """A cell is begun."""

    def warmed(self, record: Record) -> None:
        """It is ready, or will not be run."""


@dataclass
class _Contestant:
    """A built model with what its cells share."""

    subject: Subject
    conditions: Conditions
    model: PreTrainedModel
    forecasts: dict[str, Forecast] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.weight_bytes = parameter_bytes(self.model)
        self.positions = Positions(
            self.model, self.make_ids, self.forward_flops, self.conditions.time_limit, self.autocast
        )

    def within(self) -> AbstractContextManager[None]:
        """The paths of operations that the model asks for."""
        return nullcontext() if self.subject.paths is None else requested_paths(self.subject.paths)

    def autocast(self) -> AbstractContextManager[Any]:
        return autocast(self.conditions.device, self.conditions.precision)

    def make_ids(self, length: int) -> Tensor:
        """(batch, length) ids, always the same ones; from all that the vocabulary has."""
        generator = torch.Generator().manual_seed(0)
        vocabulary = self.vocabulary
        ids = torch.randint(vocabulary, (self.conditions.batch_size, length), generator=generator)
        return ids.to(self.conditions.device)

    @functools.cached_property
    def vocabulary(self) -> int:
        with torch.no_grad():
            ids = torch.zeros(1, 1, dtype=torch.int64, device=self.conditions.device)
            return self.model(ids).logits.shape[-1]

    def forward_flops(self, length: int) -> float:
        """Of the whole batch."""
        if length == 0:
            return 0.0
        return self.conditions.batch_size * self.subject.plugin.flops(self.subject.config, length).forward_total

    def flops(self, mode: str, length: int) -> float:
        """Declared FLOPs of a call."""
        if mode == "prefill":
            return self.forward_flops(length)
        if mode == "decode":
            # Behind the token that is fed before the clock starts.
            return self.forward_flops(length + 1 + DECODE_STEPS) - self.forward_flops(length + 1)
        flops = self.subject.plugin.flops(self.subject.config, length).training_total
        return self.conditions.batch_size * flops

    def timed(self, mode: str, length: int, call: Callable[..., Any]) -> TrainingPass | PrefillPass:
        kind = TrainingPass if mode == "train" else PrefillPass
        return kind(call, self.model, self.make_ids(length), self.autocast)

    def compiled(self, mode: str) -> Callable[..., Any]:
        """The model's call, compiled for the mode if that was asked for.

        Whole sequences are compiled for their very length, single tokens for a state of any length. A training pass is
        one graph, as in a run; passes with a state cannot be.
        """
        if not self.conditions.compiled:
            return self.model
        return torch.compile(self.model, dynamic=None if mode == "decode" else False, fullgraph=mode == "train")


def warm_up_models(
    subjects: Sequence[Subject],
    conditions: Conditions,
    watcher: Watcher,
    cells: list[Cell],
    described: list[dict[str, Any]],
) -> None:
    """Add a cell for every mode, length and model to `cells`, and make those ready that can be timed.

    A cell that fails or is not run says why. Places are in order of modes and lengths, models as they were named.
    What the models are, and which paths of operations they took, is added to `described`.
    """
    places = [{"mode": mode, "length": length} for mode in conditions.modes for length in conditions.lengths]
    if conditions.compiled:
        _allow_many_graphs(len(subjects) * len(places))
    cells += [Cell(Record(subject.label, place)) for place in places for subject in subjects]
    for subject in subjects:
        forget_taken_paths()
        description = _warm_up_model(
            subject, conditions, [cell for cell in cells if cell.record.name == subject.label], watcher
        )
        described.append({**description, "paths_taken": taken_paths()})


def _warm_up_model(subject: Subject, conditions: Conditions, cells: Sequence[Cell], watcher: Watcher) -> dict[str, Any]:
    try:
        contestant = _Contestant(subject, conditions, subject.build(conditions.device))
        description = subject.describe(contestant.model)
    except Exception as error:
        for cell in cells:
            cell.record.give_up(FAILED, describe_failure(error))
            watcher.warmed(cell.record)
        return {"label": subject.label, "name": subject.name, "failure": describe_failure(error)}
    for cell in cells:
        cell.within = contestant.within
        watcher.warming(cell.record)
        _try_to_get_ready(contestant, cell)
        watcher.warmed(cell.record)
    return description


def _try_to_get_ready(contestant: _Contestant, cell: Cell) -> None:
    state = FAILED
    try:
        with cell.within():
            cell.timed = _ready(contestant, cell.record.place["mode"], cell.record.place["length"], cell.record)
        return
    except (NotRun, RequestError) as refusal:
        reason, state = " ".join(str(refusal).split()), NOT_RUN
    except Exception as error:
        reason = describe_failure(error)
    cell.record.give_up(state, reason)
    release(contestant.conditions.device)


def _ready(contestant: _Contestant, mode: str, length: int, record: Record) -> Timed:
    """What is timed of a cell, warmed up, its record filled in. Raises NotRun for what would not fit or take long."""
    ready = _ready_to_decode if mode == "decode" else _ready_for_sequences
    timed = ready(contestant, mode, length, record)
    assert record.rise_bytes is not None
    record.flops = contestant.flops(mode, length)
    return timed


def _ready_for_sequences(contestant: _Contestant, mode: str, length: int, record: Record) -> Timed:
    forecast = contestant.forecasts.setdefault(mode, Forecast(functools.partial(contestant.flops, mode)))
    if length >= _LONG_LENGTH and not forecast.seconds:
        _try_out(contestant, mode, length, forecast)
    _require(contestant, forecast, length)
    timed = contestant.timed(mode, length, contestant.compiled(mode))
    seconds = warm_up(timed, record, contestant.conditions.device, contestant.conditions.compiled)
    assert record.rise_bytes is not None
    forecast.note(length, seconds, record.rise_bytes)
    record.peak_bytes = contestant.weight_bytes + record.rise_bytes
    if isinstance(timed, TrainingPass):
        record.activation_bytes = _activations(contestant, length)
    return timed


def _try_out(contestant: _Contestant, mode: str, length: int, forecast: Forecast) -> None:
    """Short passes, from which a long one is foreseen; the first call of a model counts for nothing."""
    device = contestant.conditions.device
    for share in _TRIED_SHARES:
        timed = contestant.timed(mode, length // share, contestant.model)
        if not forecast.seconds:
            seconds_of(timed, device)
        forecast.note(length // share, seconds_of(timed, device), rise_of(timed, device))
        # What is out of reach is not tried at a quarter of it.
        _require_time(contestant.conditions, forecast, length)


def _require(contestant: _Contestant, forecast: Forecast, length: int) -> None:
    """Raise NotRun when a pass would take too long or too much memory, as far as passes were made to tell."""
    conditions = contestant.conditions
    if not forecast.seconds:
        return
    _require_time(conditions, forecast, length)
    rise, left = forecast.expected_rise(length), room(conditions.device)
    if rise > left:
        raise NotRun(f"it would take about {gibibytes(round(rise))} and {gibibytes(left)} may be taken")


def _require_time(conditions: Conditions, forecast: Forecast, length: int) -> None:
    seconds = (conditions.repeats + _UNTIMED_CALLS) * forecast.expected_seconds(length)
    if seconds > conditions.time_limit:
        raise NotRun(f"it would take about {seconds:,.0f} s, more than --time-limit {conditions.time_limit:g}")


def _ready_to_decode(contestant: _Contestant, mode: str, length: int, record: Record) -> Timed:
    conditions, subject = contestant.conditions, contestant.subject
    declared = conditions.batch_size * subject.plugin.state_bytes(subject.config, length)
    left = room(conditions.device)
    # The state that later positions start from, the one that is kept, the one that moves, and the one being made of it.
    if 4 * declared > left:
        raise NotRun(
            f"its state at position {length:,} takes {gibibytes(declared)}, four of which exceed the"
            f" {gibibytes(left)} that may be taken"
        )
    state = contestant.positions.at(length)
    ids = contestant.make_ids(1 + DECODE_STEPS)
    timed = DecodePass(contestant.compiled(mode), contestant.model, ids, state, contestant.autocast)
    warm_up(timed, record, conditions.device, conditions.compiled)
    assert record.rise_bytes is not None
    held = tensor_bytes(state)
    record.peak_bytes = contestant.weight_bytes + held + record.rise_bytes
    # One sequence reads all weights, each sequence of a batch its own state.
    record.traffic_bytes = (contestant.weight_bytes + held) // conditions.batch_size
    return timed


def _activations(contestant: _Contestant, length: int) -> int:
    """Of the model as it stands: what torch.compile keeps instead shows in the peak."""
    timed = contestant.timed("train", length, contestant.model)
    assert isinstance(timed, TrainingPass)
    timed.prepare()
    try:
        return saved_bytes(contestant.model, timed.forward)
    finally:
        timed.clear()


def _allow_many_graphs(count: int) -> None:
    """torch.compile gives a function up after a few lengths; here each has its own graph, and all stay."""
    import torch._dynamo

    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 2 * count + 8)
    torch._dynamo.config.accumulated_recompile_limit = max(torch._dynamo.config.accumulated_recompile_limit, 64 * count)
