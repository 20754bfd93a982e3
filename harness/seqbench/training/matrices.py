"""Which parameters are matrices, that is linear maps of hidden features, and of what parts: by shape and kind.

A matrix gets weight decay and, where it is asked for, Muon. Everything else (embeddings and heads, biases, norms,
depthwise filters, tables that a plugin names) gets AdamW without decay.
"""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from seqbench.errors import RequestError

# What a plugin says of a parameter: the rows of each of its parts, () for no matrix, None for what shape and kind say.
Declared = Callable[[str], Sequence[int] | None]

# Of a layer, or of a parameter in a list.
_NUMBER = re.compile(r"\.\d+(?=\.|$)")
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
# Gates whose weights recurrent layers and cells of torch keep in one parameter, one below the other.
_GATES = {nn.LSTM: 4, nn.GRU: 3, nn.RNN: 1, nn.LSTMCell: 4, nn.GRUCell: 3, nn.RNNCell: 1}


@dataclass(frozen=True, eq=False)
class Matrix:
    """A trainable parameter that is one or several linear maps.

    Attributes:
        name: of the parameter in the model.
        parameter: as the model holds it.
        parts: rows of each map, the maps lying one below the other in a view of the parameter with `columns` columns.
        columns: of that view.
        transposed: whether the parameter is kept as (inputs, outputs), so that the view is its transpose.
    """

    name: str
    parameter: Tensor
    parts: tuple[int, ...]
    columns: int
    transposed: bool = False

    def views(self, tensor: Tensor) -> Sequence[Tensor]:
        """Each part of `tensor`, which has the parameter's shape, as a view (rows, columns)."""
        whole = tensor.t() if self.transposed else tensor.reshape(-1, self.columns)
        return whole.split(self.parts)


def split_parameters(
    model: nn.Module, declared: Declared = lambda name: None
) -> tuple[list[Matrix], list[tuple[str, Tensor]]]:
    """Trainable parameters as (matrices, all others with their names), each once, in the order of the model.

    A head that is tied to an embedding counts as the embedding. Raises RequestError when the declared rows of a
    parameter do not add up to those that it has.
    """
    kinds, embeddings = _kinds(model), _embeddings(model)
    matrices: list[Matrix] = []
    rest: list[tuple[str, Tensor]] = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        found = None if id(parameter) in embeddings else kinds[id(parameter)](name, parameter)
        said = declared(name)
        matrix = found if said is None else _as_declared(name, parameter, found, tuple(said))
        if matrix is None:
            rest.append((name, parameter))
        else:
            matrices.append(matrix)
    return matrices, rest


def describe_split(model: nn.Module, declared: Declared) -> str:
    """How many parameters are matrices, and which of two and more dimensions are not, in a few words."""
    matrices, rest = split_parameters(model, declared)
    count = sum(matrix.parameter.numel() for matrix in matrices)
    total = count + sum(parameter.numel() for _, parameter in rest)
    tables = sorted({_NUMBER.sub(".*", name) for name, parameter in rest if parameter.ndim > 1})
    without = f"; not among them: {', '.join(tables)}" if tables else ""
    return f"{count:,} of {total:,} parameters in {sum(len(matrix.parts) for matrix in matrices)} matrices{without}"


_Kind = Callable[[str, Tensor], Matrix | None]


def _kinds(model: nn.Module) -> dict[int, _Kind]:
    """Parameter id -> what makes a matrix of it, after the module that it belongs to."""
    found: dict[int, _Kind] = {}
    for module in model.modules():
        for _, parameter in module.named_parameters(recurse=False):
            found.setdefault(id(parameter), _kind(module))
    return found


def _kind(module: nn.Module) -> _Kind:
    if isinstance(module, nn.RNNBase | nn.RNNCellBase):
        return lambda name, parameter: _fused(name, parameter, _gates(module, name))
    if isinstance(module, nn.MultiheadAttention):
        # Queries, keys and values; torch keeps them apart where their widths differ.
        return lambda name, parameter: _fused(name, parameter, 3 if name.endswith("in_proj_weight") else 1)
    if isinstance(module, nn.Linear):
        return _linear
    if isinstance(module, Conv1D):
        return _transposed
    if isinstance(module, _CONVOLUTIONS):
        return lambda name, parameter: _convolution(name, parameter, module.groups)
    return _by_shape


def _gates(module: nn.Module, name: str) -> int:
    # weight_hr maps what an nn.LSTM gives out, and has no gates.
    if "weight_hr" in name:
        return 1
    return next((gates for kind, gates in _GATES.items() if isinstance(module, kind)), 1)


def _by_shape(name: str, parameter: Tensor) -> Matrix | None:
    """Two dimensions are a matrix, three a stack of them; dimensions of one entry do not count."""
    shape = [size for size in parameter.shape if size > 1]
    if len(shape) not in (2, 3) or getattr(parameter, "_no_weight_decay", False):
        return None
    rows, columns = shape[-2:]
    return Matrix(name, parameter, (rows,) * (math.prod(shape) // (rows * columns)), columns)


def _linear(name: str, parameter: Tensor) -> Matrix | None:
    return _fused(name, parameter, 1)


def _fused(name: str, parameter: Tensor, parts: int) -> Matrix | None:
    """A weight of linear maps one below the other; a bias is none."""
    if parameter.ndim != 2:
        return None
    rows, columns = parameter.shape
    return Matrix(name, parameter, (rows // parts,) * parts, columns)


def _transposed(name: str, parameter: Tensor) -> Matrix | None:
    """A weight that is kept as (inputs, outputs)."""
    if parameter.ndim != 2:
        return None
    inputs, outputs = parameter.shape
    return Matrix(name, parameter, (outputs,), inputs, transposed=True)


def _convolution(name: str, parameter: Tensor, groups: int) -> Matrix | None:
    """One map of a whole patch per group; a depthwise filter maps no features to features."""
    if parameter.ndim < 3 or parameter.shape[1] == 1:
        return None
    rows, columns = parameter.shape[0] // groups, math.prod(parameter.shape[1:])
    return None if rows == 1 else Matrix(name, parameter, (rows,) * groups, columns)


def _as_declared(name: str, parameter: Tensor, found: Matrix | None, parts: tuple[int, ...]) -> Matrix | None:
    if not parts:
        return None
    columns = found.columns if found else parameter.shape[-1]
    if sum(parts) * columns != parameter.numel() or min(parts) < 1:
        raise RequestError(
            f"the plugin says that parameter {name} {tuple(parameter.shape)} is made of parts of {parts} rows, which do"
            f" not add up to its {parameter.numel() // columns}; correct matrix_parts"
        )
    return Matrix(name, parameter, parts, columns, found.transposed if found else False)


def _embeddings(model: nn.Module) -> set[int]:
    """Ids of the vocabulary matrices, and of every table that is looked up."""
    tables: Iterator[nn.Module] = (
        module for module in model.modules() if isinstance(module, nn.Embedding | nn.EmbeddingBag)
    )
    found = {id(module.weight) for module in tables}
    get_head = getattr(model, "get_output_embeddings", None)
    head = get_head() if get_head is not None else None
    return found if head is None else found | {id(head.weight)}
