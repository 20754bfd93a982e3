"""Mamba-2's chunked scan computes its recurrence, and its gradients, at any size and from any state."""

import sys
from types import ModuleType

import pytest
import torch
from scan_support import (
    OPERATOR_RULES,
    check_against_reference,
    check_compilation,
    check_writing_of_fresh_memory,
    elements_kept,
    in_pieces,
    normals,
    with_gradients,
)
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from seqbench_kernels.dispatch import UnknownPathError, request_paths
from seqbench_kernels.ssd_scan import (
    OPERATION,
    backward_flops,
    chunk,
    cuda,
    forward_flops,
    ssd_scan,
    ssd_scan_chunked,
    ssd_scan_path,
    ssd_scan_reference,
)
from seqbench_kernels.ssd_scan.cpu import scan_forward
from seqbench_kernels.ssd_scan.gradient import scan_backward

NAMES = ("x", "dt", "A", "B", "C", "D", "initial_state")
# batch, length, heads, head_dim, groups, state
SIZES = [
    (1, 1, 1, 1, 1, 1),
    (2, 1, 6, 5, 3, 4),
    (3, 63, 4, 15, 2, 7),
    (2, 64, 3, 8, 1, 16),
    (2, 65, 3, 5, 3, 4),
    (2, 200, 2, 4, 1, 5),
    (40, 70, 2, 3, 1, 4),
]
SCAN, SCAN_BACKWARD = (getattr(torch.ops.seqbench, name).default for name in ("ssd_scan", "ssd_scan_backward"))


def scan_inputs(
    batch: int, length: int, heads: int, head_dim: int, groups: int, state: int, seed: int = 0
) -> list[Tensor]:
    normal = normals(seed)
    return [
        normal(batch, length, heads, head_dim),
        torch.nn.functional.softplus(normal(batch, length, heads) - 2),
        -normal(heads).exp(),
        normal(batch, length, groups, state),
        normal(batch, length, groups, state),
        normal(heads),
        normal(batch, heads, head_dim, state),
    ]


@pytest.mark.parametrize("has_state", [True, False])
@pytest.mark.parametrize("size", SIZES)
def test_values_and_all_gradients_equal_the_reference(size, has_state):
    inputs = scan_inputs(*size)[: 7 if has_state else 6]
    for dtype, tolerance in ((torch.float64, 1e-11), (torch.float32, 3e-5)):
        check_against_reference(ssd_scan_chunked, ssd_scan_reference, NAMES, inputs, dtype, tolerance)


def test_fp32_is_exact_where_a_chunk_forgets_everything_and_then_nothing():
    # The running sum of log decays is -20,000 after ten tokens, and differences of 1e-3 follow.
    inputs = scan_inputs(1, 60, 2, 4, 1, 5)
    inputs[1][:, :10] = 1000.0
    inputs[1][:, 10:] = 1e-3
    inputs[2].fill_(-2.0)
    inputs[0][:, :10] = 0
    inputs[6].zero_()
    outputs, _ = with_gradients(ssd_scan_chunked, inputs, torch.float32)
    expected, _ = with_gradients(ssd_scan_reference, inputs, torch.float64)
    assert ((outputs[0] - expected[0]).abs().max() / expected[0].abs().max()) < 1e-6


def test_growing_states_stay_finite_where_the_definition_does():
    inputs = scan_inputs(1, 64, 2, 3, 1, 4)
    inputs[2].fill_(1.0)
    inputs[1].fill_(1.0)
    check_against_reference(ssd_scan_chunked, ssd_scan_reference, NAMES, inputs, torch.float64, 1e-11)


def test_gradients_pass_gradcheck_through_outputs_and_final_state():
    inputs = [tensor.requires_grad_() for tensor in scan_inputs(2, 67, 2, 1, 1, 2)]
    assert torch.autograd.gradcheck(ssd_scan_chunked, inputs, fast_mode=True)
    small = [tensor.requires_grad_() for tensor in scan_inputs(2, 5, 4, 2, 2, 3)]
    assert torch.autograd.gradcheck(ssd_scan_chunked, small)
    assert torch.autograd.gradcheck(ssd_scan_reference, small)


@pytest.mark.parametrize("which", [0, 1])
def test_gradients_from_one_result_alone_equal_the_reference(which):
    inputs = [tensor.requires_grad_() for tensor in scan_inputs(2, 70, 4, 3, 2, 4)]
    # The final state depends on neither the output maps nor the direct path.
    leaves = [inputs[index] for index in ((0, 1, 2, 3, 6) if which else range(7))]
    actual, expected = (
        torch.autograd.grad(scan(*inputs)[which].square().sum(), leaves)
        for scan in (ssd_scan_chunked, ssd_scan_reference)
    )
    torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("cuts", [(1, 149), (64, 86), (65, 85), (149, 1), (2, 3, 145), (1,) * 6 + (144,)])
