"""64-bit fingerprints of token sequences and of their parts, by which a sequence is found among many."""

import numpy as np
from numpy.typing import NDArray

from seqbench_tasks.synthetic.draws import Ids

Digests = NDArray[np.uint64]

# An odd number and its inverse modulo 2**64: places of tokens are told apart by its powers.
_BASE = 0x9E3779B97F4A7C15
_INVERSE = pow(_BASE, -1, 2**64)


class PartialSums:
    """What the fingerprints of all parts of some sequences are made from: sums over the tokens from the left.

    The fingerprint of a part is a polynomial modulo 2**64 in its tokens, each mixed first; it does not depend on where
    the part stands. Two different parts have the same one by chance alone, about one pair in 2**64.

    Args:
        ids: (rows, length) token ids.
    """

    def __init__(self, ids: Ids) -> None:
        rows, length = ids.shape
        self._powers = _powers(_BASE, length + 1)
        self._sums = np.zeros((rows, length + 1), dtype=np.uint64)
        np.cumsum(_mixed(ids.astype(np.uint64)) * self._powers[:length], axis=1, out=self._sums[:, 1:])

    def parts(self, rows: Ids, first: Ids, lengths: Ids) -> Digests:
        """Fingerprints of the parts of `lengths` tokens from `first` on in `rows`; the arrays broadcast."""
        inside = self._sums[rows, first + lengths] - self._sums[rows, first]
        moved = inside if not first.any() else inside * _powers(_INVERSE, int(first.max()) + 1)[first]
        return _mixed(moved ^ _mixed(lengths.astype(np.uint64)))


def fingerprints(ids: Ids) -> Digests:
    """Fingerprints of whole sequences: (rows,) for (rows, length)."""
    rows = np.arange(len(ids))
    return PartialSums(ids).parts(rows, np.zeros_like(rows), np.full_like(rows, ids.shape[1]))


def _powers(base: int, count: int) -> Digests:
    """The powers 0 .. count - 1 modulo 2**64."""
    powers = np.full(count, base, dtype=np.uint64)
    powers[0] = 1
    return np.cumprod(powers)


def _mixed(numbers: Digests) -> Digests:
    """One-to-one, and without a pattern: the finaliser of SplitMix64 (Steele, Lea and Flood 2014)."""
    mixed = numbers + np.uint64(_BASE)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return mixed ^ (mixed >> np.uint64(31))
