"""Numbers that no run has are refused at once, by every command in the same words, before anything is made."""

import json
import time

import click
import hypothesis
import hypothesis.strategies as st
import pytest
from command_line import TOY

from seqbench.accounting.meta_build import MOST_TENSORS, build_without_memory
from seqbench.cli.app import LazyGroup
from seqbench.cli.numbers import Amount, Count
from seqbench.comparing.search import parse_axes
from seqbench.contracts.quantities import LARGEST_WHOLE, number, whole_number
from seqbench.errors import RequestError
from seqbench.planning.plan import slug
from seqbench.plugins.registry import find_model

RUN = ("run", *TOY)
COMPARE = ("compare", "--task", "toy_task:Recall", "--models", TOY[1])
SEARCH = (*COMPARE, "--search", "lr=1,2")
SPEED = ("speed", "--models", "right_model:Right")
LONG = "a" * 256

# Arguments, and what the message must say.
ABSURD = {
    "share": ((*SEARCH, "--trial-share", "nan"), "'nan' is no finite number; it must be more than 0 and at most 1"),
    "time limit": ((*COMPARE, "--time-limit", "nan"), "'nan' is no finite number"),
    "time limit of a measurement": ((*SPEED, "--time-limit", "inf"), "'inf' is no finite number"),
    "seconds": ((*RUN, "--seconds", "1e400"), "'1e400' is no finite number"),
    "lengths": ((*SPEED, "--lengths", "1k,1e30"), "'1e30' is out of range; it must be from 1 to 1,073,741,824"),
    "batch": ((*SPEED, "--batch-size", "1000000000"), "out of range; it must be from 1 to 1,048,576"),
    "threads": ((*RUN, "--threads", "100000"), "out of range; it must be from 1 to 1,024"),
    "threads of a measurement": ((*SPEED, "--threads", "100000"), "out of range; it must be from 1 to 1,024"),
    "jobs": ((*COMPARE, "--jobs", "100000"), "out of range; it must be from 1 to 1,024"),
    "points": ((*COMPARE, "--search", "lr=1e-3:1e-2:100000"), "COUNT from 2 to 1,000"),
    "points of two axes": (
        (*COMPARE, "--search", "lr=1e-3:1:100", "--search", "beta1=0.1:0.9:100"),
        "asks for 10,000 points of each model; at most 1,000",
    ),
    "steps": ((*RUN, "--set", f"steps={'9' * 20}"), "steps must be at most 9,007,199,254,740,992"),
    "steps of an option": ((*RUN, "--steps", "9" * 20), "out of range"),
    "rate": ((*RUN, "--lr", "nan"), "'nan' is no finite number"),
    "layers": (
        ("run", "--model", "transformer", "--task", "copy-paste", "--set", "model.num_hidden_layers=1e9"),
        "num_hidden_layers must be from 1 to 10000",
    ),
    "layers of a checkpoint": (("run", "--model", "hf:deep", "--task", "copy-paste"), "num_hidden_layers is 1,000,000"),
    "layers of a part": (("run", "--model", "hf:nested", "--task", "copy-paste"), "n_layer is 1,000,000,000; at most"),
    "layers by name": (
        ("run", "--model", "hf:gpt2", "--task", "copy-paste", "--set", 'model.overrides={"n_layer": 1000000000}'),
        "n_layer is 1,000,000,000; at most 10,000 layers",
    ),
    "name of a run": ((*RUN, "--output", LONG), "File name too long"),
    "name of a run to be shown": (("show", LONG), "name too long"),
    "name of a run to be tested": (("verify", LONG), "name too long"),
    "name of a checkpoint": ((*RUN, "--init", LONG), "name too long"),
    "name of a model's folder": (("run", "--model", f"hf:./{LONG}", "--task", "copy-paste"), "name too long"),
}


