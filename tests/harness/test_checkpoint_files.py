"""A checkpoint is read from .safetensors files inside its folder; its hash covers all that is read, not its place."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import TOY, Bench
from local_hub import local_hub
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models
from transformers import AutoConfig, GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from seqbench.errors import RequestError
from seqbench.planning.plan import resolve
from seqbench.planning.request import RunRequest
from seqbench.plugins.checkpoint_files import checkpoint_digest, find_weights


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model of transformers in two shards, with everything that may lie beside one."""
    folder = tmp_path_factory.mktemp("saved") / "checkpoint"
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1}
    LlamaForCausalLM(LlamaConfig(vocab_size=300, **shape)).save_pretrained(folder, max_shard_size="20KB")
    words = {f"word{number}": number for number in range(256)}
    PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="word0"))).save_pretrained(
        folder
    )
    GenerationConfig(do_sample=True, temperature=0.5).save_pretrained(folder)
    for name in ("vocab.txt", "merges.txt", "spiece.model", "chat_template.jinja", "README.md", "training_args.bin"):
        (folder / name).write_text("some text")
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tools.jinja").write_text("some text")
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "copy"))


def digest(folder: Path) -> str:
    return checkpoint_digest(folder, AutoConfig.from_pretrained(folder))


def refusal(folder: Path) -> str:
    with pytest.raises(RequestError) as error:
        digest(folder)
    return str(error.value)


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("model-*.safetensors"))


def index_of(folder: Path) -> Path:
    return folder / "model.safetensors.index.json"


def point_at(folder: Path, name: object) -> None:
    """Let the index name another file for every tensor of the first shard."""
    places = json.loads(index_of(folder).read_text())["weight_map"]
    first = shards(folder)[0].name
    edit(index_of(folder), weight_map={tensor: name if file == first else file for tensor, file in places.items()})


def add_byte(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b" ")


def change_a_weight(path: Path) -> None:
    save_file({name: tensor + 1e-3 for name, tensor in load_file(path).items()}, path, metadata={"format": "pt"})


CHANGES: dict[str, Callable[[Path], object]] = {
    "rope_theta": lambda folder: edit(
        folder / "config.json", rope_parameters={"rope_theta": 5.0, "rope_type": "default"}
    ),
    "rms_norm_eps": lambda folder: edit(folder / "config.json", rms_norm_eps=1e-2),
    "hidden_act": lambda folder: edit(folder / "config.json", hidden_act="relu"),
    "a field that nobody knows": lambda folder: edit(folder / "config.json", something=1),
    "first shard": lambda folder: change_a_weight(shards(folder)[0]),
    "last shard": lambda folder: change_a_weight(shards(folder)[-1]),
    "sampling": lambda folder: edit(folder / "generation_config.json", temperature=0.6),
    "special ids": lambda folder: edit(folder / "generation_config.json", eos_token_id=7),
    **{
        name: lambda folder, name=name: add_byte(folder / name)  # type: ignore[misc]
        for name in (
            "tokenizer.json",
            "tokenizer_config.json",
            "vocab.txt",
            "merges.txt",
            "spiece.model",
            "chat_template.jinja",
            "additional_chat_templates/tools.jinja",
        )
    },
    "a new file of a tokenizer": lambda folder: (folder / "added_tokens.json").write_text("{}"),
    "no tokenizer": lambda folder: (folder / "tokenizer.json").unlink(),
    "no sampling": lambda folder: (folder / "generation_config.json").unlink(),
}


@pytest.mark.parametrize("name", CHANGES)
def test_whatever_is_read_is_in_the_hash(saved: Path, folder: Path, name: str) -> None:
    CHANGES[name](folder)
    assert digest(folder) != digest(saved)


def reorder(path: Path) -> None:
    content = json.loads(path.read_text())
    path.write_text(json.dumps(dict(reversed(content.items())), indent=7))


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: edit(folder / "config.json", _name_or_path="elsewhere", transformers_version="5.17.0"),
        lambda folder: edit(folder / "generation_config.json", transformers_version="5.17.0"),
        lambda folder: reorder(folder / "config.json"),
        lambda folder: reorder(index_of(folder)),
        lambda folder: edit(index_of(folder), metadata={"total_size": -5}),
        lambda folder: add_byte(folder / "README.md"),
        lambda folder: add_byte(folder / "training_args.bin"),
        lambda folder: (folder / "model.fp16.safetensors").write_bytes(b"not read"),
        lambda folder: (folder / "pytorch_model.bin.index.json").write_text("not read"),
    ],
)
def test_place_spelling_and_what_is_not_read_are_not_in_the_hash(
    saved: Path, folder: Path, change: Callable[[Path], object]
) -> None:
    change(folder)
    assert digest(folder) == digest(saved)


