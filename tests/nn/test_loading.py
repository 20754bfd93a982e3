"""Strict loading: whole weights that fit are loaded, anything else is refused with the name of file and tensor."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from model_support import largest_difference, random_tokens
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModel, AutoModelForCausalLM, PreTrainedModel

from seqbench.contracts import with_settings
from seqbench.errors import RequestError
from seqbench.plugins.registry import find_model

pytestmark = pytest.mark.transformers

VOCABULARY = 41
TOKENS = random_tokens(1, 20, VOCABULARY)
# A tensor of every model, and one that it lacks.
TENSORS = {
    "pmnet": "model.memory_embeddings.1",
    "transformer": "model.layers.2.self_attn.q_norm.weight",
    "mamba": "backbone.layers.3.mixer.A_log",
}


def logits(model: PreTrainedModel) -> Tensor:
    with torch.no_grad():
        return model(TOKENS).logits


@pytest.fixture(scope="module", params=sorted(TENSORS))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def model(name: str) -> PreTrainedModel:
    plugin = find_model(name)
    torch.manual_seed(0)
    return plugin.build(plugin.with_vocabulary(plugin.presets["tiny"], VOCABULARY)).eval()


@pytest.fixture
def folder(model: PreTrainedModel, tmp_path: Path) -> Path:
    model.save_pretrained(tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


@pytest.fixture
def sharded(model: PreTrainedModel, tmp_path: Path) -> Path:
    model.save_pretrained(tmp_path / "sharded", max_shard_size="300KB")
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 2
    return tmp_path / "sharded"


def refusal(model: PreTrainedModel, folder: Any, **options: Any) -> str:
    with pytest.raises(RequestError) as error:
        type(model).from_pretrained(folder, **options)
    return str(error.value)


def rewrite(file: Path, change: Callable[[dict[str, Tensor]], None]) -> None:
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, metadata={"format": "pt"})


def shard_of(folder: Path, tensor: str) -> Path:
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    return folder / index["weight_map"][tensor]


@pytest.mark.parametrize("kind", ["safetensors", "shards"])
def test_a_whole_checkpoint_loads_in_one_file_and_in_shards(
    model: PreTrainedModel, folder: Path, sharded: Path, kind: str
) -> None:
    loaded = type(model).from_pretrained(sharded if kind == "shards" else folder)
    assert torch.equal(logits(loaded), logits(model))


# The auto class knows the third model's type as a class of transformers.
@pytest.mark.parametrize("name", ["pmnet", "transformer"], indirect=True, scope="module")
def test_the_auto_class_is_as_strict_for_our_own_model_types(name: str, model: PreTrainedModel, folder: Path) -> None:
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(folder)), logits(model))
    rewrite(folder / "model.safetensors", lambda tensors: tensors.pop(TENSORS[name]))
    with pytest.raises(RequestError, match=f"lacks {TENSORS[name]}"):
        AutoModelForCausalLM.from_pretrained(folder)


def test_the_other_arguments_of_from_pretrained_keep_their_meaning(model: PreTrainedModel, folder: Path) -> None:
    own = type(model)
    loaded, report = own.from_pretrained(folder, output_loading_info=True)
    assert torch.equal(logits(loaded), logits(model))
    assert not report["missing_keys"] and not report["unexpected_keys"] and not report["mismatched_keys"]
    assert own.from_pretrained(folder, dtype=torch.bfloat16).dtype == torch.bfloat16
    assert own.from_pretrained(folder.parent, subfolder=folder.name).config.vocab_size == VOCABULARY
    assert own.from_pretrained(folder, config=model.config).config.vocab_size == VOCABULARY
    assert torch.equal(
        logits(own.from_pretrained(None, config=model.config, state_dict=model.state_dict())), logits(model)
    )


def test_a_truncated_file_is_named(model: PreTrainedModel, folder: Path, sharded: Path) -> None:
    for file in (folder / "model.safetensors", sorted(sharded.glob("*.safetensors"))[1]):
        file.write_bytes(file.read_bytes()[:-40])
        message = refusal(model, file.parent)
        assert f"{file} cannot be read" in message and "copy or download it again" in message


@pytest.mark.parametrize("content", [b"", b"version https://git-lfs.github.com/spec/v1", bytes(1000)])
def test_a_file_that_holds_something_else_is_named(model: PreTrainedModel, folder: Path, content: bytes) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(content)
    assert f"{file} cannot be read" in refusal(model, folder)


class Harmful:
    """Code that a file would run if it were unpickled without care."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, ("unpickled",)


def test_pickles_are_not_opened(model: PreTrainedModel, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    torch.save({"weight": Harmful()}, folder / "pytorch_model.bin")
    assert "use_safetensors=False: a .bin file is a pickle" in refusal(model, folder, use_safetensors=False)
    (folder / "model.safetensors").unlink()
    assert "a .bin file is a pickle, which is not read" in refusal(model, folder)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"weight": "pytorch_model.bin"}}))
    assert "only .safetensors files beside it are read" in refusal(model, folder)
    assert not (folder / "unpickled").exists()


@pytest.mark.parametrize("option", ["variant", "gguf_file"])
def test_files_of_other_names_are_not_read(model: PreTrainedModel, folder: Path, option: str) -> None:
    assert f"{option}='other': only .safetensors files" in refusal(model, folder, **{option: "other"})


