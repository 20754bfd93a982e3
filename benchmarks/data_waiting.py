"""Share of training time that is spent waiting for batches of text, in one run on a local folder.

Trains as `bench run` does, with a clock around every call for a batch. Prints the share of each model; it must stay
under 2 %.

    python benchmarks/data_waiting.py --models pmnet,sliding-window,mamba --steps 60
    python benchmarks/data_waiting.py --data FOLDER
"""

import argparse
import random
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from short_training import short_training, time_training

from seqbench.contracts import Batch
from seqbench.environment import tune_allocator
from seqbench.planning.plan import RunPlan, resolve
from seqbench.planning.request import RunRequest

LIMIT = 0.02


class _Clock:
    """Stands before a task's batches and adds up the time that they take."""

    def __init__(self, task: Any) -> None:
        self._make, self.seconds = task.training_batch, []
        task.training_batch = self

    def __call__(self, seed: int, index: int, batch_size: int) -> Batch:
        started = time.perf_counter()
        batch = self._make(seed, index, batch_size)
        self.seconds.append(time.perf_counter() - started)
        return batch


def write_texts(folder: Path, files: int, words: int) -> None:
    """Plain files of made-up words, some of them with characters of several bytes."""
    generator = random.Random(0)
    vocabulary = ["".join(generator.choices("etaoinshrdluéß—", k=generator.randint(1, 9))) for _ in range(2000)]
    for number in range(files):
        (folder / f"{number:04}.txt").write_text(" ".join(generator.choices(vocabulary, k=words)), encoding="utf-8")


def waiting_share(plan: RunPlan, folder: Path) -> tuple[float, float]:
    """Share of the training time that was spent waiting, and seconds a step."""
    clock = _Clock(plan.task)
    seconds = time_training(plan, folder)
    return sum(clock.seconds) / seconds, seconds / plan.trainer.steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="pmnet,sliding-window,mamba")
    parser.add_argument("--data", help="file or folder of text (default: 400 made-up files of 40 kB)")
    parser.add_argument("--steps", type=int, default=60)
    arguments = parser.parse_args()
    tune_allocator()
    worst = []
    with tempfile.TemporaryDirectory() as name:
        data = Path(arguments.data or Path(name) / "texts")
        if not arguments.data:
            data.mkdir()
            write_texts(data, files=400, words=7000)
        for model in arguments.models.split(","):
            folder = Path(name) / model
            folder.mkdir()
            plan = resolve(
                RunRequest(model, "byte-lm", changes={**short_training(arguments.steps), "task.data": str(data)})
            )
            share, seconds = waiting_share(plan, folder)
            worst.append(share)
            print(f"{model}: {share:.2%} of the training time waiting for batches, {1000 * seconds:.0f} ms a step")
    verdict = "under" if max(worst) < LIMIT else "NOT under"
    print(f"at most {max(worst):.2%}, {verdict} the limit of {LIMIT:.0%}; {torch.get_num_threads()} threads")


if __name__ == "__main__":
    main()