def test_a_sequence_cut_anywhere_and_continued_gives_the_same_values(cuts):
    inputs = scan_inputs(2, 150, 4, 3, 2, 5)
    torch.testing.assert_close(in_pieces(ssd_scan, inputs, cuts), ssd_scan(*inputs))


def test_a_step_size_of_zero_leaves_the_state_untouched():
    x, dt, A, B, C, D, state = scan_inputs(2, 90, 4, 3, 2, 5)
    dt[:, 50:] = 0
    _, final = ssd_scan(x, dt, A, B, C, D, state)
    _, at_50 = ssd_scan(x[:, :50], dt[:, :50], A, B[:, :50], C[:, :50], D, state)
    torch.testing.assert_close(final, at_50)


def test_without_an_initial_state_the_scan_starts_from_zero():
    for length in (1, 70):
        *inputs, state = scan_inputs(2, length, 4, 3, 2, 5)
        torch.testing.assert_close(ssd_scan(*inputs), ssd_scan(*inputs, torch.zeros_like(state)))


def test_inputs_are_left_unchanged_and_need_not_be_contiguous():
    inputs = scan_inputs(2, 70, 4, 3, 2, 5)
    strided = [tensor.transpose(0, -1).contiguous().transpose(0, -1) for tensor in inputs]
    copies = [tensor.clone() for tensor in inputs]
    expected, actual = (with_gradients(ssd_scan_chunked, values, torch.float64) for values in (inputs, strided))
    torch.testing.assert_close(actual, expected)
    assert all(torch.equal(tensor, copy) for tensor, copy in zip(inputs, copies, strict=True))


def test_half_precision_is_scanned_in_fp32_also_under_autocast():
    inputs = [tensor.bfloat16() for tensor in scan_inputs(2, 70, 4, 3, 2, 5)]
    expected = with_gradients(ssd_scan_chunked, [tensor.float() for tensor in inputs], torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        actual = with_gradients(ssd_scan, [tensor.float() for tensor in inputs], torch.float32)
        assert ssd_scan(*inputs)[0].dtype == torch.float32
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)


def test_every_element_of_fresh_memory_is_written_before_it_is_read():
    check_writing_of_fresh_memory(ssd_scan, scan_inputs(40, 70, 2, 3, 1, 4))


def test_how_the_batch_is_cut_changes_no_result(monkeypatch):
    inputs = scan_inputs(5, 70, 2, 3, 1, 4)
    expected = with_gradients(ssd_scan, inputs, torch.float64)
    monkeypatch.setattr(chunk, "_BUFFER_ELEMENTS", 2 * 2 * 64**2)
    torch.testing.assert_close(with_gradients(ssd_scan, inputs, torch.float64), expected)


