"""The picture of a training: what is drawn of a log, whatever a model tells, and for which runs."""

import dataclasses

import numpy as np
import pytest

from seqbench.planning.plan import resolve
from seqbench.planning.request import RunRequest
from seqbench.report.training_figure import training_figure
from seqbench.report.training_log import arrange_log
from seqbench.report.training_plot import plot_training
from seqbench.store.run_folder import RunFolder
from seqbench.store.sealed import sealed_line

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def plan():
    return resolve(RunRequest("toy_model:Neighbour", "toy_task:Recall"))


def trained(step, losses, gradient_norms=None, **modules):
    means = {"loss": 1.0, "progress": 0.5, "data_order_sha256": ""}
    row = {"kind": "train", "step": step, **means, "losses": losses, "gradient_norms": gradient_norms or losses}
    return row | ({"module_gradient_norms": modules} if modules else {})


def measured(metric, value, unit="fraction", **coordinates):
    return {"metric": metric, "value": value, "unit": unit, "n": 4, "split": "training", "coordinates": coordinates}


def told(step, *measurements):
    return {"kind": "diagnostics", "step": step, "measurements": list(measurements)}


def evaluated(step, *measurements, split="validation"):
    return {"kind": "evaluation", "split": split, "step": step, "measurements": list(measurements)}


TRAINED = [trained(2, [2.0, 1.0]), trained(4, [0.5, 0.25])]


@pytest.fixture
def draw(plan):
    """Panels by title, drawn to the last pixel."""

    def draw(rows, **changes):
        trainer = dataclasses.replace(plan.trainer, **changes)
        figure = training_figure(arrange_log(rows), dataclasses.replace(plan, trainer=trainer))
        figure.canvas.draw()
        return {axes.get_title("left"): axes for axes in figure.axes if axes.get_title("left")}

    return draw


def lines(axes):
    """Label -> points of each line that is told from others by a label."""
    return {line.get_label(): line.get_xydata().tolist() for line in axes.lines if line.get_label()[0] != "_"}


def legend(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()] if axes.get_legend() else []


def row_labels(axes):
    return [label.get_text() for label in axes.get_yticklabels()]


def cells(axes):
    """Rows and columns of a map."""
    [mesh] = axes.collections
    return np.ma.filled(mesh.get_array(), np.nan)


def test_loss_and_gradient_norm_are_drawn_of_every_step(draw):
    panels = draw([trained(2, [2.0, 1.0], [3.0, 4.0]), trained(3, [0.5], [5.0])], gradient_clip_norm=3.5)
    loss, norm = panels["Loss (nats per labelled token)"], panels["Gradient norm before clipping"]
    assert loss.lines[0].get_xydata().tolist() == [[1, 2.0], [2, 1.0], [3, 0.5]]
    assert norm.lines[0].get_xydata().tolist() == [[1, 3.0], [2, 4.0], [3, 5.0]]
    assert legend(norm) == ["limit; 67% of the steps clipped"]
    assert set(panels) == {"Loss (nats per labelled token)", "Gradient norm before clipping"}


def test_without_a_limit_none_is_drawn(draw):
    panels = draw(TRAINED, gradient_clip_norm=None)
    assert legend(panels["Gradient norm before clipping"]) == []


def test_a_long_training_has_a_running_mean(draw):
    values = [1.0, 3.0] * 150
    loss = draw([trained(300, values)])["Loss (nats per labelled token)"]
    assert legend(loss) == ["mean of 7 steps"]
    smooth = loss.lines[1].get_ydata()
    assert len(smooth) == 300
    assert smooth[3] == pytest.approx(np.mean(values[:7]))
    # Cut off at the ends, not filled up with zeros.
    assert smooth[0] == pytest.approx(np.mean(values[:4]))


def test_a_wide_range_of_losses_is_drawn_on_a_logarithmic_axis(draw):
    title = "Loss (nats per labelled token)"
    assert draw([trained(2, [3.0, 2.0])])[title].get_yscale() == "linear"
    assert draw([trained(2, [3.0, 0.03])])[title].get_yscale() == "log"
    assert draw([trained(2, [3.0, 0.0])])[title].get_yscale() == "linear"


