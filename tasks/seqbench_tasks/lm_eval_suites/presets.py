"""Presets of lm-eval, and scores that papers report for their suites."""

from collections.abc import Iterator
from typing import Any

from seqbench.contracts import PublishedScore, TaskPreset
from seqbench_tasks.lm_eval_suites.config import LmEvalConfig

_MAMBA = "arXiv 2312.00752, table 3"
# Suite -> metric of the table, and fractions of Pythia-160M and Mamba-130M, both trained on 300B tokens of the Pile.
# Not checked against the paper: the table was not at hand when this was written.
_TABLE = {
    "lambada_openai": ("acc", 0.330, 0.443),
    "hellaswag": ("acc_norm", 0.302, 0.353),
    "piqa": ("acc", 0.614, 0.645),
    "arc_easy": ("acc", 0.432, 0.480),
    "arc_challenge": ("acc_norm", 0.241, 0.243),
    "winogrande": ("acc", 0.519, 0.519),
}

PRESETS: dict[str, TaskPreset[Any]] = {
    "tiny": TaskPreset(
        LmEvalConfig(), "eight short texts that every Python brings along: to try things, not a benchmark"
    ),
    "zero-shot": TaskPreset(
        LmEvalConfig(suite=tuple(_TABLE), few_shot=0),
        "the six suites that papers on sequence models report; their data comes from the hub (60 MB)",
        figure=_MAMBA,
    ),
}


def published_scores(config: LmEvalConfig) -> Iterator[PublishedScore]:
    """What the table says of the suites that `config` measures as the table does: whole, without examples."""
    if config.limit is not None or config.few_shot not in (None, 0):
        return
    for suite in config.suite:
        metric, *values = _TABLE.get(suite, ("",))
        for model, value in zip(("Pythia-160M", "Mamba-130M"), values, strict=False):
            yield PublishedScore(metric, float(value), model, _MAMBA, {"suite": suite})
