"""Whether models are as fast in one checkout as in another: training steps, prefill and decoding, on a CPU.

A process of each checkout does short rounds in turns with the other, so that both meet the same moments of a machine; a
pair is the least of a few rounds of either. Prints the median ratios of speed, the second checkout's over the first's,
with 95 % intervals by order statistics. Time is that of the processor, which other work changes least. Both checkouts
run in this environment, whose entry points say what models are called. Exit code 1 when an interval lies below --least.

    git worktree add /tmp/before main~10
    OMP_NUM_THREADS=1 python benchmarks/two_checkouts.py /tmp/before . --models transformer,sliding-window
"""

import argparse
import math
import os
import statistics
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

# Rows and tokens of a training step and of a prefill; tokens of a prompt, and those that are decoded behind it. Each
# takes a few hundredths of a second to some tenths on one core of a server.
SIZES: Mapping[str, Mapping[str, tuple[int, int]]] = {
    "tiny": {"train": (16, 40), "prefill": (1, 512), "decode": (16, 32)},
    "30m": {"train": (1, 32), "prefill": (1, 96), "decode": (16, 6)},
}
MODES = ("train", "prefill", "decode")
VOCABULARY = 384


def work() -> None:
    """Answer each case on standard input, "model preset mode", by the seconds of one round on standard output."""
    import torch

    from seqbench.plugins.registry import find_model

    models: dict[tuple[str, str], Any] = {}
    rounds: dict[str, Callable[[], float]] = {}
    for line in sys.stdin:
        case = line.strip()
        if case not in rounds:
            name, preset, mode = case.split()
            if (name, preset) not in models:
                plugin: Any = find_model(name)
                torch.manual_seed(0)
                models[name, preset] = plugin.build(plugin.with_vocabulary(plugin.presets[preset], VOCABULARY))
            rounds[case] = globals()[f"_{mode}"](models[name, preset], *SIZES[preset][mode])
            rounds[case]()
        print(rounds[case](), flush=True)


def _train(model: Any, rows: int, length: int) -> Callable[[], float]:
    """Loss and gradients of a batch."""
    import torch

    tokens = torch.randint(VOCABULARY, (rows, length))

    def run() -> float:
        model.train().zero_grad()
        started = time.process_time()
        model(tokens, labels=tokens).loss.backward()
        return time.process_time() - started

    return run


def _prefill(model: Any, rows: int, length: int) -> Callable[[], float]:
    """A prompt, with the state after it."""
    import torch

    tokens = torch.randint(VOCABULARY, (rows, length))

    @torch.no_grad()
    def run() -> float:
        model.eval()
        started = time.process_time()
        model(tokens, use_cache=True, logits_to_keep=1)
        return time.process_time() - started

    return run


def _decode(model: Any, prompt: int, count: int) -> Callable[[], float]:
    """Single tokens behind a prompt."""
    import torch

    tokens = torch.randint(VOCABULARY, (1, prompt + count))

    @torch.no_grad()
    def run() -> float:
        state = model.eval()(tokens[:, :prompt], use_cache=True).past_key_values
        started = time.process_time()
        for place in range(prompt, prompt + count):
            model(tokens[:, place : place + 1], past_key_values=state, use_cache=True)
        return time.process_time() - started

    return run


class Worker:
    """A process of a checkout that does rounds when it is asked for them."""

    def __init__(self, checkout: Path) -> None:
        project = tomllib.loads((checkout / "pyproject.toml").read_text())
        roots = project["tool"]["hatch"]["build"]["dev-mode-dirs"]
        path = os.pathsep.join(str((checkout / root).resolve()) for root in roots)
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--worker"],
            env={**os.environ, "PYTHONPATH": path},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def seconds(self, case: str) -> float:
        """Of one round."""
        assert self._process.stdin is not None and self._process.stdout is not None
        print(case, file=self._process.stdin, flush=True)
        return float(self._process.stdout.readline() or sys.exit(f"{case} failed"))

    def end(self) -> None:
        """Let the process come to its end."""
        self._process.communicate()


def pair_of(workers: Sequence[Worker], case: str, rounds: int) -> tuple[float, float]:
    """The least time of either worker in rounds that take turns, since other work on the machine only adds."""
    found: tuple[list[float], list[float]] = ([], [])
    for round_ in range(rounds):
        for which in (0, 1) if round_ % 2 == 0 else (1, 0):
            found[which].append(workers[which].seconds(case))
    return min(found[0]), min(found[1])


def interval(ratios: Sequence[float]) -> tuple[float, float]:
    """The narrowest pair of order statistics, equally far from the ends, that holds the median 95 times in 100."""
    count, rank, outside = len(ratios), 0, 0.0
    while True:
        outside += 2 * math.comb(count, rank) / 2**count
        if outside > 0.05:
            break
        rank += 1
    if rank == 0:
        return -math.inf, math.inf
    ordered = sorted(ratios)
    return ordered[rank - 1], ordered[count - rank]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkouts", nargs="*", type=Path, help="two folders")
    parser.add_argument("--models", default="transformer,sliding-window")
    parser.add_argument("--presets", default=",".join(SIZES))
    parser.add_argument("--modes", default=",".join(MODES))
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--starts", type=int, default=3, help="how often new processes are taken")
    parser.add_argument("--rounds", type=int, default=4, help="of either process in a pair")
    parser.add_argument("--least", type=float, default=0.97, help="ratio below which an interval is called slower")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.worker:
        work()
        return
    if len(chosen.checkouts) != 2:
        parser.error("give the folders of two checkouts")
    cases = [
        f"{model} {preset} {mode}"
        for model in chosen.models.split(",")
        for preset in chosen.presets.split(",")
        for mode in chosen.modes.split(",")
    ]
    pairs: dict[str, list[tuple[float, float]]] = {case: [] for case in cases}
    workers: list[Worker] = []
    for index in range(chosen.pairs):
        if index % math.ceil(chosen.pairs / chosen.starts) == 0:
            for worker in workers:
                worker.end()
            workers = [Worker(checkout) for checkout in chosen.checkouts]
        for case in cases:
            pairs[case].append(pair_of(workers, case, chosen.rounds))
        print(f"pair {index + 1} of {chosen.pairs}", file=sys.stderr, flush=True)
    for worker in workers:
        worker.end()
    slower = []
    print(f"{'case':<34}{'first':>10}{'second':>10}{'ratio':>9}   95 %")
    for case, times in pairs.items():
        ratios = [first / second for first, second in times]
        low, high = interval(ratios)
        slower += [case] if high < chosen.least else []
        first_ms, second_ms = (1000 * statistics.median(pair[which] for pair in times) for which in (0, 1))
        print(
            f"{case:<34}{first_ms:>7.2f} ms{second_ms:>7.2f} ms{statistics.median(ratios):>9.3f}"
            f"   [{low:.3f}, {high:.3f}]"
        )
    if slower:
        sys.exit(f"slower: {', '.join(slower)}")


if __name__ == "__main__":
    main()
