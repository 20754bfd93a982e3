"""Scans over groups as operators of torch: one node each for torch.compile, autocast without effect."""

import pytest
import torch
from model_support import normal
from test_phase_scan import case, gradients
from torch.utils.flop_counter import FlopCounterMode

from seqbench_kernels.grouped_sum import OPERATION as GROUPED_SUM
from seqbench_kernels.grouped_sum import grouped_sum
from seqbench_kernels.phase_scan import OPERATION as PHASE_SCAN
from seqbench_kernels.phase_scan import pack_steps, phase_scan, radians_to_steps

OPERATORS = torch.ops.seqbench
SCANS = pytest.mark.parametrize("scan", [phase_scan, grouped_sum], ids=lambda scan: scan.__name__)
# A short, a long and a wide case: the three ways of forming gradients.
SIZES = pytest.mark.parametrize("size", [(2, 9, 3, 4), (2, 70, 3, 4), (1, 9, 260, 2)])


@SIZES
def test_the_operators_keep_torchs_rules(size):
    increments, chosen, initial, weights = case(*size)
    groups = size[3]
    leaf = increments.clone().requires_grad_()
    table = pack_steps(radians_to_steps(initial))
    for start in (None, table, initial.clone().requires_grad_()):
        torch.library.opcheck(OPERATORS.phase_scan.default, (leaf, chosen, groups, start, True, "cpu"))
    for start in (None, initial.double().requires_grad_()):
        torch.library.opcheck(OPERATORS.grouped_sum.default, (leaf, chosen, groups, start, True))
    for with_initial in (False, True):
        arguments = (weights, chosen, groups, True, with_initial)
        torch.library.opcheck(OPERATORS.phase_scan_backward.default, (*arguments, "cpu"))
        torch.library.opcheck(OPERATORS.grouped_sum_backward.default, arguments)


@SCANS
@SIZES
def test_a_compiled_scan_is_one_graph_with_the_same_bits(scan, size):
    increments, chosen, initial, weights = case(*size)
    # What other tests compiled counts towards the number of versions that are kept.
    torch._dynamo.reset()
    compiled = torch.compile(scan, fullgraph=True, backend="aot_eager")
    for groups in (chosen, None):
        for own, expected in zip(compiled(increments, groups, size[3]), scan(increments, groups, size[3]), strict=True):
            assert torch.equal(own, expected)
        own, expected = (
            gradients(lambda d, s, f=f, g=groups: f(d, g, size[3], s, True), weights, [increments, initial])
            for f in (compiled, scan)
        )
        assert all(torch.equal(a, b) for a, b in zip(own, expected, strict=True))


@SCANS
@SIZES
def test_autocast_changes_no_bit_of_values_and_gradients(scan, size):
    increments, chosen, initial, weights = case(*size)

    def everything():
        own = gradients(lambda d, s: scan(d, chosen, size[3], s, True), weights, [increments, initial])
        return [*scan(increments, chosen, size[3], initial), *own]

    expected = everything()
    with torch.autocast("cpu", torch.bfloat16):
        actual = everything()
    assert all(torch.equal(own, wanted) for own, wanted in zip(actual, expected, strict=True))


@SCANS
def test_scans_have_no_matrix_products_to_count(scan):
    increments, chosen, initial, weights = case(2, 9, 3, 4)
    with FlopCounterMode(display=False) as counter:
        gradients(lambda d, s: scan(d, chosen, 4, s, True), weights, [increments, initial])
    assert counter.get_total_flops() == 0


@SCANS
def test_only_gradients_that_are_wanted_are_formed(scan):
    increments, chosen, initial, weights = case(2, 9, 3, 4)
    (alone,) = gradients(lambda d: scan(d, chosen, 4, initial, True), weights, [increments])
    (start,) = gradients(lambda s: scan(increments, chosen, 4, s, True), weights, [initial])
    both = gradients(lambda d, s: scan(d, chosen, 4, s, True), weights, [increments, initial])
    assert torch.equal(alone, both[0]) and torch.equal(start, both[1])
    assert not scan(increments.clone().requires_grad_(), chosen, 4)[1].requires_grad


def test_each_operation_says_which_paths_it_has():
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert PHASE_SCAN.available(cpu, torch.float32) == ["cpu", "reference"]
    assert PHASE_SCAN.available(gpu, torch.float32)[-1] == "reference"
    # An ablation's operation: no Triton path, and on a GPU the reference.
    assert GROUPED_SUM.available(cpu, torch.float32) == ["cpu", "reference"]
    assert GROUPED_SUM.available(gpu, torch.float32) == ["reference"]


def test_the_cases_of_the_grouped_sum_run_with_their_backward_pass():
    for build in GROUPED_SUM.cases(torch.device("cpu")).values():
        arguments = build()
        GROUPED_SUM.function(*arguments)[0].sum().backward()
        assert arguments[0].grad.isfinite().all()


def test_the_order_of_a_strided_gradient_does_not_matter():
    increments, chosen, _, _ = case(2, 9, 260, 4)
    leaf = increments.clone().requires_grad_()
    reader = normal(260, 9, 2).permute(2, 1, 0)
    (own,) = torch.autograd.grad(phase_scan(leaf, chosen, 4)[0], leaf, reader)
    (expected,) = torch.autograd.grad(phase_scan(leaf, chosen, 4)[0], leaf, reader.contiguous())
    assert torch.equal(own, expected)