def test_the_defaults_of_the_library_are_in_the_hash(folder: Path) -> None:
    config = AutoConfig.from_pretrained(folder)
    before = checkpoint_digest(folder, config)
    config.pretraining_tp = 2
    assert checkpoint_digest(folder, config) != before


def test_one_file_comes_before_an_index_and_is_the_one_that_is_hashed(folder: Path) -> None:
    tensors = {name: tensor for shard in shards(folder) for name, tensor in load_file(shard).items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert find_weights(folder).files == (folder / "model.safetensors",)
    before = digest(folder)
    change_a_weight(shards(folder)[0])
    assert digest(folder) == before
    change_a_weight(folder / "model.safetensors")
    assert digest(folder) != before
    loaded = LlamaForCausalLM.from_pretrained(folder).state_dict()
    assert all(torch.equal(loaded[name], tensor + 1e-3) for name, tensor in tensors.items())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("w.bin", "names 'w.bin'; only .safetensors files beside it are read"),
        ("../other/x.safetensors", "names '../other/x.safetensors'; only .safetensors files beside it are read"),
        ("/tmp/x.safetensors", "names '/tmp/x.safetensors'; only"),
        ("inner/x.safetensors", "names 'inner/x.safetensors'; only"),
        ("..", "names '..'; only"),
        (7, "names 7; only"),
        (["x.safetensors"], "names ['x.safetensors']; only"),
        ("gone.safetensors", "names gone.safetensors, which is not there"),
    ],
)
def test_an_index_names_safetensors_files_beside_it(folder: Path, name: object, message: str) -> None:
    for place in (folder / "w.bin", folder.parent / "other" / "x.safetensors", folder / "inner" / "x.safetensors"):
        place.parent.mkdir(exist_ok=True)
        shutil.copy(shards(folder)[0], place)
    point_at(folder, name)
    assert f"{index_of(folder)} {message}" in refusal(folder)


@pytest.mark.parametrize(
    "content", ["{", "[]", "{}", '{"weight_map": {}}', '{"weight_map": []}', '{"weight_map": 3}', "[" * 100_000, "\xff"]
)
def test_a_damaged_index_is_named(folder: Path, content: str) -> None:
    index_of(folder).write_text(content, encoding="latin-1")
    assert f"{index_of(folder)} cannot be read" in refusal(folder)


def test_index_and_files_agree_on_every_tensor(folder: Path) -> None:
    index, (first, *_, last) = index_of(folder), shards(folder)
    places = json.loads(index.read_text())["weight_map"]
    edit(index, weight_map={**places, "one.more": first.name})
    assert f"{first} lacks one.more, which it holds according to {index.name}" in refusal(folder)
    edit(index, weight_map=places)
    tensors = load_file(first)
    # A second copy of a tensor of another file, with other values.
    stray = next(iter(load_file(last)))
    save_file({**tensors, stray: torch.zeros(2)}, first, metadata={"format": "pt"})
    assert f"{first} holds {stray}, which is not its own according to {index.name}" in refusal(folder)


def test_a_link_out_of_the_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    for path in (shards(folder)[0], folder / "config.json", folder / "tokenizer.json", index_of(folder)):
        target = tmp_path / f"elsewhere-{path.name}"
        path.rename(target)
        path.symlink_to(target)
        assert f"{path} is a link to {target}, outside of the folder" in refusal(folder)
        path.unlink()
        target.rename(path)


def test_a_link_within_the_folder_and_one_to_the_folder_are_followed(saved: Path, folder: Path, tmp_path: Path) -> None:
    shard = shards(folder)[0]
    shard.rename(folder / "inner.data")
    shard.symlink_to("inner.data")
    (tmp_path / "linked").symlink_to(folder)
    assert digest(tmp_path / "linked") == digest(saved)


@pytest.mark.parametrize("linked", ["snapshot", "folder of its own"])
def test_the_links_of_a_hubs_cache_are_followed(saved: Path, tmp_path: Path, linked: str) -> None:
    """`snapshots/<commit>` holds links into `blobs`; older releases also linked other folders there."""
    repository = tmp_path / "models--somebody--tiny"
    blobs = repository / "blobs"
    blobs.mkdir(parents=True)
    folder = repository / "snapshots" / "0123" if linked == "snapshot" else tmp_path / "mine"
    shutil.copytree(saved, folder)
    for number, path in enumerate(sorted(path for path in folder.rglob("*") if path.is_file())):
        path.rename(blobs / str(number))
        path.symlink_to(os.path.relpath(blobs / str(number), path.parent))
    assert digest(folder) == digest(saved)


