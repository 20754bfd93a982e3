"""A run's training in one picture, drawn from its log."""

from seqbench.planning.plan import RunPlan
from seqbench.report.outgoing import save_figure
from seqbench.report.training_log import arrange_log
from seqbench.store.run_folder import RunFolder


def plot_training(folder: RunFolder, plan: RunPlan) -> bool:
    """Draw training.png from metrics.jsonl; False when nothing was trained in this folder."""
    log = arrange_log(folder.read_log())
    if not len(log.loss.steps):
        return False
    # matplotlib is slow to import and needed nowhere else.
    from seqbench.report.training_figure import training_figure

    figure = training_figure(log, plan)
    save_figure(figure, folder.training_plot, dpi=130)
    return True