def test_the_step_where_a_run_diverged_is_marked(draw):
    panels = draw([*TRAINED, trained(8, [0.5, None, None, None], [2.0, 3.0, None, None])])
    assert "not finite from step 6" in legend(panels["Loss (nats per labelled token)"])
    assert "not finite from step 7" in legend(panels["Gradient norm before clipping"])


def test_few_modules_are_lines_and_many_are_a_map_in_the_models_order(draw):
    few = draw([trained(1, [1.0], embedding=0.5, inner=2.0), trained(2, [1.0], embedding=0.25, inner=1.0)])
    assert lines(few["Gradient norm by module"]) == {
        "embedding": [[1, 0.5], [2, 0.25]],
        "inner": [[1, 2.0], [2, 1.0]],
    }
    names = {f"layers.{number}": float(number + 1) for number in reversed(range(11))}
    many = draw([trained(1, [1.0], **names), trained(2, [1.0], **names)])["Gradient norm by module"]
    assert row_labels(many) == list(names)
    np.testing.assert_array_equal(cells(many), np.array([[value, value] for value in names.values()]))


def test_the_validation_score_is_drawn_by_the_primary_coordinate_and_over_the_whole_set(draw):
    rows = [
        evaluated(
            step,
            measured("accuracy", step / 10, lookback=2, reach=None),
            measured("accuracy", step / 20, lookback=1, reach=None),
            measured("accuracy", step / 40),
            measured("certainty", 0.1),
        )
        for step in (2, 4)
    ]
    test = evaluated(4, measured("accuracy", 0.9), split="test")
    panels = draw([*TRAINED, *rows, test])
    assert lines(panels["Accuracy (fraction), validation set"]) == {
        "lookback 1": [[2, 0.1], [4, 0.2]],
        "lookback 2": [[2, 0.2], [4, 0.4]],
        "whole set": [[2, 0.05], [4, 0.1]],
    }
    assert not any("ertainty" in title for title in panels)


def test_a_score_that_is_measured_over_the_whole_set_alone_is_one_line(draw):
    panels = draw([*TRAINED, evaluated(4, measured("accuracy", 0.5))])
    [line] = panels["Accuracy (fraction), validation set"].lines
    assert line.get_xydata().tolist() == [[4, 0.5]]


def test_a_metric_of_few_places_is_lines_over_steps(draw):
    rows = [told(step, measured("spread", step + level, level=level)) for step in (2, 4) for level in (10, 9)]
    panels = draw([*TRAINED, *rows])
    assert lines(panels["Spread (fraction)"]) == {"level 9": [[2, 11], [4, 13]], "level 10": [[2, 12], [4, 14]]}


def test_a_metric_of_many_places_is_a_map_with_a_block_for_each_first_coordinate(draw):
    places = [(level, group) for level in (1, 0) for group in (0, 10, 9, 8, 7, 6)]
    rows = [
        told(step, *(measured("usage", level + group / 100, level=level, group=group) for level, group in places))
        for step in (2, 4)
    ]
    usage = draw([*TRAINED, *rows])["Usage (fraction)"]
    assert row_labels(usage) == ["level 0", "level 1"]
    expected = [level + group / 100 for level, group in sorted(places)]
    assert cells(usage)[1:, 0].tolist() == pytest.approx(expected[1:])
    # Nothing lies under the scale but what is zero.
    [mesh] = usage.collections
    assert cells(usage)[0, 0] < mesh.norm.vmin <= expected[1]
    assert mesh.get_array().shape == (12, 2)


def test_a_place_that_was_not_measured_is_a_hole_in_the_map(draw):
    rows = [told(2, *(measured("usage", 0.5, group=group) for group in range(12)))]
    rows += [told(4, *(measured("usage", 0.5, group=group) for group in range(11)))]
    assert np.isnan(cells(draw([*TRAINED, *rows])["Usage (fraction)"])).tolist() == [[False, False]] * 11 + [
        [False, True]
    ]