def test_what_is_no_file_is_not_opened(folder: Path) -> None:
    shard = shards(folder)[0]
    shard.unlink()
    os.mkfifo(shard)
    assert f"{index_of(folder)} names {shard.name}, which is not there" in refusal(folder)
    shard.unlink()
    shard.symlink_to(shard.name)
    assert f"{index_of(folder)} names {shard.name}, which is not there" in refusal(folder)


def test_an_adapter_is_refused(folder: Path) -> None:
    """Where peft is installed, transformers would put it on the weights."""
    (folder / "adapter_config.json").write_text("{}")
    assert "adapter_config.json makes the folder an adapter to another model" in refusal(folder)


@pytest.mark.parametrize("field", ["quantization_config", "transformers_weights"])
def test_fields_that_lead_to_other_weights_are_refused(folder: Path, field: str) -> None:
    edit(folder / "config.json", **{field: "other.safetensors"})
    with pytest.raises(RequestError, match=f"config.json has the field {field}, which is not followed"):
        find_weights(folder)
    edit(folder / "config.json", **{field: None})
    find_weights(folder)


def test_a_config_that_points_at_another_one_counts_with_both(saved: Path, folder: Path) -> None:
    """transformers reads the newest of `configuration_files` that its version allows in place of config.json."""
    shutil.copy(folder / "config.json", folder / "config.5.0.0.json")
    edit(folder / "config.json", configuration_files=["config.5.0.0.json"])
    before = digest(folder)
    edit(folder / "config.5.0.0.json", rms_norm_eps=0.5)
    assert digest(folder) != before != digest(saved)
    edit(folder / "config.5.0.0.json", transformers_weights="x.safetensors")
    assert "has the field transformers_weights" in refusal(folder)


@pytest.mark.parametrize("change", ["rms_norm_eps", "tokenizer.json"])
def test_a_run_of_a_changed_folder_is_another_run(folder: Path, change: str) -> None:
    def run_hash() -> str:
        return resolve(RunRequest(f"hf:{folder}", "copy-paste")).run_hash

    before = run_hash()
    assert run_hash() == before
    CHANGES[change](folder)
    assert run_hash() != before


def test_a_run_of_a_model_type_is_decided_by_the_defaults_of_transformers() -> None:
    identity = resolve(RunRequest("hf:llama", "copy-paste")).identity
    resolved = identity["model"]["resolved_config"]
    assert resolved["rms_norm_eps"] == LlamaConfig().rms_norm_eps and resolved["hidden_act"] == "silu"
    assert "transformers_version" not in resolved


@pytest.mark.slow
def test_a_model_of_the_hub_has_the_hash_of_its_files_and_loads_from_the_cache_again(
    bench: Bench, saved: Path, tmp_path: Path
) -> None:
    cache = {"HF_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "0"}
    command = ("run", "--model", "hf:somebody/tiny", *TOY[2:], "--set", "steps=0", "--json", "--runs", str(tmp_path))
    with local_hub({"somebody/tiny": saved}) as address:
        first = bench.fresh(*command, HF_ENDPOINT=address, **cache)
    assert first.code == 0, first.err
    (run,) = tmp_path.glob("*/hf-somebody-tiny-*/run.json")
    identity = json.loads(run.read_text())["identity"]["model"]
    assert identity["initial_weights"] == digest(saved)
    # The server is gone.
    again = bench.fresh(*command, "--output", str(tmp_path / "again"), HF_ENDPOINT=address, **cache)
    assert again.code == 0, again.err
    assert again.json["measurements"] == first.json["measurements"] and again.json["hash"] == first.json["hash"]


def test_a_run_is_not_tested_again_with_other_files_than_it_was_made_with(bench: Bench, folder: Path) -> None:
    command = ("run", "--model", f"hf:{folder}", *TOY[2:], "--set", "steps=0", "--json")
    before = bench(*command, "--output", "before").json
    assert bench("verify", "before").code == 0
    CHANGES["rope_theta"](folder)
    after = bench(*command, "--output", "after").json
    assert after["hash"] != before["hash"]
    refused = bench("verify", "before")
    assert refused.code == 2 and f"was made with other files than those of hf:{folder} now" in refused.err
    refused = bench(*command, "--output", "before")
    assert refused.code == 2 and "holds another run" in refused.err
