"""The plots of one run, which its result does not depend on."""

import sys
from collections.abc import Sequence
from pathlib import Path

from seqbench.errors import RequestError
from seqbench.planning.plan import RunPlan
from seqbench.report.plot import plot_results
from seqbench.report.results import Result
from seqbench.report.training_plot import plot_training
from seqbench.store.files import remove_leftovers
from seqbench.store.reader import read_bytes
from seqbench.store.run_folder import RunFolder
from seqbench.surroundings.circumstances import in_one_line

# The last chunk of every PNG: without it the file is cut off.
_PNG_END = b"IEND\xaeB`\x82"


def draw(results: Sequence[Result], folder: RunFolder, plan: RunPlan) -> list[Path]:
    """Draw what there is to draw; a disk that takes no plots takes nothing from the result, which is stored."""
    try:
        drawn = [folder.plot] if plot_results(results, folder.plot) else []
        return drawn + ([folder.training_plot] if plot_training(folder, plan) else [])
    except OSError as error:
        present = [path for path in (folder.plot, folder.training_plot) if is_whole(path)]
        if not present:
            told = f"bench: plots cannot be written ({in_one_line(error)}); the same command draws them later"
            print(told, file=sys.stderr, flush=True)
        return present


def draw_what_is_missing(folder: RunFolder, plan: RunPlan) -> None:
    """Draw the plots of a stored result that a killed process has not drawn, or has left half drawn."""
    if folder.takes_writing() and not folder.is_locked():
        remove_leftovers(folder.path)
    trains = plan.trained is plan and plan.task.trains
    expected = [folder.plot, *([folder.training_plot] if trains else [])]
    result = folder.finished_result(plan.run_hash)
    if result is not None and not all(map(is_whole, expected)):
        draw([result], folder, plan)


def is_whole(path: Path) -> bool:
    """Whether a PNG is there to its end."""
    try:
        return read_bytes(path).endswith(_PNG_END)
    except (OSError, RequestError):
        return False
