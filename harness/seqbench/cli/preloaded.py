"""All that a run of a grid imports but its plugins; see `seqbench.comparing.process`."""

from seqbench.cli import app, options, run  # noqa: F401
from seqbench.report import model_card, run_plots, training_figure  # noqa: F401
from seqbench.training import trainer  # noqa: F401
