"""What the tests of the scans share: how a scan is cut, compiled, watched, and compared in values and gradients."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from fresh_memory import filled_with_nan
from torch import Tensor

# (inputs, step sizes, A, B, C, D and perhaps an initial state) -> (outputs, final state).
Scan: TypeAlias = Callable[..., tuple[Tensor, Tensor]]

# What torch.library.opcheck tests, with and without gradients.
OPERATOR_RULES = {
    True: ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic"),
    False: ("test_schema", "test_faketensor"),
}


def normals(seed: int) -> Callable[..., Tensor]:
    """Draws of any shape in fp64, one after another."""
    generator = torch.Generator().manual_seed(seed)
    return lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)


def with_gradients(scan: Scan, inputs: Sequence[Tensor], dtype: torch.dtype) -> tuple[list[Tensor], list[Tensor]]:
    """Outputs, and gradients of a fixed random function of both outputs."""
    leaves = [tensor.to(dtype).requires_grad_() for tensor in inputs]
    outputs, draw = scan(*leaves), normals(seed=1)
    loss = sum((output * draw(*output.shape).to(output)).sum() for output in outputs)
    return [output.detach() for output in outputs], list(torch.autograd.grad(loss, leaves))


def check_against_reference(
    scan: Scan, reference: Scan, names: Sequence[str], inputs: Sequence[Tensor], dtype: torch.dtype, tolerance: float
) -> None:
    """Values and gradients beside those of the definition in fp64; `names` are those of the inputs."""
    expected = with_gradients(reference, inputs, torch.float64)
    actual = with_gradients(scan, inputs, dtype)
    labels = ("y", "final state", *names[: len(inputs)])
    for name, one, other in zip(labels, actual[0] + actual[1], expected[0] + expected[1], strict=True):
        assert one.dtype == dtype and one.shape == other.shape
        assert ((one - other).abs().max() / other.abs().max().clamp(min=1)) < tolerance, f"{name} in {dtype}"


def in_pieces(scan: Scan, inputs: Sequence[Tensor], cuts: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Outputs and final state of a sequence that is scanned piece after piece, each from the state of the last."""
    x, dt, A, B, C, D, state = inputs
    parts = []
    for piece in zip(*(tensor.split(cuts, dim=1) for tensor in (x, dt, B, C)), strict=True):
        outputs, state = scan(*piece[:2], A, *piece[2:], D, state)
        parts.append(outputs)
    return torch.cat(parts, dim=1), state


def check_writing_of_fresh_memory(scan: Scan, inputs: Sequence[Tensor]) -> None:
    """What fresh memory holds shows in no result."""
    expected = with_gradients(scan, inputs, torch.float64)
    with filled_with_nan():
        actual = with_gradients(scan, inputs, torch.float64)
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)


def check_compilation(scan: Scan, inputs: Sequence[Tensor]) -> None:
    """One graph with the same values and gradients."""
    compiled = torch.compile(scan, fullgraph=True, backend="aot_eager")
    actual, expected = (with_gradients(each, inputs, torch.float64) for each in (compiled, scan))
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)
    with torch.no_grad():
        torch.testing.assert_close(compiled(*inputs), scan(*inputs), rtol=0, atol=0)


def elements_kept(scan: Scan, inputs: Sequence[Tensor]) -> int:
    """Elements that are kept for the backward pass, the inputs aside."""
    own = {tensor.data_ptr() for tensor in inputs}
    kept = []

    def record(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in own:
            kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(record, lambda tensor: tensor):
        scan(*inputs)
    return sum(kept)
