"""The Triton path of the memory read, against the definition in fp64."""

import math

import pytest
import torch
from aot_compilation import assert_fits, compiling_for
from fresh_memory import filled_with_nan
from torch import Tensor

from seqbench_kernels.dispatch import request_paths
from seqbench_kernels.memory_read import OPERATION, memory_read, triton_path

KERNELS = {"key_scores", "slot_softmax", "mix_slots", "score_gradients", "key_gradients", "slot_gradients"}
NAMES = ("values", "softmax weights", "query", "slots", "weight", "bias")
# Tokens, slots, heads, angles: numbers that fill no block; slots that are no power of two; several blocks of columns
# and of tokens, with a remainder; more slots than a block of tokens has rows.
AWKWARD = [(5, 4, 2, 16), (1, 1, 1, 1), (3, 3, 2, 7), (2, 5, 3, 24), (2, 3, 1, 70), (33, 4, 1, 120), (2, 130, 1, 5)]
PUBLISHED = (4, 4, 512)
# Relative to the size of a result: rounding of fp32 sums, and of bf16 operands (2^-9 each, some of them twice).
TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 1e-2}


def definition(query: Tensor, slots: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """PMNet (arXiv 2605.13370), memory read: values (tokens, R M) and softmax weights (tokens, R, N)."""
    heads, size = query.shape[1:]
    keys, values = ((slots @ weight.T) + bias).unflatten(-1, (2, heads, size)).unbind(-3)
    angles = math.pi * query.tanh().unsqueeze(1) - math.pi * keys.tanh()
    softmax_weights = (angles.cos().sum(dim=-1) / math.sqrt(size)).softmax(dim=1)
    return (softmax_weights.unsqueeze(-1) * values).sum(dim=1).flatten(1), softmax_weights.transpose(1, 2)


def arguments(
    tokens: int, slots: int, heads: int, size: int, dtype: torch.dtype, device: str = "cpu", spread: float = 1.0
) -> tuple[Tensor, ...]:
    """Query, slots, weight, bias, and a gradient of the values."""
    angles = 2 * math.pi * torch.rand(tokens, slots, size)
    weight = torch.randn(2 * heads * size, 2 * size) * spread / math.sqrt(size)
    bias, query = torch.randn(2 * heads * size) * 0.3, spread * torch.randn(tokens, heads, size)
    phasors = torch.cat([angles.sin(), angles.cos()], dim=-1).to(device)
    query, weight, bias = (tensor.to(device, dtype) for tensor in (query, weight, bias))
    return query, phasors, weight, bias, torch.randn(tokens, heads * size).to(device, dtype)


def run(query: Tensor, slots: Tensor, weight: Tensor, bias: Tensor, gradient: Tensor) -> tuple[Tensor, ...]:
    values, softmax_weights = triton_path.read_forward(query, slots, weight, bias)
    gradients = triton_path.read_backward(gradient, query, slots, weight, bias, softmax_weights)
    return values, softmax_weights, *gradients


def assert_agrees(case: tuple[Tensor, ...], results: tuple[Tensor, ...], tolerance: float | None = None) -> None:
    """Values, softmax weights and all four gradients are those of the definition in fp64, in the promised dtypes."""
    query, slots, weight, bias, gradient = case
    leaves = [tensor.double().requires_grad_() for tensor in case[:4]]
    exact = definition(*leaves)
    expected = [*exact, *torch.autograd.grad(exact[0], leaves, gradient.double())]
    dtypes = (weight.dtype, torch.float32, query.dtype, slots.dtype, weight.dtype, bias.dtype)
    for name, result, wanted, dtype in zip(NAMES, results, expected, dtypes, strict=True):
        assert result.dtype == dtype, name
        assert result.shape == wanted.shape, name
        # One slot has the weight 1 whatever its score, and then nothing reaches query and keys: 1e-6 beside 0.
        error = (result.double() - wanted).norm() / wanted.norm().clamp(min=1.0)
        assert error <= (tolerance or TOLERANCE[weight.dtype]), f"{name}: {error:.1e}"


@pytest.mark.interpreted
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("sizes", AWKWARD)
def test_values_and_all_gradients_are_those_of_the_definition(
    sizes: tuple[int, int, int, int], dtype: torch.dtype
) -> None:
    case = arguments(*sizes, dtype)
    with filled_with_nan():
        results = run(*case)
    assert_agrees(case, results)


@pytest.mark.interpreted
def test_a_bf16_weight_takes_an_fp32_query_and_bias() -> None:
    query, slots, weight, bias, gradient = arguments(3, 4, 2, 8, torch.bfloat16)
    case = (query.float(), slots, weight, bias.float(), gradient)
    assert_agrees(case, run(*case))


@pytest.mark.interpreted
def test_angles_that_phi_saturates_stay_exact() -> None:
    case = arguments(4, 4, 2, 8, torch.float32, spread=40.0)
    with filled_with_nan():
        results = run(*case)
    # Keys of about 100 before phi: where phi has a slope, their rounding in fp32 is an error of 1e-5.
    assert_agrees(case, results, tolerance=2e-5)


@pytest.mark.interpreted
def test_tokens_taken_in_chunks_give_the_same() -> None:
    case = arguments(7, 3, 2, 8, torch.float32)
    # Two tokens a chunk, so that the last one holds a single token.
    triton_path._CHUNK_BYTES = 2 * 3 * 2 * 8 * 4
    try:
        with filled_with_nan():
            results = run(*case)
    finally:
        triton_path._CHUNK_BYTES = 2**26
    assert_agrees(case, results)


@pytest.mark.interpreted
def test_strided_arguments_give_the_same() -> None:
    case = arguments(4, 4, 2, 8, torch.float32)
    strided = tuple(torch.stack([tensor, tensor.neg()], dim=-1)[..., 0] for tensor in case)
    assert not any(tensor.is_contiguous() for tensor in strided)
    assert_agrees(case, run(*strided))


@pytest.mark.interpreted
def test_no_tokens_give_no_values_and_no_gradient() -> None:
    values, softmax_weights, *gradients = run(*arguments(0, 4, 2, 8, torch.float32))
    assert values.shape == (0, 16)
    assert softmax_weights.shape == (0, 2, 4)
    assert all(not gradient.any() for gradient in gradients)


@pytest.mark.interpreted
@pytest.mark.parametrize("under_autocast", [False, True])
def test_the_operation_takes_this_path_when_asked_and_differentiates_through_it(under_autocast: bool) -> None:
    query, slots, weight, bias, gradient = arguments(6, 4, 2, 8, torch.float32)
    leaves = [tensor.requires_grad_() for tensor in (query, slots, weight, bias)]
    exact = definition(*(tensor.double() for tensor in leaves))[0]
    expected = torch.autograd.grad(exact, leaves, gradient.double())
    request_paths("memory_read=triton")
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=under_autocast):
            values = memory_read(query.unflatten(0, (2, 3)), slots.unflatten(0, (2, 3)), weight, bias)
    finally:
        request_paths(None)
    assert "triton" in OPERATION.taken
    results = torch.autograd.grad(values, leaves, gradient.unflatten(0, (2, 3)).to(values.dtype))
    tolerance = TOLERANCE[torch.bfloat16 if under_autocast else torch.float32]
    for result, wanted in zip((values.flatten(0, 1), *results), (exact, *expected), strict=True):
        assert (result.double() - wanted).norm() <= tolerance * wanted.norm()


