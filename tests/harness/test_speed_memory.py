"""Memory of a pass: to the byte, on patterns whose memory is known."""

import pytest
import torch
from torch import nn

from seqbench.planning.activations import saved_bytes
from seqbench.speed.high_water import rise
from seqbench.speed.positions import tensor_bytes

CPU = torch.device("cpu")
# Bytes of a block that the patterns are made of; a multiple of every alignment.
BLOCK = 4 * 2**16


def block():
    return torch.empty(2**16)


def one_after_another():
    for _ in range(5):
        block()


def side_by_side():
    held = [block() for _ in range(3)]
    del held[0]
    held.append(block())


def high_then_low():
    held = [block() for _ in range(4)]
    held.clear()
    block()


@pytest.mark.parametrize(
    ("pattern", "blocks"), [(one_after_another, 1), (side_by_side, 3), (high_then_low, 4), (lambda: None, 0)]
)
def test_the_rise_is_the_highest_sum_of_blocks_held_at_once(pattern, blocks):
    assert rise(pattern, CPU) == blocks * BLOCK


def test_a_block_from_before_lowers_nothing_when_it_is_freed():
    before = [block()]

    def replace():
        before.clear()
        before.append(block())

    assert rise(replace, CPU) == BLOCK
    # And a block from an earlier pass is one from before.
    assert rise(replace, CPU) == BLOCK


def test_views_and_work_in_place_take_nothing():
    tensor = torch.zeros(2**16)
    assert rise(lambda: tensor.view(-1, 2).transpose(0, 1).relu_(), CPU) == 0


def test_a_backward_pass_is_followed_too():
    weight = torch.ones(2**16, requires_grad=True)

    def run():
        (weight * weight).sum().backward()

    # The product and the gradient: at the highest, what the product's backward makes of both factors, added up.
    highest = rise(run, CPU)
    assert 2 * BLOCK <= highest <= 4 * BLOCK


class Squares(nn.Module):
    """Keeps its input, and what its activation made of it, for the backward pass."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(8))
        self.register_buffer("shift", torch.ones(8))

    def forward(self, values):
        return ((values * self.scale + self.shift).tanh() * self.shift).sum()


def test_saved_bytes_are_those_of_what_the_backward_pass_needs_and_of_no_parameter():
    model, values = Squares(), torch.ones(16, 8)
    # The input, for the gradient of the scale, and the result of tanh.
    assert saved_bytes(model, lambda: model(values)) == 2 * 16 * 8 * 4


def test_a_storage_that_two_operations_keep_counts_once():
    values = torch.ones(16, 8, requires_grad=True)

    def forward():
        inner = values.exp()
        return (inner * inner[:4].sum()).sum() + (inner.view(-1) * inner.view(-1)).sum()

    # exp keeps its result, which every later operation shares; beside it there is one scalar.
    assert saved_bytes(nn.Identity(), forward) == 16 * 8 * 4 + 4


def test_what_is_let_go_of_before_the_end_does_not_count():
    values = torch.ones(1024, requires_grad=True)

    def forward():
        for _ in range(3):
            (values.exp() * 2).sum()
        return values.exp().sum()

    assert saved_bytes(nn.Identity(), forward) == 1024 * 4


def test_the_bytes_of_a_state_are_those_of_its_tensors_wherever_they_are():
    class State:
        def __init__(self):
            self.keys = [torch.zeros(4), torch.zeros(4)]
            self.deeper = {"seen": torch.zeros(2, dtype=torch.int64), "self": self}
            self.view = self.keys[0][:2]

    assert tensor_bytes(State()) == 2 * 16 + 16
    assert tensor_bytes(None) == 0


@pytest.mark.gpu
def test_the_rise_on_a_cuda_device_is_that_of_the_caching_allocator():
    device = torch.device("cuda")
    held = []

    def run():
        held.append(torch.empty(2**16, device=device))
        torch.empty(2**16, device=device)

    assert rise(run, device) == 2 * BLOCK
