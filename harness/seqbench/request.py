"""What a user asks for. Imports nothing heavy: `--help` reads its choices from here."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

PRECISIONS = ("fp32", "bf16")
DEVICES = ("auto", "cpu", "cuda")


@dataclass(frozen=True)
class RunRequest:
    """What a user asks for, before anything is looked up.

    Attributes:
        model, task: plugin names or dotted paths.
        presets: names of presets; a name is taken as the task's, the model's or both, whichever have it.
        changes: key -> text as in `--set key=value`; keys "model.x", "task.x", "trainer.x" or "x" for the trainer.
        ablation: name of one of the model's ablations, for evaluation alone with "@eval" behind it, or None.
        init: folder or hub id of the checkpoint to start from, or None for random weights.
    """

    model: str
    task: str
    presets: tuple[str, ...] = ()
    changes: Mapping[str, str] = dataclasses.field(default_factory=dict)
    ablation: str | None = None
    seed: int = 0
    device: str = "auto"
    precision: str = "fp32"
    init: str | None = None
