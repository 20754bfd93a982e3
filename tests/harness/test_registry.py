"""Plugins: found by entry point or dotted path, checked against the contract, and harmless to others when broken."""

import pytest
import toy_model
import toy_task
from announced_package import announce_package

from seqbench.errors import RequestError
from seqbench.plugins.registry import MODEL_GROUP, TASK_GROUP, BrokenPlugin, announced, find_model, find_task

ENTRY_POINTS = """\
[bench.models]
toy-neighbour = toy_model:Neighbour
toy-argument = toy_model:TakesArgument
toy-broken = broken_on_import:Model
toy-missing = imports_missing:Model
toy-exit = exits_on_import:Model
toy-nothing = toy_model:NotAPlugin
toy-untidy = toy_model:Untidy
toy-preset = toy_model:NoPresetOfThatName
toy-gone = toy_model:NoSuchClass

[bench.tasks]
toy-recall = toy_task:Recall
"""

BROKEN = {
    "toy-broken": "OSError: the shared library libtoy.so is not installed",
    "toy-missing": "No module named 'no_such_dependency'",
    "toy-exit": "SystemExit",
    "toy-nothing": "is not a ModelPlugin",
    "toy-untidy": "does not define confounds, flops",
    "toy-preset": "'huge', which is not among its presets: tiny, wide",
    "toy-gone": "has no attribute 'NoSuchClass'",
}


@pytest.fixture(autouse=True)
def installed(tmp_path, monkeypatch):
    announce_package(tmp_path, "toys", ENTRY_POINTS)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def refusal(find, name):
    with pytest.raises(RequestError) as refused:
        find(name)
    return str(refused.value)


def test_a_plugin_is_found_by_the_name_its_package_announces():
    assert type(find_model("toy-neighbour")) is toy_model.Neighbour
    assert find_task("toy-recall") is toy_task.Recall


@pytest.mark.parametrize("path", ["toy_model:Neighbour", "toy_model.Neighbour"])
def test_a_plugin_that_is_not_installed_is_found_by_its_dotted_path(path):
    assert type(find_model(path)) is toy_model.Neighbour


def test_an_unknown_name_suggests_the_nearest_and_lists_what_is_installed():
    told = refusal(find_model, "toy-neighbor")
    assert "unknown model 'toy-neighbor'; did you mean toy-neighbour" in told
    assert "toy-argument" in told
    assert "unknown task 'recal'" in refusal(find_task, "recal")


@pytest.mark.parametrize(
    "name", ["", ":", "::", "..", ".x", "x.", "a:", ":b", "no such model", "x" * 5000, "a/b:C", "🙂"]
)
def test_a_name_that_can_be_no_plugin_is_unknown(name):
    assert refusal(find_model, name).startswith(f"unknown model {name!r}")


def test_a_dotted_path_to_a_missing_module_says_where_it_is_looked_for():
    told = refusal(find_model, "no_such_module.models:Model")
    assert "there is no module 'no_such_module'" in told
    assert "PYTHONPATH" in told


def test_a_module_that_exists_but_lacks_something_itself_is_broken_and_not_missing():
    told = refusal(find_model, "imports_missing:Model")
    assert "cannot be used" in told
    assert "No module named 'no_such_dependency'" in told


def test_a_class_that_is_not_in_the_module_suggests_the_nearest():
    assert "module 'toy_model' has no 'Neighbor'; did you mean Neighbour" in refusal(find_model, "toy_model:Neighbor")


@pytest.mark.parametrize(("name", "told"), BROKEN.items())
def test_a_broken_plugin_says_why_when_it_is_asked_for(name, told):
    assert told in refusal(find_model, name)


@pytest.mark.parametrize(("name", "told"), BROKEN.items())
def test_a_broken_plugin_is_listed_with_its_reason_and_traceback(name, told):
    plugin = announced(MODEL_GROUP)[name]
    assert isinstance(plugin, BrokenPlugin)
    assert told in plugin.reason
    assert "Traceback" in plugin.traceback


def test_a_broken_plugin_harms_no_other():
    models = announced(MODEL_GROUP)
    assert models["toy-neighbour"] is toy_model.Neighbour
    assert {name for name, plugin in models.items() if name.startswith("toy") and isinstance(plugin, BrokenPlugin)} == {
        *BROKEN
    }
    assert announced(TASK_GROUP)["toy-recall"] is toy_task.Recall


def test_a_model_is_no_task_and_a_task_no_model():
    assert "is not a ModelPlugin" in refusal(find_model, "toy_task:Recall")
    assert "is not a TaskPlugin" in refusal(find_task, "toy_model:Neighbour")


def test_what_follows_a_colon_is_handed_to_a_plugin_that_takes_it():
    assert find_model("toy-argument:a/b:c").summary == "the mean of a/b:c"
    assert "needs an argument" in refusal(find_model, "toy-argument")
    assert "takes no argument" in refusal(find_model, "toy-neighbour:big")
    assert refusal(find_model, "toy-argument:bad") == "there is no model of the type 'bad'"


def test_two_packages_with_one_name_disturb_nobody_who_asks_for_another(installed):
    announce_package(installed, "rivals", "[bench.models]\ntoy-neighbour = toy_model:ShortSighted\n")
    assert "more than once: toy_model" in refusal(find_model, "toy-neighbour")
    assert "dotted path" in refusal(find_model, "toy-neighbour")
    assert find_model("toy-argument:x")
    assert isinstance(announced(MODEL_GROUP)["toy-neighbour"], BrokenPlugin)


def test_the_same_plugin_seen_twice_is_one(installed, monkeypatch):
    announce_package(installed / "again", "toys-again", ENTRY_POINTS)
    monkeypatch.syspath_prepend(str(installed / "again"))
    assert type(find_model("toy-neighbour")) is toy_model.Neighbour


def test_the_command_line_lists_broken_plugins_and_goes_on(bench, installed):
    listed = bench.fresh("list", "models", "--json", PYTHONPATH=str(installed))
    assert listed.code == 0
    rows = {row["name"]: row for row in listed.json}
    assert {name for name, row in rows.items() if row["broken"] and name.startswith("toy")} == {*BROKEN}
    assert {preset: facts["summary"] for preset, facts in rows["toy-neighbour"]["presets"].items()} == {
        "tiny": "",
        "wide": "",
    }
    assert "toy-argument:…" in rows
