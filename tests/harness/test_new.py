"""`bench new`: a package that works from the start, whatever it is called, or a refusal that says what to type."""

import ast
import dataclasses
import re
import shlex
import sys
import tomllib

import pytest
import torch

from seqbench.errors import RequestError
from seqbench.plugins.registry import MODEL_GROUP, TASK_GROUP, find_model, find_task
from seqbench.scaffold import KINDS, choose_names, render, write_package

GROUPS = {"model": MODEL_GROUP, "task": TASK_GROUP}
# What the printed commands leave to the reader, and so few steps that they take seconds.
FILLED_IN = {"model": ("TASK", "toy_task:Recall"), "task": ("MODEL", "toy_model:Neighbour")}
SENSIBLE_NAMES = ["x", "my-model", "my-task", "my_2nd-idea", "s4", "state", "layer", "tensor", "gated-recurrence"]

# A name, and what the message must say.
REFUSED = {
    "upper case": ("MyModel", "type: bench new model my-model"),
    "a space": ("my model", "type: bench new model my-model"),
    "a digit first": ("4d", "type: bench new model my-4d"),
    "a dash at the end": ("idea-", "type: bench new model idea"),
    "a path": ("../idea", "type: bench new model idea"),
    "a dotted path": ("idea.model:Model", "type: bench new model idea-model-model"),
    "other letters": ("идея", "type: bench new model my-model"),
    "nothing": ("", "is empty; type a value"),
    "only dashes": ("--", "Missing argument"),
    "a word of Python": ("class", "'class' is a word of the Python language\ntype: bench new model my-class"),
    "standard library": ("random", "module of Python's standard library\ntype: bench new model my-random"),
    "an importable module": ("torch", "there is a Python module 'torch' already"),
    "a package of another name": ("scikit-learn", "a package 'scikit-learn' is installed"),
    "an installed model": ("pmnet", "a model or task of that name is installed"),
    "an installed task": ("copy-paste", "a model or task of that name is installed"),
    "a class of the contract": ("model", "type: bench new model my-model"),
    "a full folder": ("full", "full exists and is not empty"),
    "a file": ("file", "file is a file"),
    "too long": ("x" * 300, "cannot write to xxx"),
}


@pytest.fixture(scope="module")
def places(bench):
    """Things that are in the way."""
    (bench.folder / "full").mkdir()
    (bench.folder / "full" / "notes.txt").write_text("mine")
    (bench.folder / "file").write_text("mine")
    (bench.folder / "empty").mkdir()


@pytest.fixture
def importable(tmp_path, monkeypatch):
    """The folder of a new package with that name, on the path; its module is forgotten afterwards."""
    modules = []

    def write(kind, name):
        names = choose_names(kind, name)
        write_package(names, tmp_path)
        monkeypatch.syspath_prepend(str(tmp_path / name))
        modules.append(names.module)
        return names

    yield write
    for module in modules:
        sys.modules.pop(module, None)


def commands(printed):
    return [shlex.split(line) for line in printed.splitlines() if line.startswith("    ")]


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_package_passes_the_check_and_runs_with_the_commands_that_are_printed(bench, kind):
    printed = bench("new", kind, f"my-{kind}").out
    (_, folder), check, run, install, _ = commands(printed)
    there = dataclasses.replace(bench, folder=bench.folder / folder)
    checked = there(*check[1:])
    assert checked.code == 0, checked
    assert re.search(r"^0 of \d\d clauses fail", checked.out, re.MULTILINE)
    placeholder, plugin = FILLED_IN[kind]
    run = [plugin if word == placeholder else word for word in run]
    finished = there(*run[1:], "--set", "steps=3", "--set", "warmup_steps=0", "--json")
    assert finished.code == 0, finished
    assert finished.json["status"] == "complete"
    assert install == ["pip", "install", "-e", "."]
    written = re.findall(r"^wrote (.*)$", printed, re.MULTILINE)
    assert sorted(bench.folder / path for path in written) == sorted(
        path for path in there.folder.iterdir() if path.is_file()
    )


def test_the_new_model_learns(bench):
    """To name the token before; guessing is right one time in eight."""
    bench("new", "model", "pupil")
    there = dataclasses.replace(bench, folder=bench.folder / "pupil")
    command = ("run", "--model", "pupil:PupilPlugin", "--task", "toy_task:Recall", "--set", "model.num_hidden_layers=1")
    result = there(*command, "--set", "steps=80", "--set", "batch_size=32", "--json").json
    (overall,) = [entry["value"] for entry in result["measurements"] if not entry["coordinates"]]
    assert overall > 0.9


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", SENSIBLE_NAMES)
def test_every_sensible_name_gives_a_plugin_of_that_name(importable, kind, name):
    names = importable(kind, name)
    assert re.fullmatch(r"[A-Z]\w*", names.prefix)
    if kind == "model":
        plugin = find_model(names.dotted_path)
        model = plugin.build(plugin.with_vocabulary(plugin.presets["tiny"], 11))
        assert model(torch.zeros(1, 3, dtype=torch.int64)).logits.shape == (1, 3, 11)
        assert type(model).__name__ == f"{names.prefix}ForCausalLM"
        assert model.config.model_type == f"seqbench-{name}"
    else:
        plugin = find_task(names.dotted_path)
        assert plugin(plugin.presets["tiny"].config).training_batch(0, 0, 2).input_ids.shape[0] == 2
    assert plugin.name == name


