"""Ridge solves by chunks give the numbers and gradients of their definition, token by token."""

from collections.abc import Callable

import pytest
import torch
from scan_support import OPERATOR_RULES, check_compilation, elements_kept, normals, with_gradients
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from seqbench_kernels.dispatch import request_paths
from seqbench_kernels.ridge_solves import (
    backward_flops,
    forward_flops,
    ridge_solves,
    ridge_solves_chunked,
    ridge_solves_path,
    ridge_solves_reference,
)
from seqbench_kernels.ridge_solves.reference import chebyshev

EXACT, STEPS = 0, 30
SOLVES = torch.ops.seqbench.ridge_solves.default
# batch, length, heads, size: of one token, and around chunks of 16.
SIZES = [(1, 1, 1, 1), (2, 1, 3, 4), (2, 15, 2, 3), (1, 16, 2, 4), (2, 33, 2, 3)]


def of(solves: Callable[..., tuple[Tensor, Tensor]], iterations: int, ridge: float = 0.02) -> Callable[..., tuple]:
    """Of tensors alone; the state before is a root of it, which keeps it symmetric and without negative eigenvalues."""

    def function(q: Tensor, k: Tensor, g: Tensor, b: Tensor, fixed: Tensor, root: Tensor) -> tuple[Tensor, Tensor]:
        # Taken along in both cases, so that every input has a gradient.
        chosen = fixed if iterations == EXACT else ridge
        solution, state = solves(q, k, g, b, chosen, iterations, root @ root.mT)
        return solution + 0 * fixed.sum(), state

    return function


def inputs_of(batch: int, length: int, heads: int, size: int) -> list[Tensor]:
    normal = normals(0)
    query, key = (normal(batch, length, heads, size) for _ in range(2))
    log_decay, strength = -normal(batch, length, heads).abs() / 3, normal(batch, length, heads).sigmoid()
    return [query, key, log_decay, strength, normal(heads, size).abs() + 0.25, normal(batch, heads, size, size)]


@pytest.mark.parametrize("iterations", [EXACT, STEPS])
@pytest.mark.parametrize("size", SIZES)
def test_values_and_all_gradients_equal_the_reference(size, iterations):
    expected = with_gradients(of(ridge_solves_reference, iterations), inputs_of(*size), torch.float64)
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 2e-4)):
        actual = with_gradients(of(ridge_solves_chunked, iterations), inputs_of(*size), dtype)
        for one, other in zip(actual[0] + actual[1], expected[0] + expected[1], strict=True):
            assert one.dtype == dtype and one.shape == other.shape
            assert (one - other).abs().max() / other.abs().max().clamp(min=1) < tolerance


@pytest.mark.parametrize("length", [4, 18])
def test_gradients_of_exact_solves_pass_gradcheck(length):
    inputs = [tensor.requires_grad_() for tensor in inputs_of(2, length, 1, 2)]
    for solves in (ridge_solves_chunked, ridge_solves_reference):
        assert torch.autograd.gradcheck(of(solves, EXACT), inputs, fast_mode=length > 4)


@pytest.mark.parametrize("length", [4, 18])
def test_implicit_gradients_pass_gradcheck_where_the_steps_have_converged(length):
    """A ridge of a fifth of the norm has converged to rounding after 60 steps, and there the two gradients are one."""
    inputs = [tensor.requires_grad_() for tensor in inputs_of(2, length, 1, 2)]
    for solves in (ridge_solves_chunked, ridge_solves_reference):
        assert torch.autograd.gradcheck(of(solves, 60, ridge=0.2), inputs, fast_mode=length > 4)