@pytest.mark.parametrize(("dtype", "capability"), [(torch.float32, 90), (torch.bfloat16, 80)])
def test_small_models_compile_for_gpus(dtype: torch.dtype, capability: int) -> None:
    with compiling_for(capability) as launches:
        run(*arguments(5, 3, 2, 7, dtype))
    assert {launch.name for launch in launches} == KERNELS
    assert_fits(launches, capability)


@pytest.mark.slow
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("sizes", [PUBLISHED, (4, 4, 32), (16, 2, 320), (130, 1, 16)])
def test_published_and_awkward_sizes_compile_for_gpus_without_spills(
    sizes: tuple[int, int, int], dtype: torch.dtype, capability: int
) -> None:
    with compiling_for(capability) as launches:
        run(*arguments(64, *sizes, dtype))
    assert_fits(launches, capability)
    for launch in launches:
        # A few bytes are the frame of a call; a spilled block would take hundreds.
        assert launch.resources()["STACK"] <= 64, (launch.name, launch.resources())
    if sizes == PUBLISHED and dtype == torch.bfloat16 and capability == 90:
        # Two blocks of 8 warps on a multiprocessor: half of its 65,536 registers and of its shared memory for each.
        for launch in launches:
            if launch.name in ("key_scores", "key_gradients"):
                assert launch.resources()["REG"] * launch.num_warps * 32 <= 2**15
                assert launch.shared_bytes <= 227 * 1024 // 2 - 1024


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("sizes", [*AWKWARD, (300, *PUBLISHED)])
def test_compiled_values_and_gradients_are_those_of_the_definition(
    sizes: tuple[int, int, int, int], dtype: torch.dtype
) -> None:
    case = arguments(*sizes, dtype, device="cuda")
    with filled_with_nan():
        results = run(*case)
    assert_agrees(case, results)


@pytest.mark.gpu
def test_on_a_gpu_little_is_kept_for_the_backward_pass() -> None:
    query, slots, weight, bias, _ = arguments(4096, *PUBLISHED, torch.bfloat16, device="cuda")
    before = torch.cuda.memory_allocated()
    kept = triton_path.read_forward(query, slots, weight, bias)
    # The values and 16 weights a token; keys in bf16 alone would take 16 KiB a token.
    assert torch.cuda.memory_allocated() - before <= 4096 * (2048 * 2 + 16 * 4) + 1024
    assert kept[0].isfinite().all()
