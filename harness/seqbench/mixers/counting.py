"""What one layer of a mixer costs, counted as it runs on the device "meta" and continued to any length."""

from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from seqbench.errors import RequestError
from seqbench.mixers.chunk import Chunk
from seqbench.mixers.mixer import Mixer
from seqbench.mixers.state import Tree, tensors

# Lengths at which a layer is counted: few, since a loop over tokens takes half a millisecond a token even there, and
# beyond the window or chunk of a small preset, which no polynomial passes through. The last one verifies the others.
_COUNTED = (24, 40, 56, 72)
_BYTES = 4


def layer_flops(mixer: type[Mixer[Any]], settings: Any, length: int) -> int:
    """Forward FLOPs of one layer's mixer for a sequence of that many tokens.

    Raises RequestError where neither the mixer says them nor a polynomial of second degree does.
    """
    own = mixer.flops(settings, length)
    return _continued(mixer, settings, _count_flops, 2, "flops", length) if own is None else own


def layer_state_bytes(mixer: type[Mixer[Any]], settings: Any, length: int) -> int:
    """Bytes that one layer's mixer carries of one sequence after that many tokens, in fp32.

    Raises RequestError where neither the mixer says them nor a straight line does.
    """
    own = mixer.state_bytes(settings, length)
    return _continued(mixer, settings, _count_state_bytes, 1, "state_bytes", length) if own is None else own


def _continued(
    mixer: type[Mixer[Any]],
    settings: Any,
    count: Callable[..., int],
    degree: int,
    what: str,
    length: int,
) -> int:
    if length <= 0:
        return 0
    *places, verified = [(place, count(mixer, settings, place)) for place in _COUNTED]
    coefficients = places[: degree + 1]
    foretold = _through(coefficients, verified[0])
    if foretold != verified[1]:
        raise RequestError(
            f"{mixer.__name__}: {what} at {verified[0]} tokens are {verified[1]:,}, where those at"
            f" {', '.join(str(place) for place, _ in coefficients)} tokens foretell {float(foretold):,.0f}; give the"
            f" mixer a classmethod {what}(settings, length)"
        )
    return round(_through(coefficients, length))


def _through(points: list[tuple[int, int]], length: int) -> Fraction:
    """Of the polynomial through the points, after Lagrange, in exact numbers."""
    total = Fraction(0)
    for here, value in points:
        term = Fraction(value)
        for other, _ in points:
            if other != here:
                term *= Fraction(length - other, here - other)
        total += term
    return total


@lru_cache(maxsize=256)
def _count_flops(mixer: type[Mixer[Any]], settings: Any, length: int) -> int:
    counter = FlopCounterMode(display=False)
    with counter:
        _run(mixer, settings, length)
    return int(counter.get_total_flops())


@lru_cache(maxsize=256)
def _count_state_bytes(mixer: type[Mixer[Any]], settings: Any, length: int) -> int:
    return sum(tensor[0].numel() * _BYTES for tensor in tensors(_run(mixer, settings, length)))


def _run(mixer: type[Mixer[Any]], settings: Any, length: int) -> Tree:
    """What one layer carries after one sequence of that many tokens."""
    with torch.device("meta"), torch.no_grad():
        layer = mixer(settings.hidden_size, settings).eval()
        ids = torch.zeros(1, length, dtype=torch.int64)
        _, state, *_ = layer(
            torch.zeros(1, length, settings.hidden_size), None, Chunk(ids, ids[:, 0], None, first=True)
        )
    return state
