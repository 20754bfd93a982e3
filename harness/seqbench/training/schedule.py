"""Learning rate as a function of the step."""

import math

from seqbench.training.settings import TrainerSettings


def learning_rate_at(step: int, settings: TrainerSettings) -> float:
    """Learning rate of optimizer step `step` (0 to steps - 1).

    Linear warm-up that reaches the peak at step warmup_steps, then constant, or half a cosine down to
    final_learning_rate_fraction of the peak at the last step.
    """
    if step < settings.warmup_steps:
        return settings.learning_rate * (step + 1) / (settings.warmup_steps + 1)
    if settings.schedule == "constant":
        return settings.learning_rate
    decay_steps = max(1, settings.steps - 1 - settings.warmup_steps)
    progress = min(1.0, (step - settings.warmup_steps) / decay_steps)
    final = settings.final_learning_rate_fraction
    return settings.learning_rate * (final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress)))