def test_a_metric_over_distance_is_a_curve_after_the_last_step(draw):
    def decay(step):
        return [
            measured("gradient", step * 0.5**distance + level, level=level, distance=distance)
            for level in (0, 1)
            for distance in (3, 1, 2)
        ]

    panels = draw([*TRAINED, told(2, *decay(2)), told(4, *decay(4))])
    assert lines(panels["Gradient (fraction), step 4"]) == {
        "level 0": [[1, 2.0], [2, 1.0], [3, 0.5]],
        "level 1": [[1, 3.0], [2, 2.0], [3, 1.5]],
    }


STRANGE = {
    "no number at all": [measured("x", None)],
    "no number in a map": [measured("x", None, group=group) for group in range(20)],
    "no number over distance": [measured("x", None, distance=distance) for distance in range(3)],
    "zeros": [measured("x", 0.0, group=group) for group in range(20)],
    "negative": [measured("x", -1.0 * group, group=group) for group in range(20)],
    "one value": [measured("x", 1.0, group=group) for group in range(20)],
    "huge and tiny": [measured("x", 10.0 ** (30 * sign), group=sign) for sign in (-1, 0, 1)],
    "unbounded": [measured("x", 1.0, reach=reach) for reach in (4, None, 2)],
    "unbounded distance": [measured("x", 1.0, distance=distance) for distance in (4, None, 2)],
    "words": [measured("x", 1.0, part=part) for part in "abcdefghijklmnop"],
    "words and numbers": [measured("x", 1.0, part=part) for part in ("a", 1, None)],
    "far": [measured("x", 1.0, distance=4**power) for power in range(8)],
    "different coordinates": [measured("x", 1.0, level=1), measured("x", 2.0, group=1), measured("x", 3.0)],
    "many different coordinates": [measured("x", 1.0), *(measured("x", 1.0, **{f"c{n}": n}) for n in range(12))],
    "no unit, dollars": [measured("x_$y", 1.0, unit="")],
    "very many": [measured("x", float(group), group=group) for group in range(500)],
}


@pytest.mark.parametrize("case", STRANGE)
def test_whatever_a_model_tells_can_be_drawn(draw, case):
    panels = draw([*TRAINED, told(4, *STRANGE[case])])
    assert len(panels) > 2


def test_the_picture_is_drawn_from_the_log_alone(tmp_path, plan):
    folder = RunFolder(tmp_path)
    assert not plot_training(folder, plan)
    log = tmp_path / "metrics.jsonl"
    log.write_text(sealed_line(evaluated(0, measured("accuracy", 0.5))))
    assert not plot_training(folder, plan)
    # A run of an earlier version, whose lines have no values by step.
    log.write_text(
        sealed_line({key: value for key, value in trained(2, [1.0]).items() if key not in ("losses", "gradient_norms")})
    )
    assert not plot_training(folder, plan)
    assert not folder.training_plot.exists()
    log.write_text("".join(map(sealed_line, TRAINED)) + '{"kind": "tr')
    assert plot_training(folder, plan)
    assert folder.training_plot.read_bytes().startswith(PNG)


def command(folder, **changes):
    settings = [f"--set={key}={value}" for key, value in changes.items()]
    return ("run", "--model", "toy_diagnostics:Telling", "--task", "toy_task:Recall", "--output", folder, *settings)


def drawn(bench, folder):
    path = bench.folder / folder / "training.png"
    return path.exists() and path.read_bytes().startswith(PNG)


def test_a_finished_run_has_the_picture_and_says_where(bench):
    finished = bench(*command("finished"))
    assert finished.code == 0
    assert finished.out.splitlines()[-1].endswith("plots: finished/plot.png, finished/training.png")
    assert drawn(bench, "finished")


def test_a_run_that_diverged_and_one_that_was_stopped_have_it_too(bench):
    assert bench(*command("diverged", learning_rate=1e30, gradient_clip_norm="none")).code == 1
    assert drawn(bench, "diverged")
    assert bench(*command("stopped"), TOY_SIGNAL="SIGINT@validation:1").code == 130
    assert drawn(bench, "stopped")


def test_a_run_that_trained_nothing_has_none(bench):
    assert bench(*command("untrained", steps=0, warmup_steps=0)).code == 0
    assert (bench.folder / "untrained" / "plot.png").exists()
    assert not drawn(bench, "untrained")
