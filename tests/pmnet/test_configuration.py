"""What config.json may say: the published fields and those of transformers; all else is refused by file and field."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pmnet_support import SMALL
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, PreTrainedConfig

from pmnet_plugin.configuration import PMNetConfig
from pmnet_plugin.modeling import PMNetForCausalLM
from pmnet_plugin.plugin import PMNetPlugin
from pmnet_plugin.settings import PMNetSettings
from seqbench.errors import RequestError

CHECKPOINT = Path(__file__).parent.parent / "golden" / "published_checkpoint"
PUBLISHED = json.loads((CHECKPOINT / "config.json").read_text())

# Field, a value that cannot be, and what the message says is allowed.
IMPOSSIBLE: list[tuple[str, Any, str]] = [
    ("vocab_size", "many", "a whole number"),
    ("vocab_size", 0, "at least 1"),
    ("hidden_size", 0, "at least 1"),
    ("hidden_size", 64.0, "a whole number"),
    ("intermediate_size", -3, "at least 1"),
    ("num_hidden_layers", None, "a whole number"),
    ("num_hidden_layers", "6", "a whole number"),
    ("num_hidden_layers", 10**7, "from 1 to 10000"),
    ("num_attention_heads", True, "a whole number"),
    ("num_key_value_heads", 2, "a multiple"),
    ("head_dim", 7, "even"),
    ("sliding_window", 1, "at least 2"),
    ("sliding_window", None, "a whole number"),
    ("memory_write_period", 0, "at least 1"),
    ("num_memory", 1, "at least 2"),
    ("num_memory", 10**6, "at most 262,144"),
    ("memory_size", -4, "at least 1"),
    ("num_memory_read_heads", 0, "at least 1"),
    ("memory_cumsum", "yes", "true or false"),
    ("use_memory", 1, "true or false"),
    ("memory_tree", "binary", "one of routed, flat"),
    ("memory_dynamics", "loose", "one of unitary, relaxed"),
    ("zeroed_anchors", "some", "one of none, root, leaf, all"),
    ("gradient_scale", "sqrt", "one of sqrt-count, none"),
    ("attention_dropout", 1.5, "from 0 to 0.99"),
    ("rope_theta", float("inf"), "a finite number"),
    ("rms_norm_eps", "small", "a number"),
    ("initializer_range", -0.1, "at least 0"),
    ("tie_word_embeddings", None, "true or false"),
    ("max_position_embeddings", 0, "above zero"),
    ("use_cache", "false", "true or false"),
    ("hidden_act", "gelu", "'silu'"),
    ("attention_bias", True, "False"),
    ("use_sliding_window", False, "True"),
    ("max_window_layers", 3, "0"),
    ("rope_scaling", {"type": "linear", "factor": 2.0}, "None"),
    ("layer_types", ["full_attention"] * 6, "'sliding_attention' for each of the 6 layers"),
    ("layer_types", ["sliding_attention"] * 5, "'sliding_attention' for each of the 6 layers"),
    ("pad_token_id", -1, "from zero on"),
    ("bos_token_id", 2.5, "from zero on"),
    ("eos_token_id", [255, "end"], "from zero on"),
    ("dtype", "float31", "float32 or bfloat16"),
    ("dtype", "int64", "float32 or bfloat16"),
    ("torch_dtype", "half precision", "float32 or bfloat16"),
    ("model_type", "llama", "PMNet"),
]


def write_config(folder: Path, **changes: Any) -> Path:
    (folder / "config.json").write_text(json.dumps({**PUBLISHED, **changes}))
    return folder


@pytest.mark.parametrize(("field", "value", "allowed"), IMPOSSIBLE)
def test_an_impossible_value_is_refused_by_field_and_with_what_is_allowed(field: str, value: Any, allowed: str) -> None:
    with pytest.raises(RequestError) as refusal:
        PMNetConfig(**{**PUBLISHED, field: value})
    assert field.removeprefix("torch_") in str(refusal.value)
    assert allowed in str(refusal.value)


@pytest.mark.parametrize("typed", ["num_memmory", "slidng_window", "memory_cumsun"])
def test_an_unknown_field_is_refused_with_the_nearest_name(typed: str) -> None:
    meant = {"num_memmory": "num_memory", "slidng_window": "sliding_window", "memory_cumsun": "memory_cumsum"}[typed]
    with pytest.raises(RequestError, match=rf"no field '{typed}'; did you mean .*\b{meant}\b"):
        PMNetConfig(**{typed: 4})


@pytest.mark.parametrize(
    "load",
    [
        PMNetConfig.from_pretrained,
        AutoConfig.from_pretrained,
        PMNetForCausalLM.from_pretrained,
        AutoModel.from_pretrained,
        AutoModelForCausalLM.from_pretrained,
    ],
    ids=["config", "auto config", "model", "auto model", "auto model with head"],
)
@pytest.mark.parametrize("changes", [{"memory_sise": 16}, {"head_dim": 15}])
def test_a_fault_in_a_folders_config_is_reported_with_the_file_and_the_field(
    load: Callable[..., Any], changes: dict[str, int], tmp_path: Path
) -> None:
    write_config(tmp_path, **changes)
    with pytest.raises(RequestError) as refusal:
        load(tmp_path)
    assert str(refusal.value).startswith(f"{tmp_path / 'config.json'}: ")
    assert next(iter(changes)) in str(refusal.value)


def test_a_config_named_by_its_file_is_reported_by_that_name(tmp_path: Path) -> None:
    path = write_config(tmp_path, num_memory=1) / "config.json"
    with pytest.raises(RequestError, match=f"^{path}: num_memory"):
        PMNetConfig.from_pretrained(path)


@pytest.mark.parametrize("load", [PMNetConfig.from_pretrained, AutoConfig.from_pretrained])
def test_a_config_that_is_no_json_is_reported_with_its_file(load: Callable[..., Any], tmp_path: Path) -> None:
    text = (CHECKPOINT / "config.json").read_text()
    (tmp_path / "config.json").write_text(text[: len(text) // 2])
    with pytest.raises((OSError, RequestError), match=str(tmp_path / "config.json")):
        load(tmp_path)


@pytest.mark.parametrize("content", ["[]", "3", '"text"', json.dumps({**PUBLISHED, "id2label": 3})])
def test_json_that_holds_no_config_is_reported_with_its_file(content: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(content)
    for load in (PMNetConfig.from_pretrained, PMNetForCausalLM.from_pretrained):
        with pytest.raises(RequestError, match=str(tmp_path / "config.json")):
            load(tmp_path)


def test_a_value_given_while_loading_is_checked_too() -> None:
    assert PMNetConfig.from_pretrained(CHECKPOINT, sliding_window=5).sliding_window == 5
    with pytest.raises(RequestError, match="sliding_window must be at least 2, not 1"):
        PMNetConfig.from_pretrained(CHECKPOINT, sliding_window=1)


def test_arguments_for_the_model_pass_through() -> None:
    config, unused = PMNetConfig.from_pretrained(CHECKPOINT, output_routing=True, return_unused_kwargs=True)
    assert isinstance(config, PMNetConfig) and unused == {"output_routing": True}


def test_fields_that_transformers_writes_are_no_unknown_fields(tmp_path: Path) -> None:
    """Of today's version, and of those that kept the fields of generation and of other heads in every config."""
    older = {
        "torch_dtype": "bfloat16",
        "auto_map": {"AutoConfig": "configuration.PMNetConfig"},
        "_name_or_path": "someone/model",
        "_commit_hash": None,
        "_attn_implementation_autoset": True,
        "tokenizer_class": None,
        "is_decoder": False,
        "torchscript": False,
        "use_bfloat16": False,
        "task_specific_params": None,
        "num_return_sequences": 1,
        "temperature": 1.0,
        "max_length": 20,
        "chunk_size_feed_forward": 0,
        "id2label": {"0": "LABEL_0", "1": "LABEL_1"},
    }
    config = PMNetConfig.from_pretrained(write_config(tmp_path, dtype=None, **older))
    assert config.dtype == torch.bfloat16 and config.memory_size == PUBLISHED["memory_size"]
    plain = PMNetConfig(**SMALL)
    assert PMNetConfig.from_dict(plain.to_dict()).to_dict() == plain.to_dict()
    assert PMNetConfig(**PreTrainedConfig().to_dict() | {"model_type": "PMNet"}).hidden_size == 512


def test_a_config_is_written_and_read_with_every_field(tmp_path: Path) -> None:
    config = PMNetConfig(**SMALL, memory_tree="flat", memory_dynamics="relaxed", zeroed_anchors="leaf")
    config.save_pretrained(tmp_path)
    again, written = PMNetConfig.from_pretrained(tmp_path).to_dict(), config.to_dict()
    del again["_name_or_path"], written["_name_or_path"]
    assert again == written


def test_a_config_and_the_plugins_settings_say_the_same() -> None:
    settings = PMNetSettings(vocab_size=30, num_memory=3, memory_tree="flat", zeroed_anchors="all")
    config = PMNetPlugin().build(settings).config
    assert config.to_settings() == PMNetPlugin().settings_from(config) == settings
