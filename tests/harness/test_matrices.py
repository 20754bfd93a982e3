"""Which parameters weight decay and Muon fall on: by shape and kind, unless a plugin knows better."""

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from seqbench.errors import RequestError
from seqbench.plugins.registry import find_model
from seqbench.training.matrices import describe_split, split_parameters
from seqbench.training.optimizer import build_optimizers
from seqbench.training.settings import TrainerSettings


class Holder(nn.Module):
    """One module or parameter under the name "it"."""

    def __init__(self, it):
        super().__init__()
        self.it = it


def parts_of(it, declared=lambda name: None):
    """Parameter -> rows of its parts, for all matrices of a module."""
    matrices, _ = split_parameters(Holder(it), declared)
    return {matrix.name.removeprefix("it."): matrix.parts for matrix in matrices}


def of_shape(*shape):
    return nn.Parameter(torch.randn(shape))


@pytest.mark.parametrize(
    ("it", "parts"),
    [
        (nn.Linear(3, 5), {"weight": (5,)}),
        (nn.Linear(3, 1), {"weight": (1,)}),
        (Conv1D(5, 3), {"weight": (5,)}),
        (nn.GRU(3, 4), {"weight_ih_l0": (4, 4, 4), "weight_hh_l0": (4, 4, 4)}),
        (
            nn.LSTM(3, 4, proj_size=2),
            {"weight_ih_l0": (4,) * 4, "weight_hh_l0": (4,) * 4, "weight_hr_l0": (2,)},
        ),
        (nn.RNN(3, 4), {"weight_ih_l0": (4,), "weight_hh_l0": (4,)}),
        (nn.GRUCell(3, 4), {"weight_ih": (4, 4, 4), "weight_hh": (4, 4, 4)}),
        (nn.MultiheadAttention(4, 2), {"in_proj_weight": (4, 4, 4), "out_proj.weight": (4,)}),
        (
            nn.MultiheadAttention(4, 2, kdim=3),
            {"q_proj_weight": (4,), "k_proj_weight": (4,), "v_proj_weight": (4,), "out_proj.weight": (4,)},
        ),
        (nn.Conv1d(3, 5, 1), {"weight": (5,)}),
        (nn.Conv1d(4, 6, 3, groups=2), {"weight": (3, 3)}),
        (nn.Conv1d(4, 4, 3, groups=4), {}),
        (nn.Conv2d(3, 5, 2), {"weight": (5,)}),
        (nn.Embedding(7, 4), {}),
        (nn.LayerNorm(4), {}),
        (of_shape(4, 6), {"it": (4,)}),
        (of_shape(3, 4, 6), {"it": (4, 4, 4)}),
        (of_shape(1, 4, 6), {"it": (4,)}),
        (of_shape(6), {}),
        (of_shape(1, 6), {}),
        (of_shape(2, 3, 4, 5), {}),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else None,
)
def test_matrices_follow_from_kind_and_shape(it, parts):
    assert parts_of(it) == parts


def test_every_part_is_a_view_of_its_parameter():
    for it in (nn.GRU(3, 4), Conv1D(5, 3), nn.Conv1d(4, 6, 3, groups=2), of_shape(3, 4, 6)):
        matrices, _ = split_parameters(Holder(it))
        for matrix in matrices:
            for view in matrix.views(matrix.parameter.data):
                view.zero_()
            assert not matrix.parameter.any()
    # A Conv1D of transformers keeps (inputs, outputs).
    [matrix] = split_parameters(Holder(Conv1D(5, 3)))[0]
    assert [tuple(view.shape) for view in matrix.views(matrix.parameter)] == [(5, 3)]


def test_a_parameter_that_asks_for_no_decay_is_no_matrix():
    table = of_shape(4, 6)
    table._no_weight_decay = True
    assert parts_of(table) == {}


def test_a_plugin_that_knows_better_is_believed():
    assert parts_of(nn.Linear(3, 6, bias=False), lambda name: (2, 4)) == {"weight": (2, 4)}
    assert parts_of(of_shape(4, 6), lambda name: ()) == {}
    assert parts_of(of_shape(8), lambda name: None) == {}


@pytest.mark.parametrize("rows", [(2, 3), (6, 6), (0, 6), (-1, 7)])
def test_declared_rows_that_do_not_add_up_are_refused(rows):
    with pytest.raises(RequestError, match=r"it.weight \(6, 3\).*do not add up to its 6; correct matrix_parts"):
        parts_of(nn.Linear(3, 6, bias=False), lambda name: rows)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_model_without_matrices_trains_with_adamw_alone(optimizer):
    optimizers = build_optimizers(Holder(nn.LayerNorm(4)), TrainerSettings(optimizer=optimizer))
    assert [type(each) for each in optimizers] == [torch.optim.AdamW]


def split_of(name):
    plugin = find_model(name)
    config = plugin.with_vocabulary(plugin.presets["tiny"], 11)
    model = plugin.build(config)
    return split_parameters(model, lambda parameter: plugin.matrix_parts(config, parameter))


@pytest.mark.parametrize(
    ("name", "projection", "parts"),
    [
        ("mamba", "in_proj", (128, 128)),
        ("mamba", "x_proj", (4, 16, 16)),
        ("mamba2", "in_proj", (128, 128, 64, 64, 4)),
        ("pmnet", "proj_kv", (32, 32)),
        ("transformer", "q_proj", (64,)),
    ],
)
def test_fused_projections_of_the_shipped_models_are_cut_into_their_parts(name, projection, parts):
    found = {matrix.parts for matrix in split_of(name)[0] if f".{projection}." in matrix.name}
    assert found == {parts}


@pytest.mark.parametrize(
    ("name", "table"), [("mamba", "A_log"), ("pmnet", "memory_embeddings"), ("gated-convolution", "taps")]
)
def test_tables_of_the_shipped_models_are_no_matrices(name, table):
    matrices, rest = split_of(name)
    assert not any(table in matrix.name for matrix in matrices)
    assert any(table in parameter for parameter, _ in rest)


def test_the_split_in_words():
    model = nn.ModuleDict({"table": nn.Embedding(5, 4), "map": nn.Linear(4, 6), "norm": nn.LayerNorm(4)})
    words = describe_split(model, lambda name: (2, 4) if name == "map.weight" else None)
    assert words == "24 of 58 parameters in 2 matrices; not among them: table.weight"
