"""Presets of latest-value: settings of the task and the trainer settings that go with them."""

from seqbench.contracts import TaskPreset
from seqbench_tasks.latest_value.config import LatestValueConfig
from seqbench_tasks.synthetic import TINY_TRAINER

# A transformer of 166,000 parameters answers everything of training size after 200 steps; other models are given time.
_TINY = {**TINY_TRAINER, "steps": 1500}

_T_MAZE = "endless T-maze (arXiv 2601.15086)"


def _t_maze(uniform: bool) -> LatestValueConfig:
    return LatestValueConfig(
        keys=1,
        values=2,
        rewrites=1,
        queries=1,
        # Fewer rounds have so few binary cues that training would see all of them.
        training_rounds=12,
        test_rounds=24,
        training_corridors=(2, 4, 6, 8),
        test_corridors=(2, 4, 6, 8, 16, 32),
        uniform_corridors=uniform,
    )


PRESETS: dict[str, TaskPreset[LatestValueConfig]] = {
    "tiny": TaskPreset(
        LatestValueConfig(),
        "4 keys of 8 values, 2 rewritten in each of 4 rounds, corridors to 8 tokens; tested on 8 rounds and corridors "
        "to 32; minutes on a laptop",
        _TINY,
    ),
    "t-maze-fixed": TaskPreset(
        _t_maze(uniform=False),
        "supervised: one binary cue, rewritten at the start of each corridor, all corridors alike; minutes on a laptop",
        _TINY,
        figure=f"{_T_MAZE}, fixed corridors",
    ),
    "t-maze-uniform": TaskPreset(
        _t_maze(uniform=True),
        "supervised: one binary cue, rewritten at the start of each corridor, random corridors; minutes on a laptop",
        _TINY,
        figure=f"{_T_MAZE}, uniform corridors",
    ),
    "color-cubes": TaskPreset(
        LatestValueConfig(keys=5, values=8, rewrites=1, queries=1, training_rounds=8, test_rounds=32),
        "supervised: 5 cubes of 8 colours, one changed and one asked for in each of 8 rounds, tested on 32 rounds",
        _TINY,
        figure="Color-Cubes (arXiv 2601.15086)",
    ),
}
