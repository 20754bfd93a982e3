"""`bench speed` as a user runs it, and its parts at tiny sizes."""

import contextlib
import json
import signal
import statistics
import time

import pytest
import torch
from command_line import Bench

from seqbench.errors import RequestError
from seqbench.plugins import kernels
from seqbench.report.speed_table import speed_report
from seqbench.speed.display import SpeedDisplay
from seqbench.speed.failures import NotRun
from seqbench.speed.operations import find_operations
from seqbench.speed.positions import Positions
from seqbench.speed.session import Session
from seqbench.speed.subjects import VOCABULARY, find_subjects
from seqbench_kernels.dispatch import Operation, Path

CPU = torch.device("cpu")
RIGHT, STATELESS = "right_model:Right", "toy_model:Stateless"
TINY = ("--lengths", "16,32", "--repeats", "2", "--device", "cpu")


def cell(content, name, mode, length):
    (found,) = [
        each for each in content["cells"] if each["name"] == name and each["place"] == {"mode": mode, "length": length}
    ]
    return found


@pytest.fixture(scope="module")
def measured(bench: Bench):
    """One command, in a process of its own."""
    finished = bench("speed", "--models", f"{RIGHT},{STATELESS}", *TINY, "--output", "out")
    assert finished.code == 0, finished.err
    return finished, json.loads((bench.folder / "out" / "speed.json").read_text())


def test_every_model_length_and_mode_has_a_row_with_figures_or_a_reason(measured):
    finished, content = measured
    assert content["state"] == "complete"
    assert len(content["cells"]) == 2 * 3 * 2
    for mode in ("train", "prefill", "decode"):
        for length in (16, 32):
            found = cell(content, RIGHT, mode, length)
            assert (found["state"], len(found["seconds"])) == ("measured", 2)
            assert found["peak_bytes"] > found["rise_bytes"] > 0
            assert found["units_per_second"]["median"] > 0
    refused = cell(content, STATELESS, "decode", 16)
    assert refused["state"] == "not run"
    assert "past_key_values" in refused["reason"]
    assert refused["reason"] in finished.out.replace("\n", " ")


def test_the_figures_of_a_pass_are_those_of_its_declaration(measured):
    _, content = measured
    (right, _) = content["models"]
    (subject,) = find_subjects([RIGHT])
    train, prefill = (cell(content, RIGHT, mode, 32) for mode in ("train", "prefill"))
    assert train["flops"] == subject.plugin.flops(subject.config, 32).training_total
    assert prefill["flops"] == subject.plugin.flops(subject.config, 32).forward_total
    assert (train["units"], prefill["units"]) == (32, 32)
    assert train["activation_bytes"] > 0 and prefill["activation_bytes"] is None
    decode = cell(content, RIGHT, "decode", 32)
    assert decode["flops"] == sum(
        subject.plugin.flops(subject.config, 33 + decode["units"]).forward[part]
        - subject.plugin.flops(subject.config, 33).forward[part]
        for part in subject.plugin.flops(subject.config, 33).forward
    )
    assert right["weight_bytes"] < decode["traffic_bytes"]
    assert right["config"]["vocab_size"] == VOCABULARY


def test_the_device_is_measured_before_and_in_every_round(measured):
    _, content = measured
    assert len(content["peaks"]["matrix_samples"]) == len(content["peaks"]["copy_samples"]) == 2
    assert content["environment"]["threads"] == 1
    assert 0 < cell(content, RIGHT, "train", 32)["matrix_share"]["median"] < 1


def test_tables_and_plots_are_stored_beside_the_data(measured, bench: Bench):
    folder = bench.folder / "out"
    assert {path.name for path in folder.iterdir()} == {
        "speed.json",
        "table.txt",
        "table.md",
        "plot.png",
        "plot.svg",
    }
    assert "time per token" in (folder / "table.md").read_text()
    assert measured[0].out.rstrip().endswith("plot: out/plot.png")


def test_what_raises_or_would_take_too_long_is_a_row_with_its_reason_and_the_rest_is_measured(bench: Bench):
    broken, models = "toy_model:RaisesAtOnce", f"toy_model:RaisesAtOnce,{RIGHT}"
    arguments = ("--lengths", "16,100k", "--modes", "train", "--repeats", "1", "--time-limit", "2", "--json")
    finished = bench("speed", "--models", models, *arguments)
    assert finished.code == 1, finished.err
    failed = cell(finished.json, broken, "train", 16)
    assert (failed["state"], failed["reason"]) == ("failed", "ArithmeticError: not even once")
    assert cell(finished.json, RIGHT, "train", 16)["state"] == "measured"
    refused = cell(finished.json, RIGHT, "train", 100_000)
    assert refused["state"] == "not run"
    assert "--time-limit 2" in refused["reason"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--models", "right_model:Righ"), "did you mean Right"),
        (("--models", RIGHT, "--modes", "train,prefil"), "did you mean prefill"),
        (("--models", RIGHT, "--lengths", "1k,many"), "'many' is no finite number"),
        (("--models", RIGHT, "--preset", "tinny"), "did you mean tiny"),
        (("--models", RIGHT, "--set", "width=5"), "type --set model.width=..."),
        (("--models", RIGHT, "--set", "trainer.steps=5"), "nothing but fields of models"),
        (("--models", RIGHT, "--set", "model.widht=5"), "did you mean width"),
        (("--models", f"{RIGHT},{RIGHT}"), "more than once"),
        (("--models", f"{RIGHT}@"), "MODEL@PATH"),
        (("--models", f"{RIGHT}@nowhere"), "nowhere"),
        (("--models", f"{RIGHT},{RIGHT}@reference", "--compile"), "one choice of paths"),
        (("--kernels", "phase_scam"), "did you mean phase_scan"),
        ((), "give --models"),
    ],
)
def test_a_wrong_request_is_one_message_and_nothing_is_measured(bench: Bench, arguments, told):
    finished = bench("speed", *arguments, "--output", "refused")
    assert finished.code == 2
    assert told in finished.err
    assert not (bench.folder / "refused").exists()


