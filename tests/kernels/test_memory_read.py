"""The memory read: every path equals the definition in fp64, and stores and counts what it says."""

import math
from collections.abc import Callable

import pytest
import torch
from fresh_memory import filled_with_nan
from model_support import normal, relative_difference
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from seqbench_kernels.dispatch import UnknownPathError, request_paths
from seqbench_kernels.memory_read import OPERATION, cpu, memory_read, memory_read_reference

PATHS = ["cpu", "cpu-recompute"]
# Batch, length, slots, heads, angles. Below and above the number of angles where the order of the value half changes.
SHAPES = [
    (2, 5, 4, 2, 6),
    (1, 1, 1, 1, 1),
    (1, 63, 3, 3, 5),
    (3, 7, 5, 2, 17),
    (1, 1, 4, 4, 33),
    (2, 63, 3, 1, 60),
]
# Relative to the largest entry.
TOLERANCE = {torch.float64: 1e-13, torch.float32: 5e-6, torch.bfloat16: 2e-2}


@pytest.fixture(autouse=True)
def nothing_taken() -> None:
    OPERATION.taken.clear()


def arguments(
    batch: int, length: int, slots: int, heads: int, angles: int, dtype: torch.dtype = torch.float64
) -> list[Tensor]:
    """Query, slots, weight and bias that give scores of ordinary size."""
    phases = 2 * math.pi * torch.rand(batch, length, slots, angles, dtype=torch.float64)
    width = 2 * heads * angles
    wide = dtype if dtype == torch.float64 else torch.float32
    return [
        normal(batch, length, heads, angles, seed=1).to(wide),
        torch.cat((phases.sin(), phases.cos()), dim=-1).to(wide),
        (normal(width, 2 * angles, seed=2) / math.sqrt(angles)).to(dtype),
        (0.3 * normal(width, seed=3)).to(dtype),
    ]


def with_gradients(read: Callable[..., Tensor], inputs: list[Tensor]) -> list[Tensor]:
    """The values, and the gradients of a fixed random function of them."""
    leaves = [tensor.detach().requires_grad_() for tensor in inputs]
    values = read(*leaves)
    return [values.detach(), *torch.autograd.grad(values, leaves, normal(*values.shape, seed=9).to(values))]


def assert_agrees(path: str, inputs: list[Tensor], tolerance: float) -> None:
    """Values and all gradients are the definition's in fp64, in the dtypes of weight and arguments."""
    request_paths(f"memory_read={path}")
    with filled_with_nan():
        results = with_gradients(memory_read, inputs)
    expected = with_gradients(memory_read_reference, [tensor.double() for tensor in inputs])
    assert [result.dtype for result in results] == [inputs[2].dtype, *(tensor.dtype for tensor in inputs)]
    for name, result, wanted in zip(("values", "query", "slots", "weight", "bias"), results, expected, strict=True):
        assert result.shape == wanted.shape, name
        # One slot has the weight 1 whatever its score, and then nothing reaches query and keys.
        if wanted.abs().max() > 0 or result.abs().max() > 0:
            assert relative_difference(result, wanted) < tolerance, name


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_values_and_all_gradients_are_those_of_the_definition(
    shape: tuple[int, ...], path: str, dtype: torch.dtype
) -> None:
    assert_agrees(path, arguments(*shape, dtype=dtype), TOLERANCE[dtype])


