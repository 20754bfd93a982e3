"""The shipped plugins through the command line: short, and on the frame that the toy plugins test in depth."""

import pytest

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


def test_all_models_see_the_same_data(bench):
    models = ("pmnet", "sliding-window", "transformer")
    results = [bench("run", "--model", model, "--task", "copy-paste", *SHORT, "--json").json for model in models]
    assert len({result["data_order_sha256"] for result in results}) == 1


def test_the_table_has_look_back_and_reach(bench):
    shown = bench("run", "--model", "sliding-window", "--task", "copy-paste", *SHORT).out
    for told in ("lookback", "reach", "byte accuracy", "exact match", "depth"):
        assert told in shown


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