def test_ctrl_c_keeps_what_was_measured(bench: Bench):
    process = bench.start(
        "speed", "--models", RIGHT, "--lengths", "16", "--modes", "prefill", "--repeats", "100000", "--output", "cut"
    )
    stored = bench.folder / "cut" / "speed.json"
    while not (stored.exists() and json.loads(stored.read_text())["cells"][0]["seconds"]):
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    content = json.loads(stored.read_text())
    assert content["state"] == "interrupted"
    assert content["cells"][0]["state"] == "measured"
    assert "cut" in err and "interrupted" in out


def test_one_model_can_be_given_other_settings_than_the_others():
    default, other = find_subjects([RIGHT, f"{RIGHT}@reference"], changes={f"{RIGHT}@reference.width": "12"})
    plain, _ = find_subjects([RIGHT, f"{RIGHT}@reference"], changes={"model.width": "8"})
    assert default.config.width not in (plain.config.width, other.config.width)
    assert (plain.config.width, other.config.width) == (8, 12)
    assert (default.paths, other.paths) == (None, "reference")


def test_positions_are_reached_in_order_and_each_state_is_a_copy():
    (subject,) = find_subjects([RIGHT])
    positions = Positions(
        subject.build(CPU), lambda count: torch.ones(1, count, dtype=torch.int64), float, 60.0, contextlib.nullcontext
    )
    early, late = positions.at(3), positions.at(10)
    assert (early.seen.item(), late.seen.item()) == (3, 10)


def test_a_position_that_would_take_too_long_is_given_up_on_the_way():
    (subject,) = find_subjects([RIGHT])
    positions = Positions(
        subject.build(CPU), lambda count: torch.ones(1, count, dtype=torch.int64), float, 1e-3, contextlib.nullcontext
    )
    with pytest.raises(NotRun, match="reaching position 1,000,000"):
        positions.at(1_000_000)


STUB_PATHS = (
    Path("quick"),
    Path("absent", unavailable=lambda device, dtype: "it needs a device that is not here"),
    Path("broken"),
    Path("reference"),
)


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Operation:
    """An operation of four paths, one of them broken and one unavailable."""

    def function(values):
        path = operation.choose(values.device, values.dtype)
        if path == "broken":
            raise ArithmeticError("no such sum")
        return (values @ values).tanh()

    def cases(device):
        values = torch.full((200, 200), 1e-3, device=device)
        return {"200 x 200": lambda: (values.clone().requires_grad_(),), "no gradient": lambda: (values,)}

    operation = Operation("stub", function, STUB_PATHS, cases)
    monkeypatch.setattr(kernels, "usable_operations", lambda: [operation])
    return operation


def test_every_path_of_an_operation_is_set_in_relation_to_the_reference(stub, capsys):
    stored = []
    with SpeedDisplay(None, 3) as display:
        header = {"kind": "operations", "repeats": 3, "precision": "fp32"}
        header["environment"] = {"device_name": "test", "threads": 1}
        session = Session(header, CPU, 3, display, stored.append)
        session.measure_operations([stub], time_limit=60.0)
    rows = {(each["place"]["case"], each["place"]["direction"], each["name"]): each for each in stored[-1]["cells"]}
    assert len(rows) == 3 * len(STUB_PATHS), "backward only where an argument wants a gradient"
    for key in (("200 x 200", "forward"), ("200 x 200", "forward+backward"), ("no gradient", "forward")):
        assert rows[*key, "reference"]["ratio"]["median"] == 1
        pairs = zip(rows[*key, "reference"]["seconds"], rows[*key, "quick"]["seconds"], strict=True)
        assert rows[*key, "quick"]["ratio"]["median"] == pytest.approx(statistics.median(a / b for a, b in pairs))
        assert rows[*key, "quick"]["peak_bytes"] >= 200 * 200 * 4
        assert rows[*key, "absent"]["state"] == "not run"
        assert rows[*key, "broken"]["reason"] == "ArithmeticError: no such sum"
    assert [each["state"] for each in stored] == ["running"] * 4 + ["complete"]
    shown = speed_report(stored[-1]).markdown()
    assert "absent: not run: it needs a device that is not here  (stub)" in shown
    assert not any(line.startswith("|") and "absent" in line for line in shown.splitlines()), "a line and no rows"
    assert capsys.readouterr().err.count("it needs a device that is not here") == 1


def test_an_operation_that_nobody_announces_is_refused_with_the_nearest_name(monkeypatch):
    monkeypatch.setattr("seqbench.speed.operations.announced_operations", lambda: {"scan": None})
    with pytest.raises(RequestError, match="did you mean scan"):
        find_operations(["scam"])
