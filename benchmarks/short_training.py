"""What benchmarks of training share: a short training without evaluations and checkpoints, and its time."""

import json
import time
from pathlib import Path
from typing import Any

from seqbench.planning.plan import RunPlan
from seqbench.running.runner import build_model
from seqbench.training.trainer import Trainer


class _Silent:
    def advance(self, step: int, share: float, loss: float, tokens_per_second: float) -> None:
        """Show nothing."""

    def note(self, message: str) -> None:
        """Show nothing."""


def short_training(steps: int) -> dict[str, str]:
    """Changes of a request that leave training alone: that many steps, no evaluation, no checkpoint."""
    return {
        "steps": f"{steps}",
        "warmup_steps": f"{min(5, steps - 1)}",
        "checkpoint_interval": "0",
        "evaluation_interval": "0",
    }


def time_training(plan: RunPlan, folder: Path) -> float:
    """Seconds that the trainer takes for the plan; building the model is not among them. `folder` gets its log."""
    with (folder / "metrics.jsonl").open("w") as file:

        def log(record: dict[str, Any]) -> None:
            file.write(json.dumps(record) + "\n")
            file.flush()

        trainer = Trainer(
            build_model(plan),
            plan.task,
            plan.trainer,
            plan.seed,
            plan.device,
            plan.precision,
            folder / "checkpoints",
            log,
        )
        started = time.perf_counter()
        trainer.train(_Silent(), lambda step: None)
        return time.perf_counter() - started
