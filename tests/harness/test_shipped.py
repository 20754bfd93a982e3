"""The shipped plugins through the command line: short, and on the frame that the toy plugins test in depth."""

import dataclasses
from pathlib import Path

import pytest
import torch

from seqbench.planning.initial_weights import find_initial_weights, load_weights
from seqbench.planning.plan import ablation_names
from seqbench.plugins.registry import find_model

SHORT = (
    *("--set", "steps=4", "--set", "warmup_steps=1", "--set", "batch_size=8"),
    *("--set", "task.test_lengths=3,9", "--set", "task.test_strings_per_length=4"),
)


@pytest.mark.parametrize("model", ["pmnet", "sliding-window", "transformer"])
def test_a_model_trains_and_is_tested_on_copy_paste(bench, model):
    finished = bench("run", "--model", model, "--task", "copy-paste", *SHORT, "--json")
    assert finished.code == 0, finished.err
    metrics = {(row["metric"], row["coordinates"].get("length")) for row in finished.json["measurements"]}
    assert {("byte_accuracy", 3), ("byte_accuracy", 9), ("exact_match", 9), ("byte_accuracy", None)} <= metrics
    assert finished.json["parameters_total"] == sum(finished.json["parameters"].values())


@pytest.mark.slow
def test_all_models_see_the_same_data(bench):
    models = ("pmnet", "sliding-window", "transformer")
    results = [bench("run", "--model", model, "--task", "copy-paste", *SHORT, "--json").json for model in models]
    assert len({result["data_order_sha256"] for result in results}) == 1


def test_the_table_has_look_back_and_reach(bench):
    shown = bench("run", "--model", "sliding-window", "--task", "copy-paste", *SHORT).out
    for told in ("lookback", "reach", "byte accuracy", "exact match", "depth"):
        assert told in shown


@pytest.mark.slow
def test_mixed_lengths_and_bf16_run(bench):
    mixed = ("--set", "task.mixed_lengths=true", "--precision", "bf16", "--set", "micro_batch_size=4")
    finished = bench("run", "--model", "pmnet", "--task", "copy-paste", *SHORT, *mixed, "--json")
    assert finished.code == 0, finished.err
    assert finished.json["precision"] == "bf16"


def test_an_ablation_has_a_folder_of_its_own(bench):
    finished = bench("run", "--model", "pmnet", "--task", "copy-paste", *SHORT, "--ablate", "no-memory", "--json")
    assert finished.code == 0, finished.err
    assert finished.json["model"]["ablation"] == "no-memory"
    assert list(bench.folder.glob("runs/copy-paste/pmnet-no-memory-*/result.json"))


CHANGED = {
    "pmnet": {"memory_size": 8, "gradient_scale": "none", "sliding_window": 6},
    "sliding-window": {"sliding_window": 5, "num_key_value_heads": 1},
    "transformer": {"num_hidden_layers": 2, "rope_theta": 500.0},
    "mamba": {"extra_channels": -5, "state_size": 8, "num_hidden_layers": 2},
}


@pytest.mark.parametrize("model", CHANGED)
def test_what_a_model_saves_is_a_checkpoint_to_start_from(model, tmp_path):
    plugin = find_model(model)
    config = dataclasses.replace(plugin.with_vocabulary(plugin.presets["tiny"], 40), **CHANGED[model])
    saved = plugin.build(config)
    saved.save_pretrained(tmp_path)
    found = find_initial_weights(str(tmp_path), plugin)
    built = plugin.build(found.settings)
    assert built.config.to_dict() == plugin.build(config).config.to_dict()
    loaded = load_weights(built, found.folder).state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in saved.state_dict().items())


@pytest.mark.slow
def test_the_table_of_all_ablations_of_pmnet_is_complete(bench):
    finished = bench("run", "--model", "pmnet", "--task", "copy-paste", *SHORT, "--ablations", "all", "--json")
    assert finished.code == 0, finished.err
    plugin = find_model("pmnet")
    results = finished.json["results"]
    assert [result["model"]["ablation"] for result in results] == [None, *ablation_names(plugin)]
    assert all(result["measurements"] for result in results)


def test_a_published_checkpoint_is_tested_without_training(bench):
    checkpoint = Path(__file__).parent.parent / "golden" / "published_checkpoint"
    untrained = ("--init", str(checkpoint), "--set", "steps=0", *SHORT[6:], "--json")
    finished = bench("run", "--model", "pmnet", "--task", "copy-paste", *untrained)
    assert finished.code == 0, finished.err
    assert finished.json["model"]["config"]["memory_size"] == 16
    assert finished.json["tokens"] == 0
    message = bench("run", "--model", "mamba", "--task", "copy-paste", "--init", str(checkpoint))
    assert message.code == 2
    assert "model_type is 'PMNet', and model mamba starts from 'mamba'" in message.err
