"""Everyday commands answer at once: none of them imports torch, and plugins are asked once and remembered."""

import json
import os
import subprocess
import sys

import pytest
from announced_package import announce_package
from click.testing import CliRunner
from stored_run import edit

from seqbench.cli.listing import list_plugins
from seqbench.cli.show import show

HEAVY = ("torch", "transformers", "scipy", "matplotlib", "pandas", "datasets")

# Runs one command line, then says which of the heavy packages it has imported.
PROGRAM = f"""
import contextlib, io, sys
from seqbench.cli.app import main
sys.argv[0] = "bench"
output = io.StringIO()
try:
    with contextlib.redirect_stdout(output):
        main()
except SystemExit as ended:
    assert not ended.code, output.getvalue()
print([name for name in {HEAVY!r} if name in sys.modules])
"""


def imported_by(arguments, folder):
    outcome = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "SEQBENCH_CACHE": str(folder / "cache")},
    )
    assert outcome.returncode == 0, outcome.stderr
    return json.loads(outcome.stdout.replace("'", '"'))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """With a stored run, and with what plugins say of themselves."""
    folder = tmp_path_factory.mktemp("start-up")
    run = ["run", "--model", "transformer", "--task", "copy-paste", "--set", "steps=1", "--set", "warmup_steps=0"]
    small = ["--set", "model.num_hidden_layers=1", "--set", "batch_size=2", "--set", "evaluation_interval=0"]
    assert "torch" in imported_by([*run, *small, "--output", "stored", "--threads", "1"], folder)
    assert "torch" in imported_by(["list"], folder)
    for name in ("pmnet", "copy-paste", "trainer"):
        imported_by(["show", name], folder)
    return folder


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["run", "--help"],
        ["compare", "--help"],
        ["list"],
        ["list", "tasks"],
        ["list", "presets", "--json"],
        ["show", "pmnet"],
        ["show", "copy-paste"],
        ["show", "trainer"],
        ["show", "stored"],
        ["show", "stored", "--json"],
        ["runs", "--runs", "."],
    ],
    ids=" ".join,
)
def test_everyday_commands_import_nothing_heavy(folder, arguments):
    assert imported_by(arguments, folder) == []


TASK = """\
from listed_tasks import Published

class Edited(Published):
    summary = {summary!r}
"""


@pytest.fixture
def edited(tmp_path, monkeypatch):
    """A function that rewrites an announced task with another summary, as an author in another process would."""
    announce_package(tmp_path, "remembered", "[bench.tasks]\nremembered = remembered_task:Edited\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("SEQBENCH_CACHE", str(tmp_path / "cache"))

    def edit(summary):
        from seqbench.plugins import plugin_memory

        (tmp_path / "remembered_task.py").write_text(TASK.format(summary=summary))
        # What a new process begins with.
        sys.modules.pop("remembered_task", None)
        plugin_memory._source_of.cache_clear()
        plugin_memory._installed.cache_clear()
        return tmp_path

    edit("as first written")
    yield edit
    sys.modules.pop("remembered_task", None)
    # Later tests have their own packages.
    edit("gone")


def said(command, *arguments):
    outcome = CliRunner().invoke(command, arguments)
    assert outcome.exit_code == 0, outcome.output
    return outcome.stdout


@pytest.mark.parametrize(("command", "arguments"), [(list_plugins, ("tasks",)), (show, ("remembered",))])
def test_an_edited_plugin_is_asked_again(edited, command, arguments):
    assert "as first written" in said(command, *arguments)
    edited("written anew")
    assert "written anew" in said(command, *arguments)


def cached_files(folder):
    return sorted((folder / "cache" / "plugins").glob("*.json"))


def test_what_is_remembered_may_be_damaged_deleted_or_asked_for_again(edited):
    folder = edited("as first written")
    first = said(list_plugins, "tasks")
    assert said(list_plugins, "tasks") == first
    for content in ("", "[]", "{" * 100_000, '{"kind"'):
        for path in cached_files(folder):
            path.write_text(content)
        assert said(list_plugins, "tasks") == first
    for path in cached_files(folder):
        content = json.loads(path.read_text())
        path.write_text(json.dumps({**content, "summary": "of chance"}))
    # A bit that the disk has changed.
    assert said(list_plugins, "tasks") == first
    for path in cached_files(folder):
        edit(path, summary="of old")
    assert "of old" in said(list_plugins, "tasks")
    assert said(list_plugins, "tasks", "--reload") == first
    assert said(list_plugins, "tasks") == first


def test_remembering_is_optional(edited, monkeypatch):
    folder = edited("as first written")
    (folder / "occupied").write_text("a file, and no folder")
    monkeypatch.setenv("SEQBENCH_CACHE", str(folder / "occupied"))
    assert "as first written" in said(list_plugins, "tasks")
    assert "as first written" in said(show, "remembered")


def test_a_plugin_that_was_broken_is_asked_again_once_it_is_mended(edited):
    folder = edited("as first written")
    (folder / "remembered_task.py").write_text("raise OSError('no such device')")
    from seqbench.plugins import plugin_memory

    plugin_memory._source_of.cache_clear()
    assert "broken: OSError: no such device" in said(list_plugins, "tasks")
    edited("mended")
    assert "mended" in said(list_plugins, "tasks")
