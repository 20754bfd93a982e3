"""What lies where a command is typed: found when it is named, and never run instead of something else."""

import json
import os
import subprocess
import sys

import pytest

from seqbench.errors import RequestError
from seqbench.planning.plan import resolve
from seqbench.planning.request import RunRequest
from seqbench.planning.stored_plan import stored_plan
from seqbench.plugins.registry import BrokenPlugin, find_model, lies_in_working_folder, load_announced
from seqbench.running.runner import describe
from seqbench.store.identity import hash_of
from seqbench.store.run_folder import RunFolder

# Each would end the process of whoever imports it.
TRAP = "raise SystemExit('imported from the working folder')"


def bench(folder, *arguments, launcher=("-c", "from seqbench.cli import main; main()")):
    return subprocess.run(
        [sys.executable, *launcher, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "SEQBENCH_CACHE": str(folder / "cache")},
    )


@pytest.fixture
def trapped(tmp_path):
    for name in ("torch", "numpy", "click", "transformers", "json"):
        (tmp_path / f"{name}.py").write_text(TRAP)
    return tmp_path


@pytest.mark.slow
def test_files_with_names_of_packages_are_not_imported(trapped):
    # -P is how an installed console script begins: without the folder.
    outcome = bench(trapped, "list", "models", launcher=("-P", "-c", "from seqbench.cli import main; main()"))
    assert outcome.returncode == 0, outcome.stderr
    assert "transformer" in outcome.stdout


def test_a_module_of_the_working_folder_is_found_by_its_name(tmp_path):
    (tmp_path / "beside.py").write_text("class Model: pass")
    outcome = bench(tmp_path, "show", "beside:Model")
    assert outcome.returncode == 2
    assert "beside:Model is not a ModelPlugin" in outcome.stderr


@pytest.mark.parametrize("raised", ["KeyboardInterrupt", "BaseException('odd')", "SystemExit(0)", "GeneratorExit"])
def test_a_plugin_that_raises_anything_on_import_is_a_broken_plugin(tmp_path, monkeypatch, raised):
    from importlib.metadata import EntryPoint

    name = f"raises_{abs(hash(raised))}"
    (tmp_path / f"{name}.py").write_text(f"raise {raised}")
    monkeypatch.syspath_prepend(str(tmp_path))
    point = EntryPoint("it", f"{name}:Model", "bench.models")
    found = load_announced("it", [point], "bench.models")
    assert isinstance(found, BrokenPlugin)
    assert raised.partition("(")[0] in found.reason
    with pytest.raises(RequestError, match="cannot be used"):
        find_model(f"{name}:Model")


def stored_run(folder, model):
    """A run.json as an unfriendly sender would write it: consistent, and naming a file beside it."""
    run = describe(resolve(RunRequest(model="transformer", task="copy-paste")))
    run["identity"]["model"]["name"] = model
    run["hash"] = hash_of(run["identity"])
    folder.mkdir(exist_ok=True)
    (folder / "run.json").write_text(json.dumps(run))
    return RunFolder(folder)


def test_code_beside_a_run_is_not_run_because_the_run_names_it(tmp_path, monkeypatch):
    folder = stored_run(tmp_path / "received", "helper_mod:M")
    (folder.path / "helper_mod.py").write_text("open('was-here', 'w')")
    monkeypatch.chdir(folder.path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(folder.path)])
    assert lies_in_working_folder("helper_mod:M")
    with pytest.raises(RequestError, match=r"'helper_mod:M', which is a file of the working folder.*--trust-plugins"):
        stored_plan(folder)
    assert not (folder.path / "was-here").exists()
    # Whoever trusts it gets what it says: here a module without that class.
    with pytest.raises(RequestError, match="has no 'M'"):
        stored_plan(folder, trust_plugins=True)
    assert (folder.path / "was-here").exists()


@pytest.mark.parametrize("name", ["pmnet", "hf:llama", "seqbench_baselines.mamba.plugin:MambaPlugin", "nowhere:Model"])
def test_installed_plugins_need_no_trust(name):
    assert not lies_in_working_folder(name)
