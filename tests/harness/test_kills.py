"""kill -9 at any instant, and a disk that is full at any instant, cost nothing but time: the same command goes on from
what is on the disk and ends with the bits of a run that was left alone."""

import json
import random
import re
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from command_line import Bench, Finished

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="system calls are followed through /proc")

TOY = ("--model", "toy_kills:Neighbour", "--task", "toy_task:Recall", "--set", "checkpoint_interval=2")
CLOCKS = ("seconds", "wall_seconds", "finished")

# Enough to hit every kind of moment, few enough for every test run; the sweep over all instants is marked slow.
KILLS_BY_CALL = 16
KILLS_BY_CLOCK = 8


@dataclass
class Run:
    """One run of the toy, whose process may be stopped."""

    bench: Bench
    name: str
    arguments: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        return self.bench.folder / self.name

    def __call__(self, *more: str, **environment: str) -> Finished:
        command = ("run", *TOY, *self.arguments, *more, "--json", "--output", self.name)
        return self.bench(*command, TOY_STORE=str(self.folder), **environment)

    def trace(self, **environment: str) -> list[str]:
        """The instants of a run that is left alone, as "call path"."""
        log = self.bench.folder / f"{self.name}.trace"
        finished = self(TOY_TRACE=str(log), **environment)
        assert finished.code == 0, finished.err
        return log.read_text().splitlines()

    def result(self) -> dict[str, Any]:
        """The stored result without clocks."""
        result = json.loads((self.folder / "result.json").read_text())
        return {key: value for key, value in result.items() if key not in CLOCKS}

    def bits(self) -> dict[str, Any]:
        """All that a run leaves behind, clocks apart: they alone may differ between two runs."""
        [checkpoint] = (self.folder / "checkpoints").iterdir()
        return {
            "files": sorted(str(path.relative_to(self.folder)) for path in self.folder.rglob("*")),
            "weights": (self.folder / "model" / "model.safetensors").read_bytes(),
            "result": self.result(),
            "items": (self.folder / "items.jsonl").read_bytes(),
            "log": [without_clocks(line) for line in (self.folder / "metrics.jsonl").read_text().splitlines()],
            "checkpoint": {path.name: path.read_bytes() for path in checkpoint.glob("*.safetensors")},
        }


def without_clocks(line: str) -> dict[str, Any]:
    # The checksum is over the seconds too.
    return {key: value for key, value in json.loads(line).items() if key not in ("seconds", "sha256")}


def killed(finished: Finished) -> bool:
    assert finished.code in (0, -signal.SIGKILL), finished.err
    return finished.code != 0


@pytest.fixture(scope="module")
def alone(bench: Bench) -> Run:
    """Left alone."""
    return Run(bench, "alone")


@pytest.fixture(scope="module")
def instants(alone: Run) -> list[str]:
    return alone.trace()


@pytest.fixture(scope="module")
def expected(alone: Run, instants: list[str]) -> dict[str, Any]:
    assert instants
    return alone.bits()


def in_checkpoints(instants: list[str]) -> list[int]:
    """Numbers of the instants at which a checkpoint is half written."""
    return [number for number, instant in enumerate(instants, 1) if ".step-" in instant and "written" in instant]


def test_no_checkpoint_and_no_result_is_on_the_disk_before_what_it_follows_from(instants: list[str]) -> None:
    """A power failure keeps what was flushed and perhaps nothing else, whatever the order of the calls was."""
    last = dict.fromkeys(("write metrics.jsonl", "fsync metrics.jsonl"), 0)
    for number, instant in enumerate(instants, 1):
        last[instant] = number
        if re.match(r"rename .*\.step-\d+\.written|replace \.result\.", instant):
            assert last["write metrics.jsonl"] < last["fsync metrics.jsonl"]
    calls = [instant.partition(" ")[2] for instant in instants]
    result = max(number for number, path in enumerate(calls) if path.startswith(".result."))
    for path in (".items.", ".model.", "model", ".SHA256SUMS.", "checkpoints"):
        assert max(number for number, call in enumerate(calls) if call.startswith(path)) < result