@pytest.fixture(scope="module")
def checkpoints(bench):
    """Folders whose config.json tells of a thousand million layers."""
    shape = {"model_type": "qwen2", "hidden_size": 8, "intermediate_size": 16, "vocab_size": 300}
    configs = {
        "deep": {**shape, "num_hidden_layers": 10**9},
        "nested": {**shape, "parts": [{"decoder": {"n_layer": 10**9}}]},
    }
    for name, config in configs.items():
        (bench.folder / name).mkdir()
        (bench.folder / name / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("case", ABSURD)
def test_an_absurd_number_is_refused_quickly_and_nothing_is_made(bench, checkpoints, case):
    arguments, told = ABSURD[case]
    before, started = sorted(bench.folder.rglob("*")), time.monotonic()
    finished = bench(*arguments)
    assert (finished.code, finished.out) == (2, ""), finished
    assert told.lower() in " ".join(finished.err.split()).lower()
    assert "Traceback" not in finished.err
    assert sorted(bench.folder.rglob("*")) == before
    assert time.monotonic() - started < 60


@pytest.mark.parametrize("command", [(*RUN, "--dry-run"), (*COMPARE, "--dry-run"), SPEED])
@pytest.mark.parametrize("threads", ["4,2", "many", "0", "-1", "100000"])
def test_threads_of_the_environment_that_are_none_are_refused(bench, command, threads):
    finished = bench(*command, OMP_NUM_THREADS=threads)
    assert (finished.code, finished.out) == (2, "")
    assert f"OMP_NUM_THREADS={threads} in the environment is no number of threads" in finished.err


def test_a_model_of_endless_layers_is_given_up_on_while_it_is_built():
    model = find_model("toy_model:Endless")
    with pytest.raises(RequestError, match=f"more than {MOST_TENSORS:,} weight tensors; choose fewer layers"):
        build_without_memory(model, model.presets[model.default_preset])


def test_the_folder_of_a_run_has_a_name_that_file_systems_take():
    assert slug("a/b:c") == "a-b-c"
    assert len(slug(LONG)) == 200


@pytest.mark.parametrize("name", LazyGroup().list_commands(None))
def test_every_option_that_takes_a_number_takes_a_finite_one_in_a_range(name):
    for option in LazyGroup().get_command(None, name).params:
        takes_a_number = isinstance(option.type, Count | Amount)
        assert takes_a_number or not isinstance(option.type, click.types.IntParamType | click.types.FloatParamType)
        for text in ("nan", "inf", "-inf", "1e400", "1e31", "-1", "1,5", "one", "0x10", "1_0"):
            if takes_a_number:
                with pytest.raises(click.BadParameter, match="must be"):
                    option.type.convert(text, option, None)


@hypothesis.given(st.integers(-LARGEST_WHOLE, LARGEST_WHOLE))
def test_a_whole_number_is_itself_in_every_spelling(count):
    for text in (f"{count}", f"{count:,}", f"{count:_}", f"{count}e0", f"{count}.0", f" {count} "):
        assert whole_number(text) == count


@hypothesis.given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_is_itself_as_python_writes_it(value):
    assert number(repr(value)) == value


@hypothesis.given(st.text(alphabet="0123456789.,_+-eknmgbt ", max_size=12))
def test_a_text_is_a_number_or_refused(text):
    try:
        found = number(text)
    except ValueError:
        return
    assert abs(found) < float("inf")
    assert any(character.isdigit() for character in text)


@pytest.mark.parametrize(
    ("text", "count"), [("1k", 1000), ("30.1M", 30_100_000), ("1.5B", 1_500_000_000), ("1e3", 1000), ("1,000", 1000)]
)
def test_suffixes_and_exponents_are_exact(text, count):
    assert whole_number(text) == count


def test_a_search_counts_the_points_of_all_axes():
    axes = ["lr=1e-3:1:40", "beta1=0.1:0.9:25"]
    assert [len(axis.values) for axis in parse_axes(axes, {})] == [40, 25]
    with pytest.raises(RequestError, match="2,000 points"):
        parse_axes([*axes, "optimizer=adamw,muon"], {})