def test_a_shard_that_is_not_there_is_named(model: PreTrainedModel, sharded: Path) -> None:
    gone = sorted(sharded.glob("*.safetensors"))[-1]
    gone.unlink()
    index = sharded / "model.safetensors.index.json"
    assert f"{index} names {gone.name}, which is not there" in refusal(model, sharded)


@pytest.mark.parametrize("content", ["{", "{}", "[]"])
def test_a_damaged_index_is_named(model: PreTrainedModel, sharded: Path, content: str) -> None:
    index = sharded / "model.safetensors.index.json"
    index.write_text(content)
    assert f"{index} cannot be read" in refusal(model, sharded)


def test_places_without_a_checkpoint_are_named(model: PreTrainedModel, folder: Path, tmp_path: Path) -> None:
    missing = tmp_path / "nowhere"
    assert f"{missing} is neither a folder here nor a model that was found on the hub" in refusal(model, missing)
    (folder / "model.safetensors").unlink()
    assert f"there are no weights in {folder}: neither model.safetensors nor" in refusal(model, folder)
    (folder / "config.json").unlink()
    assert f"there is no {folder / 'config.json'}" in refusal(model, folder)


def test_a_config_that_is_no_json_is_named(model: PreTrainedModel, folder: Path) -> None:
    (folder / "config.json").write_text("{")
    with pytest.raises(Exception, match=str(folder / "config.json")):
        type(model).from_pretrained(folder)


def test_a_missing_tensor_is_named(name: str, model: PreTrainedModel, folder: Path, sharded: Path) -> None:
    tensor = TENSORS[name]
    rewrite(folder / "model.safetensors", lambda tensors: tensors.pop(tensor))
    assert f"{folder / 'model.safetensors'} lacks {tensor}, which a {type(model).__name__}" in refusal(model, folder)
    shard = shard_of(sharded, tensor)
    rewrite(shard, lambda tensors: tensors.pop(tensor))
    assert f"{shard} lacks {tensor}" in refusal(model, sharded)


def test_a_surplus_tensor_is_named(model: PreTrainedModel, folder: Path) -> None:
    file = folder / "model.safetensors"
    rewrite(file, lambda tensors: tensors.update({"one.more": torch.ones(2), "another": torch.ones(1)}))
    assert f"{file} holds another and 1 more, which a {type(model).__name__}" in refusal(model, folder)


def test_a_tensor_of_another_shape_is_named_with_both_shapes(
    name: str, model: PreTrainedModel, folder: Path, sharded: Path
) -> None:
    tensor = TENSORS[name]
    shape = tuple(model.state_dict()[tensor].shape)

    def shorten(tensors: dict[str, Tensor]) -> None:
        tensors[tensor] = tensors[tensor][:-1].clone()

    for file in (folder / "model.safetensors", shard_of(sharded, tensor)):
        rewrite(file, shorten)
        message = refusal(model, file.parent)
        assert f"{file}: {tensor} has the shape {(shape[0] - 1, *shape[1:])}, but " in message
        assert f"{file.parent / 'config.json'} makes it {shape}" in message
    loaded = type(model).from_pretrained(folder, ignore_mismatched_sizes=True)
    assert loaded.state_dict()[tensor].shape == shape


def test_the_field_behind_another_shape_is_named_where_it_is_clear(model: PreTrainedModel, folder: Path) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "vocab_size": VOCABULARY + 6}))
    message = refusal(model, folder)
    assert f"the shape ({VOCABULARY}, 64), but vocab_size in {path} makes it ({VOCABULARY + 6}, 64)" in message


def test_a_tied_head_is_not_missing_and_an_untied_one_is(model: PreTrainedModel, folder: Path) -> None:
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "tie_word_embeddings": False}))
    assert "lacks lm_head.weight" in refusal(model, folder)


@pytest.mark.parametrize("tied", ["true", "false"])
def test_the_backbone_loads_from_a_checkpoint_of_the_whole_model(tmp_path: Path, tied: str) -> None:
    plugin = find_model("pmnet")
    whole = plugin.build(with_settings(plugin.presets["tiny"], {"tie_word_embeddings": tied}, "model"))
    whole.save_pretrained(tmp_path)
    backbone = AutoModel.from_pretrained(tmp_path)
    expected = whole.model.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in backbone.state_dict().items())


def test_a_model_of_the_hub_is_loaded_from_the_cache_and_its_damage_named(
    model: PreTrainedModel, folder: Path, tmp_path: Path
) -> None:
    """The layout of huggingface_hub's cache; nothing is asked over a network."""
    cache, commit = tmp_path / "cache", "0" * 40
    repository = cache / "models--somebody--tiny"
    snapshot = repository / "snapshots" / commit
    shutil.copytree(folder, snapshot)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    options = {"cache_dir": cache, "local_files_only": True}
    loaded = type(model).from_pretrained("somebody/tiny", **options)
    assert largest_difference(logits(loaded), logits(model)) == 0
    file = snapshot / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-40])
    assert f"{file} cannot be read" in refusal(model, "somebody/tiny", **options)
    message = refusal(model, "somebody/else", **options)
    assert "somebody/else is neither a folder here nor a model that was found on the hub" in message