def test_a_run_killed_at_any_call_that_changes_files_ends_with_the_same_bits(
    bench: Bench, instants: list[str], expected: dict[str, Any]
) -> None:
    """Each run is killed several times, in what goes on after a kill too, every other time in a checkpoint's write."""
    generator = random.Random(0)
    kills = 0
    while kills < KILLS_BY_CALL:
        run = Run(bench, f"by call {kills}")
        # The first one late: what was done before it is what the others find.
        choices = [
            generator.choice(in_checkpoints(instants)[8:]),
            *generator.choices(range(1, len(instants) // 2), k=3),
        ]
        for number in choices:
            kills += killed(run(TOY_KILL=f"{number}{generator.choice(['', ':torn'])}"))
        finished = run()
        assert finished.code == 0, finished.err
        assert "damaged" not in finished.err
        assert run.bits() == expected, choices


def test_a_run_killed_at_any_time_ends_with_the_same_bits(bench: Bench, expected: dict[str, Any]) -> None:
    started = time.monotonic()
    Run(bench, "timed")()
    duration = time.monotonic() - started
    generator = random.Random(1)
    kills = runs = 0
    while kills < KILLS_BY_CLOCK:
        run = Run(bench, f"by clock {runs}")
        for _ in range(KILLS_BY_CLOCK):
            if not killed(run(TOY_KILL_AFTER=str(generator.uniform(0, duration)))):
                break
            kills += 1
        assert run().code == 0
        assert run.bits() == expected
        runs += 1


def test_an_ablation_at_evaluation_and_the_run_that_trains_it_survive_kills(bench: Bench) -> None:
    def tested(store: str) -> Run:
        return Run(bench, f"{store}/ablated", ("--ablate", "deaf@eval", "--runs", store))

    def follow(run: Run) -> dict[str, str]:
        # The training run lies beside it and counts too.
        return {"TOY_STORE": str(run.folder.parent)}

    def ablated(run: Run, **environment: str) -> Finished:
        command = ("run", *TOY, *run.arguments, "--json", "--output", run.name)
        return bench(*command, **follow(run), **environment)

    alone = tested("store-alone")
    trace = bench.folder / "ablated.trace"
    assert ablated(alone, TOY_TRACE=str(trace)).code == 0
    count = len(trace.read_text().splitlines())
    shaken = tested("store-shaken")
    generator = random.Random(2)
    for number in (count - 3, count - 40, *generator.choices(range(1, count // 3), k=4)):
        killed(ablated(shaken, TOY_KILL=str(number)))
    finished = ablated(shaken)
    assert finished.code == 0, finished.err
    assert shaken.result() == alone.result()


@pytest.mark.slow
def test_every_single_call_that_changes_files_may_be_the_last(bench: Bench) -> None:
    """Before each call, and with the file of each call half on the disk; plots are drawn."""
    alone = Run(bench, "alone with plots")
    instants = alone.trace(TOY_PLOTS="1")
    expected = alone.bits()
    for number, instant in enumerate(instants, 1):
        for how in ("", ":torn") if re.match("write|fsync", instant) else ("",):
            run = Run(bench, f"killed at {number}{how}".replace(":", " "))
            assert killed(run(TOY_KILL=f"{number}{how}", TOY_PLOTS="1"))
            assert run(TOY_PLOTS="1").code == 0
            assert run.bits() == expected, instant


def full_disk(run: Run, number: int) -> Finished:
    """The run on a disk that is full from an instant on: it must end with one message, and be there to be told."""
    finished = run(TOY_FULL=str(number))
    assert finished.code == 1, finished.err
    assert finished.json["status"] == "unfinished"
    assert finished.json["reason"] == "no-room"
    assert "Traceback" not in finished.err
    assert "No space left on device" in finished.err
    return finished


def test_a_disk_that_is_full_from_any_call_on_loses_nothing(
    bench: Bench, instants: list[str], expected: dict[str, Any]
) -> None:
    places = {
        "the request": next(n for n, instant in enumerate(instants, 1) if ".run." in instant),
        "a checkpoint": in_checkpoints(instants)[len(in_checkpoints(instants)) // 2],
        "the log": [n for n, instant in enumerate(instants, 1) if instant == "write metrics.jsonl"][-2],
        "the weights": next(n for n, instant in enumerate(instants, 1) if ".model." in instant),
        "the result": next(n for n, instant in enumerate(instants, 1) if ".result." in instant),
    }
    for place, number in places.items():
        run = Run(bench, f"no room for {place}")
        full_disk(run, number)
        again = run()
        assert again.code == 0, again.err
        assert ("continues from step" in again.err) == (place != "the request")
        assert run.bits() == expected, place


@pytest.mark.slow
def test_every_single_call_may_find_the_disk_full(bench: Bench, instants: list[str], expected: dict[str, Any]) -> None:
    last = next(n for n, instant in enumerate(instants, 1) if "plot" in instant)
    for number in range(2, last):
        run = Run(bench, f"full from {number}")
        full_disk(run, number)
        assert run().code == 0
        assert run.bits() == expected, instants[number - 1]
