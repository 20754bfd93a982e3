"""The selective scan as an operator of torch: one node for torch.compile, and a path that can be asked for."""

import pytest
import torch
from scan_support import OPERATOR_RULES, check_compilation, check_writing_of_fresh_memory, with_gradients
from test_selective_scan import NAMES, scan_inputs
from torch.utils.flop_counter import FlopCounterMode

from seqbench_kernels.dispatch import UnknownPathError, request_paths
from seqbench_kernels.selective_scan import OPERATION, cpu, selective_scan, selective_scan_reference

SCAN, SCAN_BACKWARD = (
    getattr(torch.ops.seqbench, name).default for name in ("selective_scan", "selective_scan_backward")
)


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("has_state", [True, False])
def test_the_operators_keep_torchs_rules(keep, has_state):
    *inputs, state = (tensor.requires_grad_(keep) for tensor in scan_inputs(2, 19, 6, 4))
    torch.library.opcheck(SCAN, (*inputs, state if has_state else None, keep), test_utils=OPERATOR_RULES[keep])
    *inputs, state = (tensor.detach() for tensor in (*inputs, state))
    _, _, starts = SCAN(*inputs, state, True)
    torch.library.opcheck(
        SCAN_BACKWARD, (inputs[0], state if has_state else None, *inputs, starts), test_utils=OPERATOR_RULES[False]
    )


@pytest.mark.parametrize("length", [1, 19])
def test_a_compiled_scan_is_one_graph_with_the_same_values_and_gradients(length):
    check_compilation(selective_scan, scan_inputs(2, length, 6, 4))


@pytest.mark.parametrize("has_state", [True, False])
def test_a_single_token_without_gradients_equals_the_reference(has_state):
    *inputs, state = scan_inputs(3, 1, 7, 5)
    arguments = [*inputs, state] if has_state else inputs
    torch.testing.assert_close(selective_scan(*arguments), selective_scan_reference(*arguments))


def test_every_element_of_fresh_memory_is_written_before_it_is_read():
    check_writing_of_fresh_memory(selective_scan, scan_inputs(9, 19, 600, 16))


@pytest.mark.parametrize(("buffer", "step"), [(1, 1), (2**10, 2**6), (2**18, 2**15)])
def test_how_the_work_is_cut_changes_no_result(monkeypatch, buffer, step):
    monkeypatch.setattr(cpu, "_BUFFER_ELEMENTS", buffer)
    monkeypatch.setattr(cpu, "_STEP_ELEMENTS", step)
    inputs = scan_inputs(5, 30, 6, 4)
    actual, expected = (
        with_gradients(scan, inputs, torch.float64) for scan in (selective_scan, selective_scan_reference)
    )
    torch.testing.assert_close(actual, expected)


def test_gradients_of_the_outputs_alone_equal_the_reference():
    inputs = [tensor.requires_grad_() for tensor in scan_inputs(2, 30, 6, 4)]
    actual, expected = (
        torch.autograd.grad(scan(*inputs)[0].square().sum(), inputs)
        for scan in (selective_scan, selective_scan_reference)
    )
    for name, one, other in zip(NAMES, actual, expected, strict=True):
        torch.testing.assert_close(one, other, msg=lambda text, name=name: f"{name}: {text}")


def test_the_path_that_is_asked_for_runs_and_is_noted():
    inputs = scan_inputs(2, 9, 6, 4)
    for path, node in (("cpu", "seqbench_selective_scan"), ("reference", "Stack")):
        request_paths(f"selective_scan={path}")
        OPERATION.taken.clear()
        outputs, _ = selective_scan(*(tensor.requires_grad_() for tensor in inputs))
        assert OPERATION.taken == {path}
        assert node.lower() in outputs.grad_fn.name().lower()


def test_a_path_that_cannot_serve_is_refused():
    request_paths("mamba_ssm")
    with pytest.raises(UnknownPathError, match="cannot serve cpu tensors of float64: it is a CUDA kernel"):
        selective_scan(*scan_inputs(2, 9, 6, 4))


def test_half_precision_under_autocast_has_gradients_of_fp32():
    inputs = [tensor.float() for tensor in scan_inputs(2, 30, 6, 4)]
    expected = with_gradients(selective_scan, inputs, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        actual = with_gradients(selective_scan, inputs, torch.float32)
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)


def test_the_flop_counter_sees_no_matrix_product_at_any_length():
    for length in (1, 9):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            selective_scan(*scan_inputs(2, length, 6, 4))
        assert counter.get_total_flops() == 0


def test_the_cases_that_are_timed_run():
    for name, build in OPERATION.cases(torch.device("cpu")).items():
        u, dt, A, *_ = build()
        assert name == f"{u.shape[0]} x {u.shape[1]} tokens, {u.shape[2]} channels, state {A.shape[1]}"
        assert dt.requires_grad and dt.min() > 0 and A.max() < 0


@pytest.mark.gpu
@pytest.mark.parametrize("has_state", [True, False])
def test_the_paths_on_a_gpu_equal_the_reference_on_the_cpu(has_state):
    inputs = scan_inputs(2, 300, 64, 16)[: 7 if has_state else 6]
    expected = selective_scan_reference(*inputs)
    expected_gradients = with_gradients(lambda *each: selective_scan_reference(*each)[:1], inputs, torch.float64)[1]
    device = torch.device("cuda")
    for path in OPERATION.available(device, torch.float32):
        request_paths(f"selective_scan={path}")
        there = [tensor.to(device, torch.float32) for tensor in inputs]
        # Gradients of the outputs alone: mamba_ssm has none for the final state.
        gradients = with_gradients(lambda *each: selective_scan(*each)[:1], there, torch.float32)[1]
        for one, other in zip([*selective_scan(*there), *gradients], [*expected, *expected_gradients], strict=True):
            assert (one.cpu() - other).abs().max() < 1e-4 * other.abs().max().clamp(min=1), path
