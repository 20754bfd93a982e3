"""Circumstances of runs that a reader of their table has to know: their kernels, and where they went on."""

from collections import defaultdict
from collections.abc import Sequence

from seqbench.plugins.kernels import DECODING_STEP
from seqbench.report.document import Line
from seqbench.report.results import Result, complete, label_of
from seqbench.training.progress import duration


def path_notes(results: Sequence[Result]) -> list[Line]:
    """Operations that ran on different paths: the times of those runs do not compare by the models alone."""
    runs: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for result in complete(results):
        # A result from before paths were recorded has none.
        for operation, paths in result.get("kernels", {}).get("taken", {}).items():
            # Nothing is trained by decoding steps, and models that read long texts at once take none.
            trained = [path for path in paths if path != DECODING_STEP]
            if trained:
                runs[operation][" and ".join(trained)].append(_name(result))
    return [
        Line(
            f"{operation} ran on different paths, and training times differ by that too: "
            + "; ".join(f"{paths}: {', '.join(names)}" for paths, names in by_paths.items()),
            "yellow",
        )
        for operation, by_paths in runs.items()
        if len(by_paths) > 1
    ]


def compile_notes(results: Sequence[Result]) -> list[Line]:
    """What torch.compile took of the runs that went through it; training times do not count it."""
    compiled = [result for result in complete(results) if "compile_seconds" in result]
    times = "; ".join(f"{_name(result)} in {duration(result['compile_seconds'])}" for result in compiled)
    return [Line(f"compiled by torch.compile, which training times do not count: {times}")] if compiled else []


def continuation_notes(results: Sequence[Result]) -> list[Line]:
    """Runs that went on in another place, or with other settings, than they were begun with."""
    return [
        Line(f"{_name(result)} went on at step {entry['step']} with {'; '.join(entry['differences'])}", "yellow")
        for result in complete(results)
        for entry in result.get("continued", [])
    ]


def _name(result: Result) -> str:
    return f"{label_of(result)} seed {result['seed']}"