@pytest.mark.parametrize("kind", KINDS)
def test_the_package_announces_the_plugin_under_its_name_and_tests_it(kind):
    files = render(choose_names(kind, "my-2nd-idea"))
    assert set(files) == {"pyproject.toml", "README.md", "my_2nd_idea.py", "test_my_2nd_idea.py"}
    project = tomllib.loads(files["pyproject.toml"])
    assert project["project"]["name"] == "my-2nd-idea"
    assert project["project"]["entry-points"] == {GROUPS[kind]: {"my-2nd-idea": "my_2nd_idea:My2ndIdeaPlugin"}}
    assert project["tool"]["hatch"]["build"]["only-include"] == ["my_2nd_idea.py"]
    assert f"check_{kind}_plugin(My2ndIdeaPlugin)" in files["test_my_2nd_idea.py"]
    left_over = [file for file, text in files.items() if re.search(f"my[-_]{kind}|My{kind}", text, re.IGNORECASE)]
    assert left_over == []


@pytest.mark.parametrize("kind", KINDS)
def test_no_name_that_is_accepted_gives_a_class_that_hides_another(kind):
    """A class of the package is a prefix and a word such as Plugin; another class may end with the same word."""
    tree = ast.parse(render(choose_names(kind, f"my-{kind}"))[f"my_{kind}.py"])
    prefix = f"My{kind.capitalize()}"
    bound = {alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    bound |= {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
    endings = {name.removeprefix(prefix) for name in bound if name.startswith(prefix)}
    assert "Plugin" in endings
    clashes = {other.removesuffix(ending) for other in bound for ending in endings if other.endswith(ending)} - {prefix}
    assert clashes
    for clash in clashes:
        with pytest.raises(RequestError):
            choose_names(kind, re.sub(r"(?<=[a-z])(?=[A-Z])", "-", clash).lower())


def test_a_name_with_a_placeholder_in_it_is_filled_in_once():
    files = render(choose_names("model", "a_my_model"))
    assert "a_my_model = " in files["pyproject.toml"]
    assert "a_a_my_model" not in "".join(files.values())


@pytest.mark.parametrize("options", [{"do_sample": False}, {"do_sample": True}, {"do_sample": False, "num_beams": 3}])
def test_the_new_model_generates_from_its_state_as_it_does_without(importable, options):
    plugin = find_model(importable("model", "writer").dotted_path)
    model = plugin.build(plugin.config_class(vocab_size=17, initializer_range=0.3)).eval()
    prompt = torch.arange(10).reshape(2, 5)
    written = []
    for padding, use_cache in ((0, True), (3, True), (0, False)):
        tokens = torch.nn.functional.pad(prompt, (padding, 0))
        mask = torch.nn.functional.pad(torch.ones_like(prompt), (padding, 0))
        torch.manual_seed(0)
        whole = model.generate(tokens, attention_mask=mask, use_cache=use_cache, max_new_tokens=8, **options)
        written.append(whole[:, padding:])
    assert torch.equal(written[0], written[1])
    assert torch.equal(written[0], written[2])


@pytest.mark.parametrize("case", REFUSED)
def test_a_name_that_cannot_be_used_is_refused_with_what_to_type(bench, places, case):
    name, told = REFUSED[case]
    before = set(bench.folder.rglob("*"))
    finished = bench("new", "model", name)
    assert finished.code == 2, finished
    assert told in finished.err
    assert finished.out == ""
    assert set(bench.folder.rglob("*")) == before


def test_an_empty_folder_is_filled_and_a_missing_one_is_made(bench, places):
    assert bench("new", "task", "empty").code == 0
    assert (bench.folder / "empty" / "empty.py").is_file()
    assert bench("new", "task", "puzzle", "--into", "a b/c").code == 0
    assert (bench.folder / "a b" / "c" / "puzzle" / "puzzle.py").is_file()


def test_a_place_that_cannot_be_written_is_refused(bench, places):
    for place in ("file", "/proc"):
        finished = bench("new", "model", "idea", "--into", place)
        assert finished.code == 2
        assert finished.err.startswith(f"bench: cannot write to {place}/idea: ")