def test_memory_kept_for_the_backward_pass_is_one_state_per_chunk_and_the_outputs():
    batch, length, heads, head_dim, groups, state = 2, 640, 4, 8, 1, 16
    inputs = [tensor.float().requires_grad_() for tensor in scan_inputs(batch, length, heads, head_dim, groups, state)]
    assert elements_kept(ssd_scan, inputs) == batch * heads * head_dim * (length + state * length // 64)


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("has_state", [True, False])
def test_the_operators_keep_torchs_rules(keep, has_state):
    *inputs, state = (tensor.requires_grad_(keep) for tensor in scan_inputs(2, 66, 2, 3, 1, 4))
    torch.library.opcheck(SCAN, (*inputs, state if has_state else None, keep), test_utils=OPERATOR_RULES[keep])
    *inputs, state = (tensor.detach() for tensor in (*inputs, state))
    before = state if has_state else None
    arguments = (inputs[0], before, *inputs, before, *SCAN(*inputs, before, True))
    torch.library.opcheck(SCAN_BACKWARD, arguments, test_utils=OPERATOR_RULES[False])


@pytest.mark.parametrize("length", [1, 66])
def test_a_compiled_scan_is_one_graph_with_the_same_values_and_gradients(length):
    check_compilation(ssd_scan, scan_inputs(2, length, 2, 3, 1, 4))


@pytest.mark.parametrize("has_state", [True, False])
@pytest.mark.parametrize("size", SIZES)
def test_flops_are_those_of_the_matrix_products_that_run(size, has_state):
    """Counted below the operators, whose own formula the counter would take for them."""
    batch, length, heads, head_dim, groups, state = size
    *inputs, initial = scan_inputs(*size)
    before = initial if has_state else None
    shape = length, heads, head_dim, groups, state, has_state
    with FlopCounterMode(display=False) as counter:
        saved = scan_forward(*inputs, before, True)
    assert counter.get_total_flops() == batch * forward_flops(*shape)
    for after in (initial, None):
        with FlopCounterMode(display=False) as counter:
            scan_backward(inputs[0], after, *inputs, before, *saved)
        assert counter.get_total_flops() == batch * backward_flops(*shape, after is not None)


def test_the_counter_sees_the_flops_of_the_operators():
    inputs = [tensor.requires_grad_() for tensor in scan_inputs(3, 150, 4, 3, 2, 5)]
    with FlopCounterMode(display=False) as counter:
        outputs, state = ssd_scan(*inputs)
    shape = 150, 4, 3, 2, 5
    assert counter.get_total_flops() == 3 * forward_flops(*shape, True)
    for loss, has_state_gradient in ((outputs.sum(), False), (outputs.sum() + state.sum(), True)):
        with FlopCounterMode(display=False) as counter:
            loss.backward(retain_graph=True)
        assert counter.get_total_flops() == 3 * backward_flops(*shape, True, has_state_gradient)


def test_the_path_that_is_asked_for_runs_and_is_noted():
    inputs = [tensor.requires_grad_() for tensor in scan_inputs(2, 9, 4, 3, 2, 5)]
    for path, node in (("cpu", "seqbench_ssd_scan"), ("reference", "Stack")):
        request_paths(f"ssd_scan={path}")
        OPERATION.taken.clear()
        outputs, _ = ssd_scan(*inputs)
        assert OPERATION.taken == {path}
        assert node.lower() in outputs.grad_fn.name().lower()


def test_a_path_that_cannot_serve_is_refused():
    request_paths("mamba_ssm")
    with pytest.raises(UnknownPathError, match="cannot serve cpu tensors of float64: its kernels are for CUDA"):
        ssd_scan(*scan_inputs(2, 9, 4, 3, 2, 5))


def test_shapes_that_do_not_fit_are_named():
    *inputs, state = scan_inputs(2, 5, 4, 3, 2, 5)
    with pytest.raises(ValueError, match=r"initial_state must be \(2, 4, 3, 5\)"):
        ssd_scan(*inputs, state.transpose(1, 2))
    with pytest.raises(ValueError, match="groups that divide the heads"):
        ssd_scan(inputs[0][:, :, :3], *inputs[1:])
    with pytest.raises(ValueError, match="at least one token"):
        ssd_scan(inputs[0][:, :0], *inputs[1:])


@pytest.fixture
def stand_in_for_mamba_ssm(monkeypatch):
    """The package's interface as published, over the reference."""

    def mamba_chunk_scan_combined(
        x, dt, A, B, C, chunk_size, D=None, z=None, dt_bias=None, initial_states=None, seq_idx=None, cu_seqlens=None,
        dt_softplus=False, dt_limit=(0.0, float("inf")), return_final_states=False, return_varlen_states=False,
    ):  # fmt: skip
        assert chunk_size & (chunk_size - 1) == 0 and return_final_states and not dt_softplus
        assert all(tensor.is_contiguous() for tensor in (x, dt, B, C))
        return ssd_scan_reference(x, dt, A, B, C, D, initial_states)

    combined = ModuleType("mamba_ssm.ops.triton.ssd_combined")
    combined.mamba_chunk_scan_combined = mamba_chunk_scan_combined
    for name in ("mamba_ssm", "mamba_ssm.ops", "mamba_ssm.ops.triton"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, combined.__name__, combined)


@pytest.mark.parametrize("has_state", [True, False])
def test_the_cuda_kernels_are_called_with_their_own_interface(stand_in_for_mamba_ssm, has_state):
    inputs = scan_inputs(2, 17, 4, 3, 2, 5)[: 7 if has_state else 6]
    torch.testing.assert_close(cuda.ssd_scan_mamba_ssm(*inputs), ssd_scan_reference(*inputs))


def test_the_path_taken_is_told_in_words(monkeypatch):
    assert ssd_scan_path("cpu") == "chunked scan by torch's matrix products"
    monkeypatch.setattr(cuda, "find_spec", lambda name: object())
    assert ssd_scan_path("cpu") == "chunked scan by torch's matrix products"
    assert "mamba_ssm" in ssd_scan_path(torch.device("cuda"))


def test_the_cases_that_are_timed_run():
    for name, build in OPERATION.cases(torch.device("cpu")).items():
        x, dt, A, B, *_ = build()
        assert name == f"{x.shape[0]} x {x.shape[1]} tokens, {x.shape[2]} heads of {x.shape[3]}, state {B.shape[3]}"
        assert dt.requires_grad and dt.min() > 0 and A.max() < 0


@pytest.mark.gpu
@pytest.mark.parametrize("has_state", [True, False])
def test_the_paths_on_a_gpu_equal_the_reference_on_the_cpu(has_state):
    inputs = scan_inputs(2, 300, 8, 32, 2, 16)[: 7 if has_state else 6]
    expected = with_gradients(ssd_scan_reference, inputs, torch.float64)
    device = torch.device("cuda")
    for path in OPERATION.available(device, torch.float32):
        request_paths(f"ssd_scan={path}")
        actual = with_gradients(ssd_scan, [tensor.to(device) for tensor in inputs], torch.float32)
        # mamba_ssm multiplies in TF32: ten bits of mantissa.
        tolerance = 1e-2 if path == "mamba_ssm" else 1e-4
        for one, other in zip(actual[0] + actual[1], expected[0] + expected[1], strict=True):
            assert (one.cpu() - other).abs().max() < tolerance * other.abs().max().clamp(min=1), path
