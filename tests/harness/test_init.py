"""`--init`: a run that starts from weights made elsewhere."""

import json
import shutil
from pathlib import Path

import pytest
from command_line import TOY, Bench, Finished
from local_hub import local_hub
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

RUN = ("run", *TOY, "--json")
UNTRAINED = ("--set", "steps=0")


@pytest.fixture(scope="module")
def trained(bench: Bench) -> Path:
    """The folder of a finished run."""
    assert bench(*RUN, "--runs", "first", "--output", "trained").code == 0
    return bench.folder / "trained"


@pytest.fixture
def damaged(trained: Path, tmp_path: Path) -> Path:
    """A copy of the checkpoint, to be damaged."""
    return Path(shutil.copytree(trained / "model", tmp_path / "checkpoint"))


def refusal(finished: Finished) -> str:
    assert finished.code == 2, finished.err
    assert "Traceback" not in finished.err
    return finished.err


def edit_config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize("inner", ["", "model"])
def test_without_training_the_checkpoint_is_tested_as_it_is(bench: Bench, trained: Path, inner: str) -> None:
    """Named by its own folder, or by the folder of the run that made it."""
    result = bench(*RUN, *UNTRAINED, "--init", str(trained / inner), "--runs", f"as-it-is{inner}").json
    assert result["measurements"] == bench.result("trained")["measurements"]
    assert result["tokens"] == 0


def test_training_goes_on_from_the_checkpoints_weights(bench: Bench, trained: Path) -> None:
    arguments = ("--init", str(trained), "--set", "steps=1", "--set", "warmup_steps=0")
    assert bench(*RUN, *arguments, "--set", "learning_rate=1e-12", "--output", "nudged").code == 0
    before, after = (load_file(folder / "model" / "model.safetensors") for folder in (trained, bench.folder / "nudged"))
    assert all((after[name] - before[name]).abs().max() < 1e-9 for name in before)


def test_the_weights_and_not_their_place_decide_the_run(bench: Bench, trained: Path, tmp_path: Path) -> None:
    elsewhere = shutil.copytree(trained / "model", tmp_path / "copy")
    first, moved = (
        bench(*RUN, *UNTRAINED, "--init", str(place), "--runs", "place").json for place in (trained, elsewhere)
    )
    plain = bench(*RUN, *UNTRAINED, "--runs", "place").json
    assert first["hash"] == moved["hash"] != plain["hash"]


def test_the_result_says_where_the_weights_came_from(bench: Bench, trained: Path) -> None:
    result = bench(*RUN, *UNTRAINED, "--init", str(trained), "--runs", "said").json
    assert result["model"]["initial_weights"]["name"] == str(trained)
    assert str(trained) in result["confounds"]["initialisation"]


def test_the_checkpoint_decides_the_shape(bench: Bench) -> None:
    bench(*RUN, "--set", "model.width=12", "--output", "wide")
    result = bench(*RUN, *UNTRAINED, "--init", "wide", "--runs", "shape").json
    assert result["model"]["config"]["width"] == 12
    assert "follows from --init" in refusal(bench(*RUN, "--init", "wide", "--preset", "wide"))


def test_a_checkpoint_with_a_larger_vocabulary_is_used_and_a_smaller_one_refused(bench: Bench) -> None:
    bench(*RUN, "--set", "task.symbols=11", "--output", "many")
    assert bench(*RUN, *UNTRAINED, "--init", "many", "--runs", "larger").json["model"]["config"]["vocab_size"] == 11
    finished = bench(*RUN, "--init", "many", "--set", "task.symbols=12")
    assert "--init many knows 11 token ids and task toy_task:Recall has 12" in refusal(finished)


def test_truncated_weights_are_named(bench: Bench, damaged: Path) -> None:
    weights = damaged / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-40])
    assert f"{weights} cannot be read" in refusal(bench(*RUN, "--init", str(damaged)))


def test_missing_surplus_and_misshapen_weights_are_named(bench: Bench, damaged: Path) -> None:
    path = damaged / "model.safetensors"
    tensors = load_file(path)
    cases = {
        "inner.bias": {name: tensor for name, tensor in tensors.items() if name != "inner.bias"},
        "outer.bias": {**tensors, "outer.bias": tensors["inner.bias"].clone()},
        "norm.weight": {**tensors, "norm.weight": tensors["norm.weight"][:3].clone()},
    }
    for name, changed in cases.items():
        save_file(changed, path, metadata={"format": "pt"})
        message = refusal(bench(*RUN, "--init", str(damaged)))
        assert str(damaged) in message and name in message


