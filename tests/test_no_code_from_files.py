"""Loading a checkpoint, a run or a model executes nothing that lies in a file."""

import ast
import json
import os
import pickle
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from seqbench.errors import RequestError
from seqbench.planning.initial_weights import find_initial_weights
from seqbench_baselines.hugging_face import HuggingFacePlugin

ROOT = Path(__file__).parent.parent
SOURCES = [
    path
    for room in ("harness", "baselines", "pmnet_plugin", "tasks", "kernels")
    for path in sorted((ROOT / room).rglob("*.py"))
]

# Modules that make objects, and so calls, out of bytes.
UNPICKLING = {"_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}


def imported(tree: ast.AST) -> set[str]:
    """Names of the modules that a file imports, without their submodules."""
    names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    return {name.partition(".")[0] for name in names}


def calls(tree: ast.AST) -> list[ast.Call]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.Call)]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_source_unpickles_or_trusts_code_from_elsewhere(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert not imported(tree) & UNPICKLING
    # Bytes to compare may be made by pickling; nothing is made of them.
    assert "pickle" not in {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {ast.unparse(node) for node in ast.walk(tree) if is_of_pickle(node)} <= {"pickle.dumps"}
    for call in calls(tree):
        function = ast.unparse(call.func)
        assert function not in ("torch.hub.load", "eval", "exec", "yaml.load", "yaml.unsafe_load")
        keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        assert function != "torch.load" or keywords.get("weights_only") == "True"
        assert keywords.get("trust_remote_code", "False") == "False"
        assert keywords.get("allow_pickle", "False") == "False"
        # Where a command reads a model, it reads safetensors; who calls a model's own method may say otherwise.
        if function.endswith(".from_pretrained") and "trust_remote_code" in keywords and "dtype" in keywords:
            assert keywords.get("use_safetensors") == "True"


def is_of_pickle(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and ast.unparse(node.value) == "pickle"


class Trap:
    """Leaves a trace when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.trace),)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A small model of transformers, whose folder also brings code along."""
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=300,
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=1,
            num_key_value_heads=1,
        )
    )
    folder = tmp_path / "checkpoint"
    model.save_pretrained(folder)
    code = f"import os\nos.mkdir({str(tmp_path / 'trace')!r})\n"
    (folder / "modeling_trap.py").write_text(code)
    (folder / "configuration_trap.py").write_text(code)
    path = folder / "config.json"
    classes = {"AutoConfig": "configuration_trap.Trap", "AutoModelForCausalLM": "modeling_trap.Trap"}
    path.write_text(json.dumps({**json.loads(path.read_text()), "auto_map": classes}))
    return folder


def test_code_beside_the_weights_is_not_run(checkpoint: Path, tmp_path: Path) -> None:
    plugin = HuggingFacePlugin(str(checkpoint))
    plugin.build(plugin.presets[plugin.default_preset])
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("trapped", [True, False])
def test_pickled_weights_are_refused_and_not_opened(checkpoint: Path, tmp_path: Path, trapped: bool) -> None:
    """Whether they hold code or are what they should be."""
    (checkpoint / "model.safetensors").unlink()
    if trapped:
        (checkpoint / "pytorch_model.bin").write_bytes(pickle.dumps(Trap(tmp_path / "trace")))
    else:
        torch.save({}, checkpoint / "pytorch_model.bin")
    plugin = HuggingFacePlugin(str(checkpoint))
    with pytest.raises(RequestError, match=r"a \.bin file is a pickle, which is not read: save the model again"):
        plugin.build(plugin.presets[plugin.default_preset])
    assert not (tmp_path / "trace").exists()


def test_a_run_does_not_start_from_pickled_weights(tmp_path: Path) -> None:
    from pmnet_plugin.plugin import PMNetPlugin

    plugin = PMNetPlugin()
    model = plugin.build(plugin.presets[plugin.default_preset])
    model.config.save_pretrained(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps(Trap(tmp_path / "trace")))
    with pytest.raises(RequestError, match=r"a \.bin file is a pickle, which is not read: save the model again"):
        find_initial_weights(str(tmp_path), plugin)
    assert not (tmp_path / "trace").exists()
