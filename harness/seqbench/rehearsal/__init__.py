"""What evaluation, saving and reporting need, tried before the first training step: hours must not end in a refusal."""
