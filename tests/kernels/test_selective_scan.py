"""The selective scan computes Mamba's recurrence, and its gradients, at any size and from any state."""

import sys
from types import ModuleType

import pytest
import torch
from scan_support import check_against_reference, elements_kept, in_pieces, normals, with_gradients
from torch import Tensor

from seqbench_kernels.selective_scan import (
    cuda,
    selective_scan,
    selective_scan_loop,
    selective_scan_path,
    selective_scan_reference,
)

NAMES = ("u", "dt", "A", "B", "C", "D", "initial_state")
SIZES = [(1, 1, 1, 1), (2, 1, 60, 16), (3, 63, 60, 5), (2, 130, 7, 16), (4, 200, 128, 16), (9, 10, 600, 16)]


def scan_inputs(batch: int, length: int, channels: int, state: int, seed: int = 0) -> list[Tensor]:
    normal = normals(seed)
    step_sizes = torch.nn.functional.softplus(normal(batch, length, channels) - 2)
    decay_rates = -normal(channels, state).exp()
    maps = normal(batch, length, state), normal(batch, length, state)
    return [
        normal(batch, length, channels),
        step_sizes,
        decay_rates,
        *maps,
        normal(channels),
        normal(batch, channels, state),
    ]


@pytest.mark.parametrize("size", SIZES)
def test_values_and_all_gradients_equal_the_reference(size):
    inputs = scan_inputs(*size)
    for dtype, tolerance in ((torch.float64, 1e-11), (torch.float32, 3e-5)):
        check_against_reference(selective_scan_loop, selective_scan_reference, NAMES, inputs, dtype, tolerance)


def test_gradients_pass_gradcheck_through_outputs_and_final_state():
    inputs = [tensor.requires_grad_() for tensor in scan_inputs(2, 19, 3, 2)]
    assert torch.autograd.gradcheck(selective_scan_loop, inputs)


def test_gradients_reach_the_past_through_the_final_state_alone():
    inputs = scan_inputs(1, 20, 3, 2)
    gradients = []
    for scan in (selective_scan_loop, selective_scan_reference):
        leaves = [tensor.clone().requires_grad_() for tensor in inputs]
        gradients.append(torch.autograd.grad(scan(*leaves)[1].square().sum(), [leaves[0], leaves[6]]))
    torch.testing.assert_close(gradients[0], gradients[1])


@pytest.mark.parametrize("cuts", [(1, 99), (50, 50), (64, 36), (99, 1), (2, 3, 95)])
def test_a_sequence_cut_anywhere_and_continued_gives_the_same_values(cuts):
    inputs = scan_inputs(2, 100, 6, 4)
    torch.testing.assert_close(in_pieces(selective_scan, inputs, cuts), selective_scan(*inputs))


def test_a_step_size_of_zero_leaves_the_state_untouched():
    u, dt, A, B, C, D, state = scan_inputs(2, 40, 6, 4)
    dt[:, 25:] = 0
    _, final = selective_scan(u, dt, A, B, C, D, state)
    _, at_25 = selective_scan(u[:, :25], dt[:, :25], A, B[:, :25], C[:, :25], D, state)
    assert torch.equal(final, at_25)


def test_without_an_initial_state_the_scan_starts_from_zero():
    *inputs, state = scan_inputs(2, 33, 6, 4)
    for actual, expected in zip(selective_scan(*inputs), selective_scan(*inputs, torch.zeros_like(state)), strict=True):
        assert torch.equal(actual, expected)


def test_inputs_are_left_unchanged_and_need_not_be_contiguous():
    inputs = scan_inputs(2, 33, 6, 4)
    strided = [tensor.transpose(0, 1).contiguous().transpose(0, 1) if tensor.dim() > 1 else tensor for tensor in inputs]
    copies = [tensor.clone() for tensor in inputs]
    expected, actual = (with_gradients(selective_scan_loop, values, torch.float64) for values in (inputs, strided))
    torch.testing.assert_close(actual, expected)
    assert all(torch.equal(tensor, copy) for tensor, copy in zip(inputs, copies, strict=True))


def test_half_precision_is_scanned_in_fp32_also_under_autocast():
    inputs = [tensor.bfloat16() for tensor in scan_inputs(2, 50, 8, 4)]
    expected = selective_scan_loop(*(tensor.float() for tensor in inputs))
    with torch.autocast("cpu", torch.bfloat16):
        actual = selective_scan(*inputs)
    assert actual[0].dtype == torch.float32
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)


def test_memory_kept_for_the_backward_pass_is_a_fraction_of_all_states():
    inputs = [tensor.float().requires_grad_() for tensor in scan_inputs(2, 1024, 64, 16)]
    assert elements_kept(selective_scan, inputs) <= 2 * 1024 * 64 * 16 / 16


def test_shapes_that_do_not_fit_are_named():
    *inputs, state = scan_inputs(2, 5, 6, 4)
    with pytest.raises(ValueError, match=r"initial_state must be \(2, 6, 4\)"):
        selective_scan(*inputs, state.transpose(1, 2))
    with pytest.raises(ValueError, match="at least one token"):
        selective_scan(inputs[0][:, :0], *inputs[1:])


@pytest.fixture
def stand_in_for_mamba_ssm(monkeypatch):
    """The package's interface as published, over the reference: (batch, channels, length), no state gradient."""

    def selective_scan_fn(
        u, delta, A, B, C, D=None, z=None, delta_bias=None, delta_softplus=False, return_last_state=False
    ):
        assert z is None and delta_bias is None and not delta_softplus and return_last_state
        arguments = (tensor.transpose(1, 2) for tensor in (u, delta, B, C))
        u, delta, B, C = arguments
        outputs, state = selective_scan_reference(u, delta, A, B, C, D)
        return outputs.transpose(1, 2), state.detach()

    interface = ModuleType("mamba_ssm.ops.selective_scan_interface")
    interface.selective_scan_fn = selective_scan_fn
    for name in ("mamba_ssm", "mamba_ssm.ops"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, interface.__name__, interface)


def test_the_cuda_kernel_is_called_with_its_own_layout(stand_in_for_mamba_ssm):
    *inputs, _ = scan_inputs(2, 17, 6, 4)
    torch.testing.assert_close(cuda.selective_scan_mamba_ssm(*inputs), selective_scan_reference(*inputs))


def test_the_cuda_kernel_refuses_a_gradient_that_it_would_lose(stand_in_for_mamba_ssm):
    inputs = [tensor.requires_grad_() for tensor in scan_inputs(2, 17, 6, 4)[:-1]]
    outputs, state = cuda.selective_scan_mamba_ssm(*inputs)
    outputs.sum().backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="no gradient for its final state"):
        state.sum().backward()


def test_the_path_taken_is_told_in_words(monkeypatch):
    assert selective_scan_path("cpu") == "selective scan by a chunked torch loop"
    monkeypatch.setattr(cuda, "find_spec", lambda name: object())
    assert selective_scan_path("cpu") == "selective scan by a chunked torch loop"
    assert "mamba_ssm" in selective_scan_path(torch.device("cuda"))
