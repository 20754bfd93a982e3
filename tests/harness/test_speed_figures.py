"""Figures of `bench speed`: medians, paired ratios, growth, forecasts, turns."""

import pytest
import torch

from seqbench.report.speed_plot import between_powers
from seqbench.speed.forecast import Forecast
from seqbench.speed.records import FAILED, MEASURED, NOT_RUN, PENDING, Record, growth, summarise
from seqbench.speed.rounds import Cell, run_rounds
from seqbench.speed.spread import Spread, exponent, paired_ratios, spread

CPU = torch.device("cpu")


def record(name, length, seconds, mode="train", **fields):
    return Record(name, {"mode": mode, "length": length}, MEASURED, seconds=list(seconds), **fields)


def test_the_spread_is_the_median_and_the_quartiles():
    assert spread([5.0, 1.0, 3.0, 2.0, 4.0]) == Spread(3.0, 2.0, 4.0)
    assert spread([7.0]) == Spread(7.0, 7.0, 7.0)
    assert spread([]) is None


def test_ratios_are_taken_within_a_repeat_so_that_a_slow_repeat_is_slow_for_both():
    steady, drifting = [1.0, 2.0, 10.0], [2.0, 4.0, 20.0]
    assert paired_ratios(drifting, steady) == [2.0, 2.0, 2.0]
    assert paired_ratios([1.0, 1.0], [2.0]) == [0.5], "a repeat that one of them does not have"


@pytest.mark.parametrize("power", [0.0, 1.0, 2.0])
def test_the_exponent_is_the_power_with_which_something_grows(power):
    points = [(length, 3e-6 * length**power) for length in (1000, 4000, 16000)]
    assert exponent(points) == pytest.approx(power, abs=1e-9)


def test_one_length_has_no_exponent():
    assert exponent([(1000, 2.0)]) is None
    assert exponent([(1000, 2.0), (1000, 3.0)]) is None
    assert exponent([(1000, 2.0), (2000, 0.0)]) is None


def test_a_summary_relates_to_the_first_contestant_and_to_the_first_length():
    records = [
        record("one", 10, [1.0, 2.0], units=10, flops=40.0),
        record("two", 10, [0.5, 1.0], units=10, flops=40.0),
        record("one", 20, [3.0, 6.0], units=20),
        record("two", 20, [0.5, 1.0], units=20),
    ]
    rows = summarise(records, matrix_rates=[8.0, 4.0])
    assert [row["ratio"]["median"] for row in rows] == [1.0, 2.0, 1.0, 6.0]
    assert [row["growth"]["median"] for row in rows] == [1.0, 1.0, 3.0, 1.0]
    assert rows[0]["flops_per_second"] == {"median": 3.0, "lower": 2.5, "upper": 3.5}
    assert rows[0]["matrix_share"]["median"] == 0.5, "of the peak in the same repeat"
    assert rows[2]["flops_per_second"] is None
    assert rows[0]["copy_share"] is None


def test_growth_is_fitted_to_passes_and_for_decode_to_single_tokens():
    quadratic = [record("a", length, [1e-9 * length], units=length, peak_bytes=8 * length) for length in (100, 1000)]
    constant = [record("a", length, [2e-3], "decode", units=16, peak_bytes=500) for length in (100, 1000)]
    train, decode = growth(quadratic + constant)
    assert train["time_exponent"] == pytest.approx(2.0)
    assert train["memory_exponent"] == pytest.approx(1.0)
    assert train["activation_exponent"] is None
    assert decode["time_exponent"] == pytest.approx(0.0, abs=1e-9)


def test_a_forecast_of_time_follows_the_work():
    forecast = Forecast(work=lambda length: float(length**2))
    forecast.note(10, 1.0, 100)
    assert forecast.expected_seconds(100) == 100.0


@pytest.mark.parametrize("quadratic", [0, 3])
def test_a_forecast_of_memory_sees_a_square_behind_a_large_constant(quadratic):
    def rise(length):
        return 1_000_000 + 500 * length + quadratic * length**2

    forecast = Forecast(work=float)
    for length in (256, 512, 1024):
        forecast.note(length, 1.0, rise(length))
    assert forecast.expected_rise(65536) == pytest.approx(rise(65536), rel=0.02)


def test_memory_that_shrinks_with_the_length_is_not_expected_to_go_on_so():
    forecast = Forecast(work=float)
    for length, rise in ((10, 1000), (20, 900), (40, 800)):
        forecast.note(length, 1.0, rise)
    assert forecast.expected_rise(10_000) >= 800


class Logged:
    """Counts its calls; the third one of "breaks" raises."""

    units = 4

    def __init__(self, name, log):
        self.name, self.log, self.calls = name, log, 0

    def prepare(self):
        pass

    def call(self):
        self.calls += 1
        self.log.append(self.name)
        if self.name == "breaks" and self.calls == 3:
            raise torch.OutOfMemoryError("tried to allocate 7 PiB")

    def clear(self):
        pass


class Silent:
    def begins(self, repeat):
        pass

    def timed(self, repeat, record):
        pass

    def ends(self, repeat):
        pass


def cells(log, names, length=8):
    return [
        Cell(Record(name, {"mode": "train", "length": length}, calls=1, units=4), Logged(name, log)) for name in names
    ]


def test_contestants_take_turns_and_another_one_begins_each_time():
    log = []
    run_rounds(cells(log, "abc"), 3, CPU, Silent())
    assert log == list("abc" + "bca" + "cab")


def test_every_length_has_its_turn_within_a_repeat():
    log = []
    run_rounds([*cells(log, "ab", 8), *cells(log, "xy", 16)], 2, CPU, Silent())
    assert log == list("abxy" + "bayx")


def test_a_contestant_that_fails_keeps_its_figures_and_the_others_go_on():
    log = []
    made = cells(log, ["breaks", "lasts"])
    run_rounds(made, 4, CPU, Silent())
    broken, whole = (cell.record for cell in made)
    assert (broken.state, len(broken.seconds)) == (FAILED, 2)
    assert broken.reason is not None and broken.reason.startswith("out of memory")
    assert (whole.state, len(whole.seconds)) == (MEASURED, 4)
    assert log.count("breaks") == 3


def test_a_cell_that_was_given_up_is_left_out():
    log = []
    made = cells(log, ["a", "b"])
    made[0].record.give_up(NOT_RUN, "too long")
    made[0].timed = None
    run_rounds(made, 2, CPU, Silent())
    assert log == ["b", "b"]
    assert made[0].record.state == NOT_RUN
    assert PENDING not in {cell.record.state for cell in made}


@pytest.mark.parametrize(
    ("limits", "labelled"),
    [((25, 95), [30, 40, 50, 60, 70, 80, 90]), ((3, 450), [5, 20, 50, 200]), ((1, 1e5), [])],
)
def test_an_axis_of_a_plot_has_labels_between_powers_of_ten_where_there_is_room(limits, labelled):
    ticks = [digit * power for power in (1, 10, 100) for digit in range(2, 10)]
    within = [tick for tick in ticks if limits[0] < tick < limits[1]]
    assert [tick for tick in within if between_powers(limits, tick, 0)] == labelled