def test_few_steps_have_the_implicit_gradient_and_not_the_one_through_the_steps():
    """After 3 steps the gradient of q is those 3 steps on the gradient of x, and that of H is -y x^T and the norm's."""
    query, key, _, _, _, root = inputs_of(1, 1, 1, 3)
    state, iterations, ridge = root @ root.mT, 3, 0.02
    zero = torch.zeros(1, 1, 1, dtype=torch.float64)
    query, state = query.requires_grad_(), state.requires_grad_()
    for solves in (ridge_solves_chunked, ridge_solves_reference):
        solution, _ = solves(query, key, zero, zero, ridge, iterations, state)
        weights = normals(3)(*solution.shape)
        by_query, by_state = torch.autograd.grad(solution, (query, state), weights)
        x, y = (
            chebyshev(state.detach()[0, 0], right[0, 0, 0], ridge, iterations) for right in (query.detach(), weights)
        )
        torch.testing.assert_close(solution[0, 0, 0].detach(), x)
        torch.testing.assert_close(by_query[0, 0, 0], y)
        expected = -torch.outer(y, x) - ridge * (y @ x) * state.detach()[0, 0] / state.detach().norm()
        torch.testing.assert_close(by_state[0, 0], expected)


def test_steps_converge_to_the_exact_solve_at_the_rate_of_their_condition_number():
    """By Chebyshev's bound, 2 (sqrt(51) - 1)^n / (sqrt(51) + 1)^n for a ridge of 0.02."""
    root = normals(0)(6, 6)
    state, right = root @ root.T, normals(1)(6)
    exact = torch.linalg.solve(state + 0.02 * state.norm() * torch.eye(6, dtype=torch.float64), right)
    for iterations in (5, 30, 120):
        bound = 2 * ((51**0.5 - 1) / (51**0.5 + 1)) ** iterations
        found = chebyshev(state, right, 0.02, iterations)
        # In the norm of the system, which the bound is of; its condition number takes it to the plain one.
        assert (found - exact).norm() / exact.norm() < 51 * bound + 1e-13
    assert (chebyshev(state, right, 0.02, 5) - exact).norm() > 1e-3 * exact.norm()


@pytest.mark.parametrize("iterations", [EXACT, STEPS])
def test_keys_of_zero_leave_everything_finite(iterations):
    """Before the first write the memory is zero, and its norm too."""
    query, key, log_decay, strength, ridge, root = inputs_of(2, 5, 2, 3)
    key[:, :3], strength[:, 3] = 0, 0
    for solves in (ridge_solves_chunked, ridge_solves_reference):
        inputs = [query, key, log_decay, strength, ridge, torch.zeros_like(root)]
        outputs, gradients = with_gradients(of(solves, iterations), inputs, torch.float64)
        assert all(tensor.isfinite().all() for tensor in outputs + gradients)