@pytest.mark.parametrize("angles", [6, 40])
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_chunks_and_spans_of_tokens_change_nothing(
    angles: int, path: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Chunks of 6 and of 5 tokens, spans of 2.
    monkeypatch.setattr("seqbench_kernels.memory_read.cpu._CHUNK_ELEMENTS", 6 * 3 * 2 * angles)
    monkeypatch.setattr("seqbench_kernels.memory_read.keys._SPAN_ELEMENTS", 2 * 3 * 2 * angles)
    assert_agrees(path, arguments(1, 23, 3, 2, angles, dtype=dtype), TOLERANCE[dtype])


@pytest.mark.parametrize("path", PATHS)
def test_arguments_need_not_be_contiguous_and_are_left_as_they_are(path: str) -> None:
    query, slots, weight, bias = arguments(3, 7, 4, 2, 20)
    strided = [
        query.transpose(0, 1),
        slots.transpose(0, 1),
        weight.t().contiguous().t(),
        bias.repeat_interleave(2)[::2],
    ]
    copies = [tensor.clone() for tensor in strided]
    assert not any(tensor.is_contiguous() for tensor in strided)
    assert_agrees(path, strided, TOLERANCE[torch.float64])
    assert all(torch.equal(tensor, copy) for tensor, copy in zip(strided, copies, strict=True))


@pytest.mark.parametrize("path", [*PATHS, "reference"])
def test_no_tokens_give_no_values_and_gradients_of_zero(path: str) -> None:
    request_paths(path)
    values, *gradients = with_gradients(memory_read, arguments(2, 0, 4, 2, 20, dtype=torch.float32))
    assert values.shape == (2, 0, 40)
    assert all(gradient.abs().sum() == 0 for gradient in gradients)


@pytest.mark.parametrize("path", [*PATHS, "reference"])
@pytest.mark.parametrize("angles", [2, 18])
def test_gradients_pass_gradcheck(path: str, angles: int) -> None:
    request_paths(path)
    leaves = [tensor.requires_grad_() for tensor in arguments(1, 2, 3, 2, angles)]
    assert torch.autograd.gradcheck(memory_read, leaves, fast_mode=angles > 2)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("angles", [6, 40])
def test_saturated_queries_and_keys_give_finite_values_and_gradients(path: str, angles: int) -> None:
    query, slots, weight, bias = arguments(1, 3, 4, 2, angles, dtype=torch.float32)
    assert_agrees(path, [1e4 * query, slots, weight, bias], TOLERANCE[torch.float32])
    request_paths(path)
    largest = torch.finfo(torch.float32).max
    results = with_gradients(memory_read, [largest * query.sign(), slots, 1e4 * weight, bias])
    assert all(result.isfinite().all() for result in results)


def test_a_half_precision_query_gets_a_gradient_of_its_own_dtype() -> None:
    query, slots, weight, bias = arguments(2, 5, 4, 2, 20, dtype=torch.bfloat16)
    assert_agrees("cpu", [query.bfloat16(), slots, weight, bias], TOLERANCE[torch.bfloat16])


@pytest.mark.parametrize("path", [*PATHS, "reference"])
@pytest.mark.parametrize("angles", [6, 40])
def test_under_autocast_parameters_are_rounded_and_scores_and_mix_are_not(path: str, angles: int) -> None:
    request_paths(path)
    query, slots, weight, bias = arguments(2, 5, 4, 2, angles, dtype=torch.float32)

    def autocast(*tensors: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return memory_read(*tensors)

    rounded = [tensor.bfloat16() for tensor in (query, weight, bias)]
    results = with_gradients(autocast, [query, slots, weight, bias])
    expected = with_gradients(memory_read, [rounded[0], slots, *rounded[1:]])
    assert [result.dtype for result in results] == [torch.bfloat16, *(torch.float32,) * 4]
    assert all(torch.equal(result, wanted.to(result.dtype)) for result, wanted in zip(results, expected, strict=True))


def test_a_backward_pass_inside_autocast_is_the_one_outside() -> None:
    inputs = arguments(2, 5, 4, 2, 40, dtype=torch.float32)
    leaves = [tensor.requires_grad_() for tensor in inputs]
    values = memory_read(*leaves)
    outside = torch.autograd.grad(values.sum(), leaves, retain_graph=True)
    with torch.autocast("cpu", torch.bfloat16):
        inside = torch.autograd.grad(values.sum(), leaves)
    assert all(torch.equal(one, other) for one, other in zip(inside, outside, strict=True))


def test_repeats_give_the_same_bits() -> None:
    inputs = arguments(2, 63, 4, 2, 40, dtype=torch.float32)
    first, second = with_gradients(memory_read, inputs), with_gradients(memory_read, inputs)
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


def bytes_stored(path: str, inputs: list[Tensor]) -> int:
    """What the read keeps for its backward pass, beside its arguments."""
    request_paths(path)
    leaves = [tensor.clone().requires_grad_() for tensor in inputs]
    known = {tensor.untyped_storage().data_ptr() for tensor in leaves}
    stored: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            stored[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        values = memory_read(*leaves)
    values.sum().backward()
    return sum(stored.values())


@pytest.mark.parametrize(("slots", "heads", "angles"), [(4, 4, 64), (4, 2, 16)])
def test_paths_store_the_keys_once_or_not_at_all(slots: int, heads: int, angles: int) -> None:
    tokens = 30
    inputs = arguments(2, tokens // 2, slots, heads, angles, dtype=torch.float32)
    weights, keys = 4 * tokens * heads * slots, 4 * tokens * slots * heads * angles
    assert bytes_stored("cpu-recompute", inputs) == weights
    assert bytes_stored("cpu", inputs) == weights + keys
    # Keys and values, phi's of keys, their differences.
    assert bytes_stored("reference", inputs) >= 4 * keys


def test_without_gradients_nothing_is_stored_and_values_are_the_same() -> None:
    inputs = arguments(2, 5, 4, 2, 40, dtype=torch.float32)
    expected, *_ = with_gradients(memory_read, inputs)
    with torch.no_grad():
        assert torch.equal(memory_read(*inputs), expected)
    assert not memory_read(*inputs).requires_grad


def test_flops_are_those_of_the_products_that_run() -> None:
    tokens, slots, heads, angles = 12, 4, 2, 40
    query, features, weight, bias = arguments(1, tokens, slots, heads, angles, dtype=torch.float32)
    inputs = query[0], features[0], weight, bias
    leaves = [tensor.requires_grad_() for tensor in arguments(1, tokens, slots, heads, angles, dtype=torch.float32)]
    key, value = slots * 2 * angles * heads * angles, heads * 2 * angles * angles
    mix = heads * slots * 2 * angles
    for path in PATHS:
        request_paths(path)
        with FlopCounterMode(display=False) as forward:
            values = memory_read(*leaves)
        with FlopCounterMode(display=False) as backward:
            values.sum().backward()
        assert forward.get_total_flops() == 2 * tokens * (key + value + mix)
        assert backward.get_total_flops() == 2 * forward.get_total_flops()
    with FlopCounterMode(display=False) as bare_forward:
        _, weights, keys = cpu.read_forward(*inputs, keep_keys=True)
    with FlopCounterMode(display=False) as bare_backward:
        cpu.read_backward(torch.ones(tokens, heads * angles), *inputs, weights, keys)
    assert bare_forward.get_total_flops() == forward.get_total_flops()
    # What is repeated instead of stored is no part of the algebra: here the mix.
    assert bare_backward.get_total_flops() == backward.get_total_flops() + 2 * tokens * mix


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("angles", [3, 20])
def test_the_operator_is_registered_as_compilers_expect(path: str, angles: int) -> None:
    query, slots, weight, bias = (tensor.requires_grad_() for tensor in arguments(1, 5, 3, 2, angles))
    operator = torch.ops.seqbench.memory_read.default
    torch.library.opcheck(operator, (query[0], slots[0], weight, bias, path, path == "cpu"))


@pytest.mark.parametrize("path", [*PATHS, "reference"])
def test_compiled_without_breaks_it_gives_the_same_values_and_gradients(path: str) -> None:
    request_paths(path)
    inputs = arguments(2, 5, 4, 2, 20, dtype=torch.float32)
    compiled = torch.compile(memory_read, backend="aot_eager", fullgraph=True)
    for one, other in zip(with_gradients(compiled, inputs), with_gradients(memory_read, inputs), strict=True):
        # The compiler may write the definition's operations in another order; the custom operators it leaves alone.
        assert relative_difference(one, other) < 1e-6 if path == "reference" else torch.equal(one, other)


def test_on_cpu_the_path_is_cpu_unless_another_is_asked_for_and_what_ran_is_noted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    inputs = arguments(1, 2, 3, 2, 4)
    memory_read(*inputs)
    assert OPERATION.taken == {"cpu"}
    monkeypatch.setenv("SEQBENCH_KERNELS", "memory_read=cpu-recompute")
    request_paths(None)
    memory_read(*inputs)
    assert OPERATION.taken == {"cpu", "cpu-recompute"}
    request_paths("reference")
    memory_read(*inputs)
    assert OPERATION.taken == {"cpu", "cpu-recompute", "reference"}


def test_a_path_that_does_not_exist_or_cannot_serve_is_refused() -> None:
    inputs = arguments(1, 2, 3, 2, 4)
    request_paths("memory_read=triton")
    with pytest.raises(UnknownPathError, match="'triton', which cannot serve cpu tensors of float64"):
        memory_read(*inputs)
    request_paths("memory_read=fastest")
    with pytest.raises(UnknownPathError):
        memory_read(*inputs)


@pytest.mark.interpreted
def test_the_triton_path_agrees_where_it_is_asked_for_and_is_not_taken_otherwise() -> None:
    inputs = arguments(2, 3, 4, 2, 6, dtype=torch.float32)
    OPERATION.taken.clear()
    memory_read(*inputs)
    assert OPERATION.taken == {"cpu"}
    try:
        assert_agrees("triton", inputs, TOLERANCE[torch.float32])
        assert OPERATION.taken == {"cpu", "triton"}
    finally:
        request_paths(None)


@pytest.mark.parametrize(
    ("changed", "told"),
    [(0, "query must be"), (1, "slots must be"), (2, "weight must be"), (3, "bias must be")],
)
def test_shapes_that_do_not_fit_are_told(changed: int, told: str) -> None:
    inputs = arguments(1, 5, 3, 2, 4)
    inputs[changed] = inputs[changed][0] if changed == 0 else inputs[changed][..., :-1]
    with pytest.raises(ValueError, match=told):
        memory_read(*inputs)


@pytest.mark.parametrize("name", ["119m", "tiny"])
def test_cases_are_arguments_to_time_with_their_backward_pass(name: str) -> None:
    inputs = OPERATION.cases(torch.device("cpu"))[name]()
    assert all(tensor.requires_grad for tensor in inputs)
    if name == "tiny":
        assert memory_read(*inputs).shape == (64, 40, 32)


@pytest.mark.gpu
@pytest.mark.parametrize("path", ["triton", *PATHS])
def test_on_a_gpu_every_path_agrees_with_the_definition(path: str) -> None:
    inputs = [tensor.cuda() for tensor in arguments(2, 63, 4, 2, 60, dtype=torch.float32)]
    request_paths(f"memory_read={path}")
    expected = with_gradients(memory_read_reference, [tensor.double().cpu() for tensor in inputs])
    for result, wanted in zip(with_gradients(memory_read, inputs), expected, strict=True):
        assert relative_difference(result.cpu(), wanted) < 1e-4
