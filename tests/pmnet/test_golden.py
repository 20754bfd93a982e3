"""PMNet gives the numbers of the authors' released class, and loads and keeps its checkpoints.

The files in tests/golden were computed with that class in fp32: parameters, inputs, outputs and gradients.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from model_support import circular_difference, feed, largest_difference, relative_difference
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from pmnet_plugin.configuration import PMNetConfig
from pmnet_plugin.modeling import PMNetForCausalLM
from pmnet_plugin.plugin import PMNetPlugin
from seqbench.accounting.counting import count_parameters
from seqbench_kernels.phase_scan import steps_to_radians

pytestmark = pytest.mark.transformers

GOLDEN = Path(__file__).parent.parent / "golden"
CHECKPOINT = GOLDEN / "published_checkpoint"
LOGITS = 1e-4
# Relative to the largest entry of a tensor.
GRADIENTS = 1e-3
PHASES = 1e-4


@dataclass(frozen=True)
class Golden:
    config: dict[str, Any]
    chunks: list[int]
    tensors: dict[str, Tensor]

    def model(self, **changes: Any) -> PMNetForCausalLM:
        model = PMNetForCausalLM(PMNetConfig(**self.config, **changes))
        prefix = "param."
        published = {
            name.removeprefix(prefix): tensor for name, tensor in self.tensors.items() if name.startswith(prefix)
        }
        outcome = model.load_state_dict(published, strict=False)
        # The head is tied and not stored.
        assert outcome.unexpected_keys == [] and set(outcome.missing_keys) <= {"lm_head.weight"}
        return model.eval()


@pytest.fixture(scope="module", params=["two_levels", "four_levels"])
def golden(request: pytest.FixtureRequest) -> Golden:
    with safe_open(GOLDEN / f"{request.param}.safetensors", "pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (the file is no dictionary)
    return Golden(json.loads(metadata["config"]), json.loads(metadata["chunks"]), tensors)


def test_the_full_forward_gives_the_published_logits_and_routes_every_token_alike(golden: Golden) -> None:
    with torch.no_grad():
        output = golden.model()(golden.tensors["input_ids"], output_routing=True)
    assert largest_difference(output.logits, golden.tensors["logits"]) < LOGITS
    published = [tensor for name, tensor in sorted(golden.tensors.items()) if name.startswith("next_group.")]
    assert len(output.next_groups) == len(published)
    for own, expected in zip(output.next_groups, published, strict=True):
        assert torch.equal(own, expected)


@pytest.mark.parametrize("cut", ["published chunks", "single tokens"])
def test_a_cached_run_gives_the_published_logits_and_memory_state(golden: Golden, cut: str) -> None:
    tokens = golden.tensors["input_ids"]
    sizes = golden.chunks if cut == "published chunks" else [1] * tokens.shape[1]
    logits, cache = feed(golden.model(), tokens, sizes)
    assert largest_difference(logits, golden.tensors["logits"]) < LOGITS
    levels = range(golden.model().config.hierarchy_depth)
    for level, table in zip(levels, cache.tables, strict=True):
        expected = golden.tensors[f"memory_state.{level * golden.config['memory_write_period']}"]
        assert circular_difference(steps_to_radians(table.long()), expected.flatten(2)) < PHASES


def test_without_recurrence_the_logits_are_those_of_the_published_switch(golden: Golden) -> None:
    with torch.no_grad():
        logits = golden.model(memory_cumsum=False)(golden.tensors["input_ids"]).logits
    assert largest_difference(logits, golden.tensors["logits_no_recurrence"]) < LOGITS


def test_training_loss_and_every_gradient_are_the_published_ones(golden: Golden) -> None:
    model, tokens = golden.model().train(), golden.tensors["input_ids"]
    loss = model(tokens, labels=tokens).loss
    assert abs(loss.item() - golden.tensors["train_loss"].item()) < 1e-5
    loss.backward()
    compared = 0
    for name, parameter in model.named_parameters():
        expected = golden.tensors[f"grad.{name}"]
        if expected.abs().max() == 0:
            assert parameter.grad.abs().max() < 1e-9, name
        else:
            assert relative_difference(parameter.grad, expected) < GRADIENTS, name
        compared += 1
    assert compared == sum(name.startswith("grad.") for name in golden.tensors)


@pytest.mark.parametrize("loader", [PMNetForCausalLM, AutoModelForCausalLM])
def test_a_published_checkpoint_loads_unchanged_and_gives_its_logits(loader: type) -> None:
    model, report = loader.from_pretrained(CHECKPOINT, output_loading_info=True)
    assert isinstance(model, PMNetForCausalLM)
    assert not report["missing_keys"] and not report["unexpected_keys"] and not report["mismatched_keys"]
    expected = load_file(CHECKPOINT / "expected.safetensors")
    with torch.no_grad():
        logits = model.eval()(expected["input_ids"]).logits
    assert largest_difference(logits, expected["logits"]) < LOGITS


def test_every_published_field_of_config_json_survives_loading_and_saving(tmp_path: Path) -> None:
    PMNetForCausalLM.from_pretrained(CHECKPOINT).save_pretrained(tmp_path)
    published = json.loads((CHECKPOINT / "config.json").read_text())
    saved = json.loads((tmp_path / "config.json").read_text())
    del published["transformers_version"]
    assert {name: saved.get(name, "lost") for name in published} == published


def test_saved_weights_keep_the_published_names_and_values(tmp_path: Path) -> None:
    PMNetForCausalLM.from_pretrained(CHECKPOINT).save_pretrained(tmp_path)
    published, saved = (load_file(folder / "model.safetensors") for folder in (CHECKPOINT, tmp_path))
    assert published.keys() == saved.keys()
    assert all(torch.equal(saved[name], tensor) for name, tensor in published.items())


def counted(preset: str, vocab_size: int) -> dict[str, int]:
    plugin = PMNetPlugin()
    config = plugin.with_vocabulary(plugin.presets[preset], vocab_size)
    with torch.device("meta"):
        return count_parameters(plugin, plugin.build(config))


def test_the_preset_119m_has_the_papers_parameters_group_by_group() -> None:
    counts = counted("119m", 384)
    assert counts == {
        "memory read": 75_583_488,
        "attention": 18_875_904,
        "mlp": 18_874_368,
        "memory write": 5_253_120,
        "embedding": 196_608,
        "memory anchors": 174_080,
        "norm": 12_800,
    }
    assert sum(counts.values()) == 118_970_368


def test_the_preset_30m_has_the_papers_parameters() -> None:
    assert sum(counted("30m", 256).values()) == 29_934_592
