"""Learning rate as a function of how far training is."""

import math

from seqbench.training.settings import TrainerSettings


def learning_rate_at(step: int, settings: TrainerSettings, decayed: float | None = None) -> float:
    """Learning rate of optimizer step `step` (from 0).

    Linear warm-up that reaches the peak at step warmup_steps, then constant, or half a cosine down to
    final_learning_rate_fraction of the peak.

    Args:
        step: number of steps before this one.
        settings: the trainer's.
        decayed: how much of the way from the end of the warm-up to the end of training is done, from 0 to 1; None
            where the settings' steps end training, of which the last one has the final rate.
    """
    if step < settings.warmup_steps:
        return settings.learning_rate * (step + 1) / (settings.warmup_steps + 1)
    if settings.schedule == "constant":
        return settings.learning_rate
    if decayed is None:
        decayed = (step - settings.warmup_steps) / max(1, settings.steps - 1 - settings.warmup_steps)
    final = settings.final_learning_rate_fraction
    return settings.learning_rate * (final + (1 - final) * 0.5 * (1 + math.cos(math.pi * min(1.0, decayed))))
