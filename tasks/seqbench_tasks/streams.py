"""Random numbers as a pure function of integers: the same on every machine and with every NumPy."""

import numpy as np
from numpy.typing import NDArray

from seqbench.errors import RequestError

# Raise it whenever the same arguments would give other numbers.
DATA_VERSION = 1
# Every stream has its purpose in its seed, hence no two splits ever share a stream. "shared" is for what all splits
# have in common, such as a grammar or a table of answers; "replacement" for training samples in place of those that the
# evaluation sets hold; "probe" for samples that are only looked at.
SPLIT_IDS = {"training": 1, "validation": 2, "test": 3, "shared": 4, "replacement": 5, "probe": 6}


class SymbolStream:
    """An endless stream of random integers, seeded by (data version, split, *numbers).

    Streams of one split have equally many numbers. Raises RequestError when one is outside 0 .. 2**64 - 1.
    """

    def __init__(self, split: str, *numbers: int) -> None:
        words: list[int] = []
        # Each number takes exactly two 32-bit words: SeedSequence concatenates words of numbers without marking where
        # one ends, so that numbers of varying width could spell the same seed.
        for number in (DATA_VERSION, SPLIT_IDS[split], *numbers):
            if not 0 <= number < 2**64:
                raise RequestError(f"seeds and indices are whole numbers from 0 to 2**64 - 1, not {number}")
            words += (number & 0xFFFFFFFF, number >> 32)
        self._bits = np.random.PCG64(np.random.SeedSequence(words))

    def draw(self, count: int) -> NDArray[np.uint64]:
        """The next `count` uniform 32-bit numbers, (count,) uint64."""
        # NumPy promises to keep the raw bits of a generator, but not what Generator.integers makes of them.
        return np.asarray(self._bits.random_raw(count), dtype=np.uint64) >> np.uint64(32)


def below(numbers: NDArray[np.uint64], bound: int | NDArray[np.int64]) -> NDArray[np.int64]:
    """Uniform 32-bit numbers scaled to 0 .. bound - 1; uneven by less than bound / 2**32.

    `bound`, at most 2**32, is one number or an array that broadcasts with `numbers`.
    """
    return ((numbers * np.asarray(bound, dtype=np.uint64)) >> np.uint64(32)).astype(np.int64)
