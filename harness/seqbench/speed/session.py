"""One measurement from warm-up to the last round, stored after every round."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from seqbench.speed.display import SpeedDisplay
from seqbench.speed.high_water import METHODS
from seqbench.speed.models import Conditions, warm_up_models
from seqbench.speed.operations import warm_up_operations
from seqbench.speed.peaks import Peaks
from seqbench.speed.records import MEASURED, NOT_RUN, PENDING, Record, growth, summarise
from seqbench.speed.rounds import Cell, run_rounds
from seqbench.speed.subjects import Subject

COMPLETE, RUNNING, INTERRUPTED = "complete", "running", "interrupted"

Store = Callable[[dict[str, Any]], None]


@dataclass
class Session:
    """What is measured and what is known of it so far.

    Attributes:
        header: what goes before the figures: the request and the environment, plain data.
        store: given the whole content after every round and at the end.
        peaks: None for operations, of which nothing is compared with a peak.
    """

    header: dict[str, Any]
    device: torch.device
    repeats: int
    display: SpeedDisplay
    store: Store
    peaks: Peaks | None = None
    cells: list[Cell] = field(default_factory=list)
    models: list[dict[str, Any]] = field(default_factory=list)
    state: str = RUNNING

    def measure_models(self, subjects: Sequence[Subject], conditions: Conditions) -> None:
        """Models at every length in every mode."""
        dtype = torch.bfloat16 if conditions.precision == "bf16" else torch.float32
        self.peaks = Peaks(self.device, dtype)
        self.peaks.measure()
        product, copy = max(self.peaks.matrix.values()) / 1e9, self.peaks.copy / 1e9
        self.display.peaks(
            f"the device reaches {product:,.4g} GFLOP/s in a {conditions.precision} matrix product and copies at"
            f" {copy:,.4g} GB/s"
        )
        warm_up_models(subjects, conditions, self.display, self.cells, self.models)
        self._rounds()

    def measure_operations(self, operations: Sequence[Any], time_limit: float) -> None:
        """Every path of operations on their own shapes."""
        warm_up_operations(operations, self.device, self.repeats, time_limit, self.display, self.cells)
        self._rounds()

    def interrupted(self) -> None:
        """The user stopped it: what was measured counts."""
        for record in self.records:
            if record.state == PENDING:
                record.give_up(*((MEASURED, None) if record.seconds else (NOT_RUN, "interrupted before its turn")))
        self.state = INTERRUPTED
        self.store(self.content())

    @property
    def records(self) -> list[Record]:
        """Of all cells that are known so far."""
        return [cell.record for cell in self.cells]

    def content(self) -> dict[str, Any]:
        """What speed.json holds."""
        rates = (self.peaks.matrix_samples, self.peaks.copy_samples) if self.peaks is not None else ((), ())
        return {
            **self.header,
            "state": self.state,
            "memory_method": METHODS[self.device.type],
            "peaks": None if self.peaks is None else self.peaks.plain(),
            "models": self.models,
            "cells": summarise(self.records, *rates),
            "growth": growth(self.records) if self.peaks is not None else [],
        }

    def begins(self, repeat: int) -> None:
        """The device's peaks again, as close to the models' turns as can be."""
        del repeat
        if self.peaks is not None:
            self.peaks.sample()

    def timed(self, repeat: int, record: Record) -> None:
        """A contestant had its turn."""
        self.display.timed(repeat, record)

    def ends(self, repeat: int) -> None:
        """A round is over: what is known is stored."""
        del repeat
        self.store(self.content())

    def _rounds(self) -> None:
        self.store(self.content())
        self.display.rounds(sum(cell.timed is not None for cell in self.cells))
        run_rounds(self.cells, self.repeats, self.device, self)
        self.state = COMPLETE
        self.store(self.content())
