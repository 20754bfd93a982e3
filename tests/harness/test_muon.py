"""Muon over stacks of matrices does what torch's does matrix by matrix, up to the rounding of bfloat16."""

import copy

import pytest
import torch
from torch import nn

from seqbench.training import muon
from seqbench.training.matrices import Matrix, split_parameters
from seqbench.training.muon import Muon

SHAPES = [(6, 4), (4, 6), (4, 6), (5, 5), (1, 7), (40, 24), (24, 40)]


def module(shapes=SHAPES):
    torch.manual_seed(0)
    return nn.ParameterList([nn.Parameter(torch.randn(shape)) for shape in shapes])


def as_matrices(parameters):
    return [Matrix(str(index), each, (each.shape[0],), each.shape[1]) for index, each in enumerate(parameters)]


def train(optimizer, parameters, steps=4):
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        for parameter in parameters:
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()


def theirs(parameters, **settings):
    return torch.optim.Muon(list(parameters), adjust_lr_fn="match_rms_adamw", **settings)


SETTINGS = {"lr": 0.03, "weight_decay": 0.2, "momentum": 0.9}


def test_steps_are_those_of_torch():
    ours, reference = module(), module()
    train(Muon(as_matrices(ours), **SETTINGS), ours)
    train(theirs(reference, **SETTINGS), reference)
    start = module()
    for one, other, before in zip(ours, reference, start, strict=True):
        change = (other - before).norm()
        # An update is rounded to 8 bits; sums of a stack may be taken in another order.
        assert (one - other).norm() <= 0.01 * change


def test_stacks_that_are_too_large_are_cut(monkeypatch):
    whole, cut = module(), module()
    train(Muon(as_matrices(whole), **SETTINGS), whole)
    monkeypatch.setattr(muon, "_LARGEST_STACK", 30)
    train(Muon(as_matrices(cut), **SETTINGS), cut)
    for one, other in zip(whole, cut, strict=True):
        torch.testing.assert_close(one, other, rtol=0.01, atol=0.01)


def test_each_part_of_a_fused_parameter_is_made_orthogonal_by_itself():
    apart = module([(4, 6), (2, 6)])
    fused = nn.Parameter(torch.cat([each.data for each in apart]))
    optimizer, other = Muon([Matrix("fused", fused, (4, 2), 6)], **SETTINGS), theirs(apart, **SETTINGS)
    for seed in range(3):
        fused.grad = torch.randn(6, 6, generator=torch.Generator().manual_seed(seed))
        apart[0].grad, apart[1].grad = (part.clone() for part in fused.grad.split((4, 2)))
        optimizer.step()
        other.step()
    torch.testing.assert_close(fused.data, torch.cat([each.data for each in apart]), rtol=0.01, atol=0.01)


@pytest.mark.parametrize("it", [nn.GRU(3, 4), nn.Conv1d(4, 6, 3, groups=2)])
def test_parameters_of_other_shapes_are_trained_through_their_views(it):
    holder = copy.deepcopy(it)
    matrices, _ = split_parameters(holder)
    before = [matrix.parameter.clone() for matrix in matrices]
    train(Muon(matrices, **SETTINGS), [matrix.parameter for matrix in matrices], steps=1)
    for matrix, was in zip(matrices, before, strict=True):
        for view, old in zip(matrix.views(matrix.parameter), matrix.views(was), strict=True):
            # After one step from a zero momentum, decay aside, the update is the scaled orthogonal factor.
            update = (old * (1 - 0.03 * 0.2) - view) / (0.03 * 0.2 * max(view.shape) ** 0.5)
            singular = torch.linalg.svdvals(update.float())
            assert singular.max() < 1.3
            assert singular.min() > 0.3


def test_parameters_without_a_gradient_are_left_alone():
    parameters = module([(4, 6), (4, 6)])
    optimizer = Muon(as_matrices(parameters), **SETTINGS)
    before = parameters[1].clone()
    parameters[0].grad = torch.ones(4, 6)
    optimizer.step()
    assert torch.equal(parameters[1], before)
    optimizer.zero_grad()
    optimizer.step()


def test_a_step_goes_on_from_a_stored_state():
    one, other = module(), module()
    optimizer = Muon(as_matrices(one), **SETTINGS)
    train(optimizer, one, steps=1)
    for target, source in zip(other, one, strict=True):
        target.data.copy_(source.data)
    second = Muon(as_matrices(other), **SETTINGS)
    second.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    train(optimizer, one, steps=1)
    train(second, other, steps=1)
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
