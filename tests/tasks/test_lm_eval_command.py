"""Both directions from the command line's side: `bench run --task lm-eval`, and lm-eval's own command on our models."""

import functools
import json
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import lm_eval.tasks
import pytest
import torch
from lm_eval.api.model import LM
from lm_eval_data import byte_model, token_model, tokenizer

import seqbench_tasks.lm_eval_suites
from pmnet_plugin.configuration import PMNetConfig
from seqbench.errors import RequestError
from seqbench.planning.plan import resolve
from seqbench.planning.request import RunRequest
from seqbench.plugins.checkpoint_files import checkpoint_digest
from seqbench.running.runner import execute
from seqbench.running.trained import load_run
from seqbench.store.run_folder import RunFolder
from seqbench_tasks.lm_eval_suites import LmEvalConfig, LmEvalTask, command
from seqbench_tasks.lm_eval_suites.bench_model import BenchLM

TINY = Path(seqbench_tasks.lm_eval_suites.__file__).parent / "tiny"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    byte_model().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def run(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A finished run of the task."""
    runs = tmp_path_factory.mktemp("runs")
    request = RunRequest("pmnet", "lm-eval", init=str(checkpoint), changes={"task.limit": "3"}, device="cpu")
    plan = resolve(request)
    folder = RunFolder(runs / plan.folder_name)
    execute(plan, folder, runs)
    return folder


def bits_per_byte(result: dict[str, Any]) -> float:
    (found,) = [entry["value"] for entry in result["measurements"] if entry["metric"] == "bits_per_byte"]
    return found


def test_a_run_of_the_task_trains_nothing_and_stores_figures_and_items(run: RunFolder) -> None:
    result = run.read_result()
    assert result is not None
    assert (result["status"], result["steps"], result["tokens"]) == ("complete", 0, 0)
    assert 0 < bits_per_byte(result) < 20
    assert result["task"]["data"]["suites"].keys() == {"stdlib_excerpts"}
    items = [json.loads(line) for line in run.items.read_text().splitlines()]
    assert [item["doc_id"] for item in items] == [0, 1, 2]


def test_lm_evals_own_command_measures_a_run_and_a_checkpoint_alike(
    run: RunFolder, checkpoint: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # Its index of 14,000 definitions takes 10 seconds.
    near = functools.partial(lm_eval.tasks.TaskManager, include_defaults=False)
    monkeypatch.setattr(lm_eval.tasks, "TaskManager", near)
    monkeypatch.setattr("lm_eval.evaluator.add_env_info", lambda results: None)
    result = run.read_result()
    assert result is not None
    digest = checkpoint_digest(checkpoint, PMNetConfig.from_pretrained(checkpoint))
    models = {f"run={run.path}": result["hash"], f"pretrained={checkpoint},model=pmnet": digest}
    for number, (arguments, sha256) in enumerate(models.items()):
        typed = ["--model", "bench", "--model_args", arguments, "--tasks", "stdlib_excerpts", "--limit", "3"]
        output = tmp_path / f"{number}.json"
        options = ["--include_path", str(TINY), "--batch_size", "8", "--output_path", str(output)]
        monkeypatch.setattr(sys, "argv", ["bench-lm-eval", *typed, *options])
        command.main()
        (written,) = tmp_path.glob(f"{number}_*.json")
        told = json.loads(written.read_text())
        assert told["config"]["model_sha"] == sha256
        found = told["results"]["stdlib_excerpts"]["bits_per_byte,none"]
        assert found == pytest.approx(bits_per_byte(result), rel=1e-6)


def test_a_run_of_a_transformers_model_is_measured_with_its_own_tokens(tmp_path: Path) -> None:
    text = tokenizer()
    (tmp_path / "llama").mkdir()
    token_model(len(text)).save_pretrained(tmp_path / "llama")
    text.save_pretrained(tmp_path / "llama")
    plan = resolve(RunRequest(f"hf:{tmp_path / 'llama'}", "lm-eval", changes={"task.limit": "1"}, device="cpu"))
    folder = RunFolder(tmp_path / plan.folder_name)
    execute(plan, folder, tmp_path)
    stored = load_run(folder.path)
    found = plan.task.evaluate(stored.predictor, "test")
    result = folder.read_result()
    assert result is not None
    assert [entry.value for entry in found.measurements] == [entry["value"] for entry in result["measurements"]]
    assert BenchLM(run=str(folder.path)).tok_encode("The cat") == text.encode("The cat")


def test_the_command_ends_with_a_message_and_a_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse() -> None:
        raise RequestError("there is no such run")

    monkeypatch.setattr("lm_eval.__main__.cli_evaluate", refuse)
    with pytest.raises(SystemExit) as ended:
        command.main()
    assert ended.value.code == 2
    assert capsys.readouterr().err == "bench-lm-eval: there is no such run\n"


def test_versions_of_lm_eval_that_read_entry_points_find_the_model() -> None:
    (point,) = entry_points(group="lm_eval.models", name="bench")
    assert point.load() is BenchLM
    assert issubclass(BenchLM, LM)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "needs --model_args run=<folder> or pretrained="),
        ({"run": "a", "pretrained": "b"}, "needs --model_args run=<folder> or pretrained="),
        ({"run": "a", "model": "pmnet"}, "leave them out"),
        ({"runn": "a"}, "not runn"),
        ({"run": "nowhere"}, "nowhere holds no run"),
        ({"pretrained": "nowhere", "model": "pmnet"}, "nowhere"),
        ({"pretrained": "nowhere", "model": "pmnett"}, "did you mean pmnet"),
        ({"pretrained": "nowhere", "precision": "fp8"}, "precision is fp32 or bf16, not 'fp8'"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        BenchLM(**arguments)


def test_a_model_that_does_not_know_all_bytes_is_refused(tmp_path: Path) -> None:
    from pmnet_plugin.plugin import PMNetPlugin

    plugin = PMNetPlugin()
    plugin.build(plugin.with_vocabulary(plugin.presets["tiny"], 35)).save_pretrained(tmp_path)
    with pytest.raises(RequestError, match="knows 35 token ids and text has 256"):
        BenchLM(pretrained=str(tmp_path), model="pmnet")


def test_a_device_that_is_not_there_stands_for_the_cpu(checkpoint: Path) -> None:
    """lm-eval's command asks for cuda:0 unless it is told otherwise."""
    if torch.cuda.is_available():
        pytest.skip("there is one")
    assert BenchLM(pretrained=str(checkpoint), model="pmnet", device="cuda:0").prefix_token_id == 254


def test_the_task_says_what_to_install_when_lm_eval_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(RequestError, match=r"needs the package lm_eval.*pip install lm-eval datasets"):
        LmEvalTask(LmEvalConfig()).prepare()


def test_everything_else_works_without_lm_eval_and_datasets() -> None:
    script = """
import sys
sys.modules["lm_eval"] = sys.modules["datasets"] = None
from seqbench.planning.plan import resolve
from seqbench.plugins.registry import MODEL_GROUP, TASK_GROUP, BrokenPlugin, announced
from seqbench.planning.request import RunRequest
from seqbench.planning.fresh_model import build_model
found = {**announced(MODEL_GROUP), **announced(TASK_GROUP)}
assert "lm-eval" in found
print([name for name, plugin in found.items() if isinstance(plugin, BrokenPlugin)])
build_model(resolve(RunRequest("pmnet", "copy-paste")))
"""
    finished = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (finished.returncode, finished.stdout) == (0, "[]\n"), finished.stderr
