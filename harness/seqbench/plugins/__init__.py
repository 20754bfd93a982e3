"""Models, tasks and operations found by name, and checkpoints."""