def test_a_config_of_another_model_or_that_is_no_json_is_named(bench: Bench, damaged: Path) -> None:
    edit_config(damaged, model_type="gpt2")
    message = refusal(bench(*RUN, "--init", str(damaged)))
    assert f"{damaged / 'config.json'}: model_type is 'gpt2'" in message
    (damaged / "config.json").write_text("{")
    assert str(damaged / "config.json") in refusal(bench(*RUN, "--init", str(damaged)))


def test_a_field_that_the_plugins_settings_cannot_express_is_named(bench: Bench, damaged: Path) -> None:
    edit_config(damaged, tie_word_embeddings=False)
    message = refusal(bench(*RUN, "--init", str(damaged)))
    assert f"{damaged / 'config.json'}: tie_word_embeddings is False" in message


def test_a_value_that_the_settings_refuse_is_named(bench: Bench, damaged: Path) -> None:
    edit_config(damaged, dropout=3.0)
    message = refusal(bench(*RUN, "--init", str(damaged)))
    assert f"{damaged / 'config.json'}: dropout must be from 0 to 0.9, not 3.0" in message


def test_places_without_a_checkpoint_are_refused(bench: Bench, trained: Path, tmp_path: Path) -> None:
    assert "there is no folder nowhere" in refusal(bench(*RUN, "--init", "nowhere"))
    assert "is a file" in refusal(bench(*RUN, "--init", str(trained / "result.json")))
    assert "config.json" in refusal(bench(*RUN, "--init", str(tmp_path)))
    no_weights = tmp_path / "config-alone"
    no_weights.mkdir()
    shutil.copy(trained / "model" / "config.json", no_weights)
    assert f"there are no weights in {no_weights}" in refusal(bench(*RUN, "--init", str(no_weights)))


@pytest.mark.slow
def test_a_checkpoint_on_the_hub_is_downloaded_once_also_from_a_folder_inside(
    bench: Bench, trained: Path, tmp_path: Path
) -> None:
    repository = tmp_path / "repository"
    shutil.copytree(trained / "model", repository / "inside")
    environment = {"HF_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "0"}
    with local_hub({"somebody/toy": repository}) as address:
        name = ("--init", "somebody/toy/inside", "--runs", str(tmp_path / "runs"))
        finished = bench.fresh(*RUN, *UNTRAINED, *name, HF_ENDPOINT=address, **environment)
        assert finished.code == 0, finished.err
        assert finished.json["measurements"] == bench.result("trained")["measurements"]
        message = bench.fresh(*RUN, "--init", "somebody/toy", HF_ENDPOINT=address, **environment)
        assert "folders that hold one: inside" in refusal(message)
        message = bench.fresh(*RUN, "--init", "somebody/else", HF_ENDPOINT=address, **environment)
        assert "neither a folder here nor a model on the hub" in refusal(message)
    # The server is gone: what was downloaded is found again.
    again = bench.fresh(*RUN, *UNTRAINED, *name[:2], HF_ENDPOINT=address, **environment)
    assert again.code == 0, again.err


def test_the_model_folder_says_how_to_load_it(trained: Path) -> None:
    card = (trained / "model" / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: transformers\n")
    assert "from toy_model import NeighbourModel" in card
    assert "| accuracy | lookback 1, reach None |" in card


def test_a_tokenizer_with_ids_that_the_model_does_not_have_is_named(bench: Bench, damaged: Path) -> None:
    def save_tokenizer(size: int) -> None:
        words = {f"word{number}": number for number in range(size)}
        backend = Tokenizer(models.WordLevel(words, unk_token="word0"))
        PreTrainedTokenizerFast(tokenizer_object=backend).save_pretrained(damaged)

    save_tokenizer(8)
    assert bench(*RUN, *UNTRAINED, "--init", str(damaged), "--runs", "tokenizer").code == 0
    save_tokenizer(9)
    message = refusal(bench(*RUN, "--init", str(damaged)))
    assert f"{damaged / 'tokenizer_config.json'}: the tokenizer has 9 ids and the model only 8" in message
    (damaged / "tokenizer.json").write_text("{")
    assert f"{damaged / 'tokenizer_config.json'} cannot be used" in refusal(bench(*RUN, "--init", str(damaged)))