@pytest.mark.parametrize("iterations", [EXACT, STEPS])
def test_strong_decays_are_exact(iterations):
    inputs = inputs_of(1, 40, 1, 3)
    inputs[2][:, ::7] = -1e3
    expected = with_gradients(of(ridge_solves_reference, iterations), inputs, torch.float64)
    actual = with_gradients(of(ridge_solves_chunked, iterations), inputs, torch.float64)
    torch.testing.assert_close(actual, expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("cuts", [(1, 32), (16, 17), (7, 9, 17), (32, 1)])
@pytest.mark.parametrize("iterations", [EXACT, STEPS])
def test_a_sequence_cut_anywhere_and_continued_gives_the_same(iterations, cuts):
    *tokens, ridge, root = inputs_of(2, 33, 2, 3)
    chosen, state = ridge if iterations == EXACT else 0.02, root @ root.mT
    expected, parts = ridge_solves(*tokens, chosen, iterations, state), []
    for piece in zip(*(tensor.split(cuts, dim=1) for tensor in tokens), strict=True):
        solution, state = ridge_solves(*piece, chosen, iterations, state)
        parts.append(solution)
    torch.testing.assert_close((torch.cat(parts, dim=1), state), expected)


def test_a_token_of_no_strength_and_no_decay_leaves_the_state():
    query, key, log_decay, strength, ridge, root = inputs_of(2, 9, 2, 3)
    log_decay[:, 5:], strength[:, 5:] = 0, 0
    _, whole = ridge_solves(query, key, log_decay, strength, ridge, initial_state=root @ root.mT)
    first = (tensor[:, :5] for tensor in (query, key, log_decay, strength))
    torch.testing.assert_close(whole, ridge_solves(*first, ridge, initial_state=root @ root.mT)[1])


def test_what_is_kept_for_the_backward_pass_grows_in_proportion_and_by_no_state_a_token():
    def kept(length: int) -> int:
        inputs = [tensor.requires_grad_() for tensor in inputs_of(1, length, 1, 8)]
        return elements_kept(lambda *t: ridge_solves_chunked(*t[:4], t[4]), inputs)

    short, middle, long = (kept(length) for length in (64, 128, 256))
    assert long - middle == 2 * (middle - short)
    # Of 64 tokens the solutions and the states before 4 chunks, and not 64 states.
    assert middle - short <= 64 * 8 + 4 * 64


@pytest.mark.parametrize("iterations", [EXACT, STEPS])
def test_flops_are_those_of_the_formula(iterations):
    """Exact: a third of the cube by Cholesky and two triangles; else a product of matrix and vector a step."""
    inputs = [tensor.requires_grad_() for tensor in inputs_of(2, 20, 3, 6)]
    ridge = inputs[4] if iterations == EXACT else 0.02
    with FlopCounterMode(display=False) as counter:
        solution, _ = ridge_solves_chunked(*inputs[:4], ridge, iterations)
    of_a_token = 2 * 30 * 36 if iterations else 72 + 72
    expected = 3 * (2 * (16 * 16 + 4 * 4) * 36 + 20 * of_a_token)
    assert counter.get_total_flops() == 2 * forward_flops(20, 3, 6, iterations) == 2 * expected
    with FlopCounterMode(display=False) as counter:
        solution.sum().backward()
    assert counter.get_total_flops() == 2 * backward_flops(20, 3, 6, iterations)


@pytest.mark.parametrize("iterations", [EXACT, STEPS])
def test_the_operator_keeps_the_rules_of_torch_and_compiles_to_one_graph(iterations):
    query, key, log_decay, strength, ridge, root = (t.requires_grad_() for t in inputs_of(2, 5, 2, 3))
    fixed, relative = (ridge, 0.0) if iterations == EXACT else (None, 0.02)
    arguments = (query, key, log_decay, strength, fixed, relative, iterations, root)
    rules = [rule for rule in OPERATOR_RULES[True] if rule != "test_aot_dispatch_dynamic"]
    torch.library.opcheck(SOLVES, arguments, test_utils=rules)
    check_compilation(of(ridge_solves_chunked, iterations), inputs_of(2, 5, 2, 3))


def test_half_precision_is_widened_and_the_reference_can_be_asked_for():
    query, key, log_decay, strength, ridge, _ = inputs_of(1, 4, 2, 3)
    half = [tensor.bfloat16() for tensor in (query, key, log_decay, strength, ridge)]
    assert all(tensor.dtype == torch.float32 for tensor in ridge_solves(*half))
    single = [tensor.float() for tensor in (query, key, log_decay, strength, ridge)]
    expected = ridge_solves(*single)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(ridge_solves(*single), expected)
    request_paths("ridge_solves=reference")
    assert "reference" in ridge_solves_path("cpu")
    torch.testing.assert_close(ridge_solves(*single), expected)
    request_paths(None)


def test_arguments_that_do_not_fit_are_named():
    query, key, log_decay, strength, ridge, _ = inputs_of(2, 4, 2, 3)
    with pytest.raises(ValueError, match="strength must be"):
        ridge_solves(query, key, log_decay, strength[:, :2], ridge)
    with pytest.raises(ValueError, match="ridge must be"):
        ridge_solves(query, key, log_decay, strength, ridge[:1])
    with pytest.raises(ValueError, match="one iteration or more"):
        ridge_solves(query, key, log_decay, strength, 0.02)
    with pytest.raises(ValueError, match="solved exactly"):
        ridge_solves(query, key, log_decay, strength, ridge, 30)
    with pytest.raises(ValueError, match="at least one token"):
        ridge_solves(*(tensor[:, :0] for tensor in (query, key, log_decay, strength)), ridge)
