"""Whole language models give the numbers of the published code, whose names of parameters are told here."""

import re
from typing import Any

import pytest
import torch
from golden_files import TOLERANCE, Golden, files_of, read
from torch import Tensor

from seqbench.mixers import MixerPlugin
from seqbench_baselines.phase_associative.pam import PAMPlugin
from seqbench_baselines.phase_associative.sam import SAMPlugin

# A name of the file, and ours.
PAM_NAMES = (
    (r"embed_norm\.(.+)", r"embedding_norm.\1"),
    (r"backbone\.feature_layers\.(\d+)\.norm\.(.+)", r"layers.\1.mlp_norm.\2"),
    (r"backbone\.feature_layers\.(\d+)\.cgu\.(.+)", r"layers.\1.mlp.\2"),
    (r"backbone\.feature_scales\.(\d+)", r"layers.\1.mlp_scale"),
    (r"backbone\.pam_norms\.(\d+)\.(.+)", r"layers.\1.mixer_norm.\2"),
    (r"backbone\.pam_layers\.(\d+)\.(.+)", r"layers.\1.mixer.\2"),
    (r"backbone\.pam_scales\.(\d+)", r"layers.\1.mixer_scale"),
    (r"backbone\.pam_output_norm\.(.+)", r"norm.0.\1"),
    (r"lm_head_proj\.(.+)", r"norm.1.\1"),
    (r"lm_head_norm\.(.+)", r"norm.2.\1"),
)
SAM_NAMES = (
    (r"embed\.weight", r"embed_tokens.weight"),
    (r"input_norm\.(.+)", r"embedding_norm.\1"),
    (r"blocks\.(\d+)\.norm1\.(.+)", r"layers.\1.mlp_norm.\2"),
    (r"blocks\.(\d+)\.ffn\.(up|gate|down)\.(.+)", r"layers.\1.mlp.\2_proj.\3"),
    (r"blocks\.(\d+)\.norm2\.(.+)", r"layers.\1.mixer_norm.\2"),
    (r"blocks\.(\d+)\.pam\.(.+)", r"layers.\1.mixer.\2"),
    (r"blocks\.(\d+)\.alpha_cgu", r"layers.\1.mlp_scale"),
    (r"blocks\.(\d+)\.alpha_pam", r"layers.\1.mixer_scale"),
    (r"final_proj\.(.+)", r"norm.projection.\1"),
    (r"final_norm\.(.+)", r"norm.norm.\1"),
)


def ours(tensors: dict[str, Tensor], names: tuple[tuple[str, str], ...]) -> dict[str, Tensor]:
    """The file's tensors by our names; complex embeddings are real ones beside imaginary ones."""
    tensors = dict(tensors)
    if "embed.embed_real.weight" in tensors:
        parts = [tensors.pop(f"embed.embed_{part}.weight") for part in ("real", "imag")]
        tensors["embed.weight"] = torch.cat(parts, dim=1)
        names = (*names, SAM_NAMES[0])
    found = {}
    for name, tensor in tensors.items():
        [renamed] = [re.sub(pattern, other, name) for pattern, other in names if re.fullmatch(pattern, name)]
        found[f"model.{renamed}"] = tensor
    return found


def model_of(plugin: type[MixerPlugin], golden: Golden, width: int, names: tuple[tuple[str, str], ...]) -> Any:
    config = golden.config
    settings = plugin.config_class(
        vocab_size=config["vocab_size"],
        hidden_size=width,
        intermediate_size=config["expand"] * config["dim"],
        num_hidden_layers=config["num_layers"],
        num_heads=config["num_heads"],
        head_dim=config["head_dim"],
    )
    model = plugin().build(settings)
    missing = model.load_state_dict(ours(golden.part("param"), names), strict=False)
    assert not missing.unexpected_keys and missing.missing_keys == ["lm_head.weight"]
    return model.eval()


def agree(actual: Tensor, expected: Tensor) -> bool:
    return bool((actual - expected).abs().max() <= TOLERANCE * max(1.0, expected.abs().max().item()))


@pytest.mark.parametrize(
    ("name", "plugin", "numbers", "names"), [("pam_lm", PAMPlugin, 2, PAM_NAMES), ("sam_lm", SAMPlugin, 1, SAM_NAMES)]
)
def test_logits_gradients_states_and_continuation_are_those_of_the_file(name, plugin, numbers, names) -> None:
    [path] = files_of(name)
    golden = read(path)
    model = model_of(plugin, golden, numbers * golden.config["dim"], names)
    output = model(golden.tensors["in.x"].long(), use_cache=True)
    (output.logits * golden.tensors["w"]).sum().backward()
    assert agree(output.logits, golden.tensors["out.y"])
    gradients = ours(golden.part("grad.param"), names)
    assert gradients.keys() == dict(model.named_parameters()).keys()
    for parameter, expected in gradients.items():
        assert agree(model.get_parameter(parameter).grad, expected), parameter
    if "in2.x" in golden.tensors:
        assert agree(torch.stack(output.past_key_values.layers).transpose(3, 4), golden.tensors["state.S"])
        continued = model(golden.tensors["in2.x"].long(), past_key_values=output.past_key_values)
        assert agree(continued.logits, golden.tensors["out2.y"])
