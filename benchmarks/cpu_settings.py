"""Which settings of the CPU make training faster here: allocator, precision and threads, measured and not believed.

Every combination trains every model for a few steps in a process of its own, since allocator and threads belong to a
process. The combinations take turns, in another order each round, so that a busy machine slows all alike. Printed are
throughputs relative to `bench run` without options (tuned allocator, fp32, torch's number of threads) in the same
round: the median over the rounds and, in brackets, the range. At the end, what the same settings for all models would
be. Threads that have to wait for each other on a busy machine are slow many times over: OMP_NUM_THREADS=1 leaves them
out.

    python benchmarks/cpu_settings.py
    OMP_NUM_THREADS=1 python benchmarks/cpu_settings.py --models pmnet,mamba --rounds 3 --set batch_size=4
"""

import argparse
import math
import multiprocessing
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil
import torch
from rich.console import Console
from rich.progress import track
from short_training import short_training, time_training

from seqbench.environment import bf16_in_hardware, tune_allocator
from seqbench.planning.plan import resolve
from seqbench.planning.request import PRECISIONS, RunRequest

MODELS = "pmnet,transformer,sliding-window,mamba"
ALLOCATORS = ("tuned", "default")


@dataclass(frozen=True)
class Combination:
    """Settings of one process."""

    allocator: str
    precision: str
    threads: int

    def __str__(self) -> str:
        return f"{self.allocator} allocator, {self.precision}, {self.threads} thread{'s' * (self.threads > 1)}"


@dataclass(frozen=True)
class Relative:
    """Throughput over that of the default in the same round: median and range over the rounds."""

    median: float
    lowest: float
    highest: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.lowest:.2f} to {self.highest:.2f})"


def combinations(most_threads: int) -> list[Combination]:
    """All of them, the default first; threads in powers of two up to `most_threads`, and that number itself."""
    counts = sorted({*(2**power for power in range(most_threads.bit_length())), most_threads}, reverse=True)
    return [
        Combination(allocator, precision, threads)
        for allocator in ALLOCATORS
        for precision in PRECISIONS
        for threads in counts
    ]


def relative(seconds: Mapping[Combination, Sequence[float]], default: Combination) -> dict[Combination, Relative]:
    """Throughput of each combination relative to the default; `seconds` holds one time a round."""
    ratios = {
        combination: [base / own for base, own in zip(seconds[default], times, strict=True)]
        for combination, times in seconds.items()
    }
    return {
        combination: Relative(statistics.median(each), min(each), max(each)) for combination, each in ratios.items()
    }


def over_models(by_model: Sequence[Mapping[Combination, Sequence[float]]]) -> dict[Combination, list[float]]:
    """Geometric mean of the models' times, round by round: every model counts the same, whatever its size."""
    return {
        combination: [
            math.exp(statistics.fmean(math.log(seconds) for seconds in rounds))
            for rounds in zip(*(times[combination] for times in by_model), strict=True)
        ]
        for combination in by_model[0]
    }


def recommended(of_all: Mapping[Combination, Relative], default: Combination) -> Combination:
    """The fastest combination that was faster than the default in every round; the default where there is none."""
    faster = [combination for combination, found in of_all.items() if found.lowest > 1]
    return max(faster, key=lambda combination: of_all[combination].median, default=default)


def _serve(connection: Connection, combination: Combination, request: RunRequest) -> None:
    """A process of one combination: for every True it receives it trains and answers with the seconds."""
    if combination.allocator == "tuned":
        tune_allocator()
    torch.set_num_threads(combination.threads)
    plan = resolve(request)
    with tempfile.TemporaryDirectory() as folder:
        while connection.recv():
            connection.send(time_training(plan, Path(folder)))


def measure(model: str, candidates: Sequence[Combination], arguments: Any) -> dict[Combination, list[float]]:
    """Seconds of each round by combination; the first round warms up and is not among them."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["short_training", "rich.progress"])
    changes = {**short_training(arguments.steps), **dict(change.split("=", 1) for change in arguments.changes)}
    workers = {}
    for combination in candidates:
        request = RunRequest(
            model, arguments.task, (arguments.preset,), changes, device="cpu", precision=combination.precision
        )
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, combination, request), daemon=True)
        process.start()
        # With our copy of its end open, a process that fails would be waited for.
        theirs.close()
        workers[combination] = (process, ours)
    seconds: dict[Combination, list[float]] = {combination: [] for combination in candidates}
    console = Console(stderr=True)
    for number in track(range(arguments.rounds + 1), f"{model:16}", console=console, transient=True):
        turn = number % len(candidates)
        for combination in [*candidates[turn:], *candidates[:turn]]:
            connection = workers[combination][1]
            connection.send(True)
            took = connection.recv()
            if number:
                seconds[combination].append(took)
    for process, connection in workers.values():
        connection.send(False)
        process.join()
    return seconds


def print_table(title: str, found: Mapping[Combination, Relative], milliseconds: Mapping[Combination, float]) -> None:
    print(f"\n{title}")
    for combination, each in found.items():
        step = f"{milliseconds[combination]:8.1f} ms a step" if milliseconds else ""
        print(f"  {combination!s:38} {each!s:24} {step}".rstrip())


def print_recommendation(of_all: Mapping[Combination, Relative], default: Combination) -> None:
    choice = recommended(of_all, default)
    options = [f"--threads {choice.threads}"] * (choice.threads != default.threads)
    options += [f"--precision {choice.precision}"] * (choice.precision != default.precision)
    typed = " ".join(options) or "no options"
    print(f"\none run at a time: {typed} ({choice}: {of_all[choice]} times the default's throughput)")
    if choice.precision == "bf16":
        print("  bf16 changes the figures too, so all models of a comparison have it or none")
    if choice.allocator != default.allocator:
        print("  bench always tunes the allocator: say so in an issue, with this table")
    if default.threads > 1:
        one, all_of_them = (Combination(default.allocator, choice.precision, count) for count in (1, default.threads))
        gain = default.threads * of_all[one].median / of_all[all_of_them].median
        print(
            f"{default.threads} runs side by side with one thread each: at most {gain:.2f} times the steps of one run"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=MODELS, help="default: %(default)s")
    parser.add_argument("--preset", default="tiny", help="of the models and of the task (default %(default)s)")
    parser.add_argument("--task", default="byte-lm", help="gives the batches (default %(default)s)")
    parser.add_argument(
        "--set", dest="changes", action="append", default=[], metavar="KEY=VALUE", help="as for bench run"
    )
    parser.add_argument("--steps", type=int, default=3, help="training steps a round (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="default %(default)s, after one that warms up")
    arguments = parser.parse_args()
    default, *others = combinations(torch.get_num_threads())
    print(f"default: {default}; bfloat16 in hardware: {bf16_in_hardware(torch.device('cpu'))}")
    busy = psutil.cpu_percent(interval=1.0)
    # What an idle machine does by itself stays far below.
    if busy > 10:
        print(
            f"the machine is at other work ({busy:.0f} % of its processors' time): what is said of several threads"
            " does not hold for it idle"
        )
    by_model = []
    for model in arguments.models.split(","):
        seconds = measure(model, [default, *others], arguments)
        by_model.append(seconds)
        steps = {each: 1000 * statistics.median(times) / arguments.steps for each, times in seconds.items()}
        print_table(model, relative(seconds, default), steps)
    of_all = relative(over_models(by_model), default)
    print_table("all models (geometric mean)", of_all, {})
    print_recommendation(of_all, default)


if __name__ == "__main__":
    main()
