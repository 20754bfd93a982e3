"""Packing moves real tokens to the front of their row, in order, and can be undone."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from seqbench.nn import pack_rows

masks = (
    st.integers(1, 12)
    .flatmap(lambda length: st.lists(st.lists(st.booleans(), min_size=length, max_size=length), min_size=1, max_size=4))
    .map(torch.tensor)
)


@given(masks)
def test_real_tokens_come_first_in_their_order_and_padding_behind_them(mask: Tensor) -> None:
    packing = pack_rows(mask, mask.shape[1])
    if mask.all():
        assert packing is None
        return
    places = torch.arange(mask.shape[1]).expand(mask.shape)
    packed = packing.pack(places)
    for row, real in enumerate(mask):
        count = int(real.sum())
        assert packed[row, :count].tolist() == places[row, real].tolist()
        assert packed[row, count:].tolist() == places[row, ~real].tolist()
        assert packing.lengths[row] == count
        assert packing.mask[row].tolist() == [step < count for step in range(len(real))]


@given(masks)
def test_unpacking_undoes_packing_whatever_the_shape_of_a_token(mask: Tensor) -> None:
    packing = pack_rows(mask, mask.shape[1])
    if packing is None:
        return
    for shape in ((), (3,), (2, 3)):
        values = torch.arange(mask.numel() * 6).view(*mask.shape, 6)[..., 0]
        values = values.view(*mask.shape, *(1,) * len(shape)).expand(*mask.shape, *shape)
        assert torch.equal(packing.unpack(packing.pack(values)), values)


def test_packing_passes_gradients_to_where_the_values_came_from() -> None:
    packing = pack_rows(torch.tensor([[0, 1, 0, 1]]), 4)
    values = torch.zeros(1, 4, 1, requires_grad=True)
    (packing.pack(values)[0, :2, 0] * torch.tensor([5.0, 7.0])).sum().backward()
    assert values.grad.flatten().tolist() == [0, 5, 0, 7]


def test_without_padding_there_is_nothing_to_pack() -> None:
    assert pack_rows(None, 5) is None
    assert pack_rows(torch.ones(2, 5), 5) is None


def test_a_mask_that_covers_cached_tokens_too_speaks_of_its_last_columns() -> None:
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    assert pack_rows(mask, 3) is None
    assert pack_rows(mask, 4).lengths.tolist() == [3, 4]


def test_any_number_other_than_zero_marks_a_real_token() -> None:
    for mask in (torch.tensor([[2, 0, -1]]), torch.tensor([[0.5, 0.0, 1.0]]), torch.tensor([[True, False, True]])):
        assert pack_rows(mask, 3).order.tolist() == [[0, 2, 1]]


def test_a_row_may_hold_padding_only() -> None:
    packing = pack_rows(torch.tensor([[0, 0], [1, 1]]), 2)
    assert packing.lengths.tolist() == [0, 2]
    assert packing.mask.tolist() == [[False, False], [True, True]]
