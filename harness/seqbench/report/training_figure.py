"""The figure of a training: what its panels are and where they stand."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from seqbench.planning.plan import RunPlan
from seqbench.report.panels import LINES, draw_curves, draw_lines, draw_map, finish_steps, scale_values
from seqbench.report.training_log import Metric, Series, TrainingLog

# The coordinate over which a metric of a plugin is drawn instead of over steps.
DISTANCE = "distance"
# Inches of one panel.
_WIDTH, _HEIGHT = 5.2, 3.3
# A map of more rows takes the height of two panels.
_LOW_MAP_ROWS = 16
# The smooth line is a mean over this share of all steps, and over no more steps than these: its cost is their product.
_SMOOTHED_SHARE, _MOST_SMOOTHED = 0.02, 1001


@dataclass(frozen=True)
class Panel:
    """A title, and a function that draws into axes; `height` in panels."""

    title: str
    draw: Callable[[Any], None]
    height: int = 1


def training_figure(log: TrainingLog, plan: RunPlan) -> Figure:
    """Loss and gradient norm of every step, the gradient norm by module, the task's primary metric on the validation
    set, and all that the model's plugin told of its inside.
    """
    panels = list(_panels(log, plan))
    columns = 2 if sum(panel.height for panel in panels) <= 4 else 3
    places, rows = _lay_out(panels, columns)
    figure = Figure(figsize=(_WIDTH * columns, _HEIGHT * rows + 0.4), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(f"Training of {plan.label} on {plan.task_name}, seed {plan.seed}", fontsize=13, fontweight="bold")
    grid = figure.add_gridspec(rows, columns)
    for panel, (row, column) in zip(panels, places, strict=True):
        axes = figure.add_subplot(grid[row : row + panel.height, column])
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
        axes.set_title(panel.title, fontsize=10, loc="left")
        panel.draw(axes)
    return figure


def _lay_out(panels: Sequence[Panel], columns: int) -> tuple[list[tuple[int, int]], int]:
    """Row and column of each panel, in turn into the column that is filled least; and the number of rows."""
    filled = [0] * columns
    places = []
    for panel in panels:
        column = filled.index(min(filled))
        places.append((filled[column], column))
        filled[column] += panel.height
    return places, max(filled)


def _panels(log: TrainingLog, plan: RunPlan) -> Iterator[Panel]:
    limit = plan.trainer.gradient_clip_norm
    yield Panel("Loss (nats per labelled token)", partial(_draw_every_step, series=log.loss))
    yield Panel("Gradient norm before clipping", partial(_draw_gradient_norm, series=log.gradient_norm, limit=limit))
    if log.auxiliary_loss.steps.size:
        yield Panel("Auxiliary loss (mean over rows, weighted)", partial(_draw_every_step, series=log.auxiliary_loss))
    if log.module_gradient_norms.series:
        yield _over_steps(log.module_gradient_norms)
    for metric in log.validation:
        if metric.name == plan.task.primary_metric:
            yield _validation_panel(metric, plan.task.primary_coordinate)
    for metric in log.diagnostics:
        yield from _diagnostic_panels(metric)


def _validation_panel(metric: Metric, coordinate: str) -> Panel:
    """By the primary coordinate where that tells the measurements apart, else by all of them. The one without
    coordinates is over the whole set: it is drawn beside the lines, but is no row of a map.
    """
    parts = {place: series for place, series in metric.series.items() if place}
    short = {tuple(pair for pair in place if pair[0] == coordinate): series for place, series in parts.items()}
    if len(short) == len(parts) > 0:
        parts = short
    panel = _over_steps(replace(metric, series=parts or metric.series))

    def draw(axes: Any) -> None:
        panel.draw(axes)
        if len(parts) > LINES:
            return
        if parts and () in metric.series:
            whole = metric.series[()]
            axes.plot(whole.steps, whole.values, color="black", linewidth=2, label="whole set")
            axes.legend(fontsize=7, ncols=2, frameon=False)
        if metric.unit == "fraction":
            axes.set_yscale("linear")
            axes.set_ylim(-0.02, 1.02)

    return replace(panel, title=f"{panel.title}, validation set", draw=draw)


def _diagnostic_panels(metric: Metric) -> Iterator[Panel]:
    curves = {
        place: series for place, series in metric.series.items() if isinstance(dict(place).get(DISTANCE), int | float)
    }
    rest = {place: series for place, series in metric.series.items() if place not in curves}
    if rest:
        yield _over_steps(replace(metric, series=rest))
    if curves:
        step = max(int(series.steps[-1]) for series in curves.values())
        title = f"{_title(metric)}, step {step}"
        yield Panel(title, partial(draw_curves, series=curves, along=DISTANCE))


def _over_steps(metric: Metric) -> Panel:
    rows = len(metric.series)
    if rows <= LINES:
        return Panel(_title(metric), partial(draw_lines, series=metric.series))
    return Panel(_title(metric), partial(draw_map, series=metric.series), 1 + (rows > _LOW_MAP_ROWS))


def _title(metric: Metric) -> str:
    name = metric.name.replace("_", " ")
    unit = f" ({metric.unit})" if metric.unit and metric.unit not in name else ""
    return name[:1].upper() + name[1:] + unit


def _draw_gradient_norm(axes: Any, series: Series, limit: float | None) -> None:
    _draw_every_step(axes, series)
    if limit is None:
        return
    finite = series.values[np.isfinite(series.values)]
    clipped = float((finite > limit).mean()) if finite.size else 0.0
    axes.axhline(limit, color="C3", linestyle="--", linewidth=1, label=f"limit; {clipped:.0%} of the steps clipped")
    axes.legend(fontsize=7, frameon=False)


def _draw_every_step(axes: Any, series: Series) -> None:
    """Each step thin, a running mean over it, and the step where the numbers stop being finite."""
    window = min(_MOST_SMOOTHED, 2 * round(_SMOOTHED_SHARE * len(series.steps) / 2) + 1)
    if window > 1:
        axes.plot(series.steps, series.values, color="C0", linewidth=0.6, alpha=0.35)
        axes.plot(series.steps, _running_mean(series.values, window), color="C0", label=f"mean of {window} steps")
    else:
        axes.plot(series.steps, series.values, color="C0", linewidth=1.3)
    lost = series.steps[~np.isfinite(series.values)]
    if lost.size:
        axes.axvline(lost[0], color="C3", linewidth=1, label=f"not finite from step {lost[0]}")
    scale_values(axes, [series.values])
    finish_steps(axes)
    axes.set_xlim(0, None)
    if window > 1 or lost.size:
        axes.legend(fontsize=7, frameon=False)


def _running_mean(values: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    """Centred mean of the finite values in a window that is cut off at the ends; NaN where the value is."""
    finite = np.isfinite(values)
    kernel = np.ones(window)
    sums = np.convolve(np.where(finite, values, 0.0), kernel, mode="same")
    with np.errstate(invalid="ignore"):
        return np.where(finite, sums / np.convolve(finite.astype(float), kernel, mode="same"), np.nan)
