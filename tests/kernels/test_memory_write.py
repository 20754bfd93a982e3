"""The memory write: weights of the slots and increments, on every path; the Triton path in its interpreter too."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.utils.checkpoint
from aot_compilation import assert_fits, compiling_for
from fresh_memory import filled_with_nan
from model_support import largest_difference, normal
from path_support import on_every_path
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from seqbench_kernels.dispatch import UnknownPathError, request_paths
from seqbench_kernels.memory_write import (
    OPERATION,
    memory_write,
    memory_write_reference,
    slot_weights,
    slot_weights_reference,
    triton_path,
)
from seqbench_kernels.memory_write.operators import write, write_backward

# (B, T, N, M) and what the keys have for B and T: awkward sizes, the root's shared keys, keys shared by rows or tokens.
CASES = [
    ((2, 9, 4, 16), (2, 9)),
    ((1, 63, 3, 60), (1, 63)),
    ((2, 33, 4, 16), (1, 1)),
    ((2, 5, 5, 33), (2, 1)),
    ((2, 5, 3, 7), (1, 5)),
    ((1, 1, 1, 1), (1, 1)),
]
BLOCKS = ((1, 130, 4, 520), (1, 130))


def inputs(sizes: tuple[int, ...], shared: tuple[int, int], spread: float = 1.0) -> list[Tensor]:
    batch, length, slots, angles = sizes
    shapes = ((batch, length, angles), (*shared, slots, angles), (batch, length, angles))
    return [spread * normal(*shape, seed=seed) for seed, shape in enumerate(shapes)]


def with_gradients(
    function: Callable[..., Tensor | tuple[Tensor, ...]], tensors: list[Tensor], may_be_unused: bool = False
) -> list[Tensor]:
    """Results, and the gradients of a fixed random function of them; zero for what it may leave unused."""
    leaves = [tensor.clone().requires_grad_() for tensor in tensors]
    results = function(*leaves)
    results = results if isinstance(results, tuple) else (results,)
    total = sum((result * normal(*result.shape, seed=9).to(result)).sum() for result in results)
    return [
        *(result.detach() for result in results),
        *torch.autograd.grad(total, leaves, materialize_grads=may_be_unused),
    ]


def check(path: str, tensors: list[Tensor]) -> None:
    request_paths(path)
    assert OPERATION.choose(torch.device("cpu"), torch.float32) == path
    for function, reference, arguments in (
        (memory_write, memory_write_reference, tensors),
        (slot_weights, slot_weights_reference, tensors[:2]),
    ):
        with filled_with_nan():
            own = with_gradients(function, arguments)
        expected = with_gradients(reference, [tensor.double() for tensor in arguments])
        for actual, exact in zip(own, expected, strict=True):
            assert actual.dtype == torch.float32 and actual.shape == exact.shape
            # Sums of up to 2,000 terms of size 1.
            assert largest_difference(actual, exact) < 1e-5 * max(1.0, exact.abs().max().item())


@on_every_path
@pytest.mark.parametrize("case", CASES)
def test_weights_increments_and_all_gradients_are_those_of_the_definition(path, case):
    check(path, inputs(*case))


@on_every_path
@pytest.mark.parametrize("is_shared", [False, True])
def test_several_blocks_of_tokens_and_angles_are_those_of_the_definition(path, is_shared):
    sizes, shared = BLOCKS
    if path == "triton":
        sizes, shared = (1, 3, *sizes[2:]), (1, 3)
    check(path, inputs(sizes, (1, 1) if is_shared else shared))


def test_a_weight_is_a_softmax_of_cosines_and_an_increment_its_share_of_a_bounded_angle():
    query, keys, value = [0.3, -1.0], [[0.1, 2.0], [0.5, -0.5]], [0.7, -3.0]
    angle = [math.pi * math.tanh(x) for x in query]
    scores = [
        sum(math.cos(a - math.pi * math.tanh(k)) for a, k in zip(angle, key, strict=True)) / math.sqrt(2)
        for key in keys
    ]
    share = math.exp(scores[1]) / sum(map(math.exp, scores))
    weights, increments = memory_write(torch.tensor([[query]]), torch.tensor([[keys]]), torch.tensor([[value]]))
    assert weights[0, 0, 1].item() == pytest.approx(share, abs=1e-6)
    assert increments[0, 0, 1].tolist() == pytest.approx([share * math.pi * math.tanh(x) for x in value], abs=1e-6)


@on_every_path
def test_saturated_inputs_give_finite_results_and_gradients_of_zero(path):
    request_paths(path)
    signs = [tensor.sign() for tensor in inputs((1, 3, 2, 4), (1, 3))]
    for size in (30.0, 1e4):
        *results, query, keys, _ = with_gradients(memory_write, [size * sign for sign in signs])
        assert all(result.isfinite().all() for result in results)
        assert query.abs().max() < 1e-6 and keys.abs().max() < 1e-6


@on_every_path
@pytest.mark.parametrize("shared", [False, True])
def test_a_row_does_not_depend_on_the_others_nor_on_the_repeat(path, shared):
    request_paths(path)
    tensors = inputs((3, 5, 4, 16), (1, 1) if shared else (3, 5))
    other = [tensor if len(tensor) == 1 else torch.cat((tensor[:1], 1e3 * tensor[1:])) for tensor in tensors]
    first, again, beside = (with_gradients(memory_write, own) for own in (tensors, tensors, other))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    for index, (a, b) in enumerate(zip(first, beside, strict=True)):
        # The gradient of shared keys is a sum over the rows.
        assert (shared and index == 3) or torch.equal(a[0], b[0])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_inputs_are_computed_in_fp32_and_get_gradients_of_their_dtype(dtype):
    tensors = [tensor.to(dtype) for tensor in inputs((2, 5, 4, 16), (2, 5))]
    weights, increments, *gradients = with_gradients(memory_write, tensors)
    expected = memory_write_reference(*(tensor.double() for tensor in tensors))
    for own, exact in zip((weights, increments), expected, strict=True):
        assert own.dtype == torch.float32 and largest_difference(own, exact) < 1e-5
    assert [gradient.dtype for gradient in gradients] == [dtype] * 3


@pytest.mark.parametrize("function", [memory_write, memory_write_reference])
@pytest.mark.parametrize("shared", [(2, 3), (1, 1), (1, 3)])
def test_gradients_pass_gradcheck(function, shared):
    leaves = [tensor.double().requires_grad_() for tensor in inputs((2, 3, 3, 4), shared)]
    assert torch.autograd.gradcheck(function, leaves)


@pytest.mark.parametrize("shared", [(2, 5), (1, 1)])
@pytest.mark.parametrize("keep", [False, True])
def test_the_operators_keep_torchs_rules(shared, keep):
    query, keys, values = (tensor.requires_grad_() for tensor in inputs((2, 5, 4, 16), shared))
    torch.library.opcheck(torch.ops.seqbench.memory_write.default, (query, keys, values, "cpu", keep))
    torch.library.opcheck(torch.ops.seqbench.slot_weights.default, (query, keys, "cpu", keep))
    query, keys, values = (tensor.detach() for tensor in (query, keys, values))
    weights, increments, *kept = write(query, keys, values, "cpu", keep)
    query, keys, values = kept if keep else (query, keys, values)
    arguments = (weights, increments, query, keys, values, weights, "cpu", keep)
    torch.library.opcheck(torch.ops.seqbench.memory_write_backward.default, arguments)
    torch.library.opcheck(
        torch.ops.seqbench.slot_weights_backward.default, (weights, query, keys, weights, "cpu", keep)
    )


@pytest.mark.parametrize("shared", [(2, 5), (1, 1)])
def test_gradients_do_not_depend_on_what_is_kept_for_them(shared):
    arguments = inputs((2, 5, 4, 16), shared)
    weights, increments, *kept = write(*arguments, "cpu", True)
    again, _, *nothing = write(*arguments, "cpu", False)
    assert torch.equal(weights, again) and not any(tensor.numel() for tensor in nothing)
    with_kept = write_backward(weights, increments, *kept, weights, "cpu", True)
    without = write_backward(weights, increments, *arguments, weights, "cpu", False)
    assert all(torch.equal(a, b) for a, b in zip(with_kept, without, strict=True))


@pytest.mark.parametrize("which", [0, 1])
def test_one_of_the_two_results_may_go_unused(which):
    tensors = inputs((2, 5, 4, 16), (2, 5))
    own = with_gradients(lambda *leaves: memory_write(*leaves)[which], tensors, may_be_unused=True)
    expected = with_gradients(lambda *leaves: memory_write_reference(*leaves)[which], tensors, may_be_unused=True)
    assert all(largest_difference(a, b) < 1e-5 for a, b in zip(own, expected, strict=True))


@pytest.mark.parametrize("path", ["cpu", pytest.param("triton", marks=pytest.mark.interpreted)])
def test_as_much_as_the_arguments_and_the_weights_is_stored_for_the_backward_pass(path):
    request_paths(path)
    leaves = [tensor.requires_grad_() for tensor in inputs((2, 5, 4, 16), (2, 5))]
    stored: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        stored[tensor.data_ptr()] = tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        weights, _ = memory_write(*leaves)
    assert sum(stored.values()) == sum(tensor.numel() for tensor in (*leaves, weights))


@pytest.mark.parametrize("function", [memory_write, slot_weights], ids=lambda function: function.__name__)
def test_a_compiled_write_is_one_graph_with_the_same_bits_also_under_autocast(function):
    torch._dynamo.reset()
    tensors = inputs((2, 5, 4, 16), (1, 1))[: 3 if function is memory_write else 2]
    expected = with_gradients(function, tensors)
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    actual = with_gradients(compiled, tensors)
    with torch.autocast("cpu", torch.bfloat16):
        cast = with_gradients(function, tensors)
    assert all(torch.equal(own, wanted) for own, wanted in zip(actual, expected, strict=True))
    assert all(torch.equal(own, wanted) for own, wanted in zip(cast, expected, strict=True))


def test_a_checkpointed_write_has_the_same_bits():
    def checkpointed(*leaves: Tensor) -> tuple[Tensor, Tensor]:
        return torch.utils.checkpoint.checkpoint(memory_write, *leaves, use_reentrant=False)

    tensors = inputs((2, 5, 4, 16), (2, 5))
    expected = with_gradients(memory_write, tensors)
    assert all(torch.equal(a, b) for a, b in zip(with_gradients(checkpointed, tensors), expected, strict=True))


def test_a_write_has_no_matrix_products_to_count():
    with FlopCounterMode(display=False) as counter:
        with_gradients(memory_write, inputs((2, 5, 4, 16), (2, 5)))
    assert counter.get_total_flops() == 0


def test_arguments_are_left_unchanged_and_need_not_be_contiguous():
    tensors = inputs((2, 5, 4, 16), (2, 5))
    copies = [tensor.clone() for tensor in tensors]
    expected = with_gradients(memory_write, tensors)
    assert all(torch.equal(a, b) for a, b in zip(tensors, copies, strict=True))
    strided = [tensor.transpose(0, 1).contiguous().transpose(0, 1) for tensor in tensors]
    assert all(torch.equal(a, b) for a, b in zip(with_gradients(memory_write, strided), expected, strict=True))


def test_a_path_that_cannot_serve_is_refused_and_the_cases_to_time_run():
    for build in OPERATION.cases(torch.device("cpu")).values():
        sum(result.sum() for result in OPERATION.function(*build())).backward()
    request_paths("memory_write=triton")
    with pytest.raises(UnknownPathError, match="TRITON_INTERPRET"):
        memory_write(*inputs((1, 2, 2, 4), (1, 2)))


@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize(
    ("slots", "angles", "dtype"),
    [
        (4, 512, torch.float32),
        pytest.param(4, 512, torch.bfloat16, marks=pytest.mark.slow),
        pytest.param(3, 7, torch.float32, marks=pytest.mark.slow),
        pytest.param(16, 600, torch.float32, marks=pytest.mark.slow),
    ],
)
def test_the_kernels_compile_for_gpus(slots: int, angles: int, dtype: torch.dtype, capability: int) -> None:
    query, keys = torch.zeros(20, angles, dtype=dtype), torch.zeros(20, slots, angles, dtype=dtype)
    weights = torch.zeros(20, slots)
    with compiling_for(capability) as launches:
        triton_path.increments_gradient(triton_path.increments(weights, query), weights, query)
        for own in (keys, keys[:1]):
            triton_path.weights_gradient(triton_path.weights(query, own), query, own, weights)
    assert {launch.name for launch in launches} == {
        "slot_weights",
        "slot_weights_gradient",
        "slot_increments",
        "slot_increments_gradient",
    }
    assert_fits(launches, capability)
    for launch in launches:
        # A few bytes are the frame of a call; a spilled block would take hundreds.
        assert launch.resources()["STACK"] <= 64, (launch.name, launch.resources())


@pytest.mark.gpu
@pytest.mark.parametrize("case", [*CASES, BLOCKS, ((1, 2048, 4, 512), (1, 1))])
def test_compiled_weights_increments_and_gradients_are_those_of_the_definition(case):
    tensors = [tensor.cuda() for tensor in inputs(*case)]
    with filled_with_nan():
        own = with_gradients(memory_write, tensors)
    expected = with_gradients(memory_write_reference, [tensor.double() for tensor in tensors])
    assert "triton" in OPERATION.taken
    for actual, exact in zip(own, expected, strict=True):
        assert largest_difference(actual, exact) < 2e-5 * max(1.0, exact.abs().max().item())
