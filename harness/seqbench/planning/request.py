"""What a user asks for. Imports nothing heavy: `--help` reads its choices from here."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

PRECISIONS = ("fp32", "bf16")
DEVICES = ("auto", "cpu", "cuda")
SPLITS = ("validation", "test")


@dataclass(frozen=True)
class RunRequest:
    """What a user asks for, before anything is looked up.

    Attributes:
        model, task: plugin names or dotted paths.
        presets: names of presets; a name is taken as the task's, the model's or both, whichever have it.
        changes: key -> text as in `--set key=value`; keys "model.x", "task.x", "trainer.x" or "x" for the trainer.
        ablation: name of one of the model's ablations, for evaluation alone with "@eval" behind it, or None.
        init: folder or hub id of the checkpoint to start from, or None for random weights.
        parameters: parameters outside the vocabulary matrices that the model is to have, or None for its preset's.
        parameters_total: the same, vocabulary matrices included; at most one of the two.
        allow_unmatched: run also when no width meets the parameters within the tolerance.
        allow_unchecked: run also a model that reads the future, or fails another clause that scores rest on.
        budget_kind, budget_target: "tokens", "flops" or "seconds" to train for; None for the trainer's steps.
        split: what the trained model is measured on; "validation" for trials of a search, which never see the test set.
        kernels: paths that kernels are asked to take, such as "reference" or "scan=reference,attention=triton"; "" for
            their own choice, None for what the environment variable SEQBENCH_KERNELS says.
        threads: that the CPU computes with; None for torch's choice.
        compiled: whether training steps go through torch.compile.
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
    parameters: int | None = None
    parameters_total: int | None = None
    allow_unmatched: bool = False
    allow_unchecked: bool = False
    budget_kind: str | None = None
    budget_target: float | None = None
    split: str = "test"
    kernels: str | None = None
    threads: int | None = None
    compiled: bool = False

    def arguments(self) -> list[str]:
        """The same request as arguments of `bench run`."""
        options: dict[str, object] = {
            "model": self.model,
            "task": self.task,
            "seed": self.seed,
            "device": self.device,
            "precision": self.precision,
            "split": self.split,
            "ablate": self.ablation,
            "init": self.init,
            "params": self.parameters,
            "params-total": self.parameters_total,
            "kernels": self.kernels,
            "threads": self.threads,
        }
        if self.budget_kind is not None:
            options[self.budget_kind] = self.budget_target
        arguments = [part for name, value in options.items() if value is not None for part in (f"--{name}", f"{value}")]
        for preset in self.presets:
            arguments += ["--preset", preset]
        for key, text in self.changes.items():
            arguments += ["--set", f"{key}={text}"]
        flags = {
            "--allow-unmatched": self.allow_unmatched,
            "--allow-unchecked": self.allow_unchecked,
            "--compile": self.compiled,
        }
        return [*arguments, *(name for name, given in flags.items() if given)]
