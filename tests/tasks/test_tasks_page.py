"""docs/tasks.md is true: its drawings are what the generators make, its presets and commands exist."""

import re
import shlex
from pathlib import Path

import click
import pytest
from drawings import DRAWINGS

from seqbench.cli.app import bench
from seqbench.contracts import describe_settings
from seqbench.plugins.registry import MODEL_GROUP, TASK_GROUP, announced, find_model, find_task

PAGE = (Path(__file__).parents[2] / "docs" / "tasks.md").read_text()
SECTIONS = dict(re.findall(r"^### `(.+?)`\n(.*?)(?=^##|\Z)", PAGE, re.MULTILINE | re.DOTALL))
# This project's tasks, not those of other packages that are installed.
TASKS = {
    name: plugin
    for name, plugin in announced(TASK_GROUP).items()
    if isinstance(plugin, type) and plugin.__module__.startswith("seqbench_tasks.")
}
# It is drawn by `bench show`: what is asked depends on the suite.
NOT_DRAWN = {"lm-eval"}


def commands() -> list[str]:
    shown = re.findall(r"^    (bench [^#\n]+)", PAGE, re.MULTILINE) + re.findall(r"\*\*Run:\*\* `(.+?)`", PAGE)
    return [command.strip() for command in shown]


def test_every_task_has_a_section_and_every_section_a_task():
    assert set(SECTIONS) == set(TASKS)


@pytest.mark.parametrize("name", sorted(TASKS))
def test_a_section_tells_ladder_chance_published_and_a_command(name):
    told = SECTIONS[name].lower()
    for word in ("ladder", "chance", "published", "**run:**", f"--task {name}"):
        assert word in told, word


@pytest.mark.parametrize("name", sorted(TASKS))
def test_a_section_names_the_presets_that_were_published(name):
    for preset, found in TASKS[name].presets.items():
        parts = preset.split("-")
        families = {"-".join(parts[:length]) for length in range(1, len(parts) + 1)}
        if found.figure:
            assert any(f"`{family}" in SECTIONS[name] for family in families), preset


def test_what_is_drawn_is_every_task_but_those_without_a_sample():
    assert set(DRAWINGS) == set(TASKS) - NOT_DRAWN


@pytest.mark.parametrize("name", DRAWINGS)
def test_the_drawings_of_the_page_are_what_the_generator_makes(name):
    """`python tests/tasks/drawings.py TASK` prints them."""
    shown = re.findall(r"^    inputs .+\n    labels .+$", SECTIONS[name], re.MULTILINE)
    made = ["    " + str(drawing).replace("\n", "\n    ") for drawing in DRAWINGS[name]()]
    assert shown == made


@pytest.mark.parametrize("command", commands())
def test_every_command_of_the_page_names_what_there_is(command):
    """Of a run or a comparison, models, task, preset and options; the README's commands are tried as a whole."""
    program, *arguments = shlex.split(command)
    with click.Context(bench) as context:
        known = bench.get_command(context, arguments[0])
    assert program == "bench" and known is not None
    if arguments[0] not in ("run", "compare"):
        assert arguments[0] in ("list", "show") and (arguments[1] == "tasks" or arguments[1] in TASKS)
        return
    values = dict(zip(arguments[1::2], arguments[2::2], strict=True))
    task = find_task(values["--task"])
    models = values.get("--model") or values["--models"]
    assert set(models.split(",")) <= set(announced(MODEL_GROUP))
    if preset := values.get("--preset"):
        assert preset in task.presets
    if change := values.get("--set"):
        field = change.partition("=")[0]
        changed = [find_model(model) for model in models.split(",")] if field.startswith("model.") else [task]
        for plugin in changed:
            assert field.partition(".")[2] in describe_settings(plugin.config_class)
    options = {name for parameter in known.params for name in parameter.opts}
    assert set(values) <= options | {f"--{option}" for option in task.options}
