"""The trainer's settings, the same for every model of a comparison."""

from dataclasses import dataclass

from seqbench.contracts import check_settings, setting
from seqbench.errors import RequestError

# Fields that decide how well a model learns, and leave alone what it learns from and how much of it.
SEARCHABLE = (
    *("optimizer", "learning_rate", "schedule", "warmup_steps", "final_learning_rate_fraction", "weight_decay"),
    *("beta1", "beta2", "epsilon", "momentum", "gradient_clip_norm"),
)


@dataclass(frozen=True)
class TrainerSettings:
    """How a model is trained; a task preset may change the defaults, for all models alike."""

    steps: int = setting(1000, "optimizer steps (0: the initial weights are tested as they are)", minimum=0)
    batch_size: int = setting(64, "sequences per step, whatever the micro-batch", minimum=1)
    micro_batch_size: int | None = setting(
        None, "sequences per forward pass; gradients accumulate to the full batch (none: the whole batch)", minimum=1
    )
    optimizer: str = setting(
        "adamw",
        "adamw for all parameters, or muon for matrices (linear maps) and adamw for the rest",
        choices=("adamw", "muon"),
    )
    learning_rate: float = setting(1e-3, "peak learning rate", minimum=0)
    schedule: str = setting(
        "cosine", "after the warm-up: cosine to the final fraction, or constant", choices=("cosine", "constant")
    )
    warmup_steps: int = setting(100, "steps of linear warm-up from zero", minimum=0)
    final_learning_rate_fraction: float = setting(
        0.1, "learning rate at the last step over the peak, for cosine", minimum=0, maximum=1
    )
    weight_decay: float = setting(0.1, "decoupled weight decay of matrices (linear maps)", minimum=0)
    beta1: float = setting(0.9, "AdamW's first moment decay", minimum=0, maximum=0.9999)
    beta2: float = setting(0.95, "AdamW's second moment decay", minimum=0, maximum=0.99999)
    epsilon: float = setting(1e-8, "AdamW's epsilon", minimum=0)
    momentum: float = setting(0.95, "Muon's momentum", minimum=0, maximum=0.9999)
    gradient_clip_norm: float | None = setting(1.0, "largest norm of the gradient (none: no clipping)", minimum=0)
    log_interval: int = setting(10, "steps between two lines of metrics.jsonl", minimum=1)
    evaluation_interval: int = setting(500, "steps between two evaluations on the validation set (0: none)", minimum=0)
    checkpoint_interval: int = setting(500, "steps between two checkpoints (0: only when interrupted)", minimum=0)

    def __post_init__(self) -> None:
        check_settings(self)
        if self.learning_rate <= 0:
            raise RequestError(f"learning_rate must be greater than 0, not {self.learning_rate:g}")
        if self.gradient_clip_norm == 0:
            raise RequestError("gradient_clip_norm must be greater than 0; type none for no clipping")
        if self.warmup_steps >= self.steps > 0:
            raise RequestError(
                f"warmup_steps ({self.warmup_steps}) must be less than steps ({self.steps}); set warmup_steps too"
            )
