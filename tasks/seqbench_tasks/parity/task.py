"""The task plugin of parity."""

import numpy as np

from seqbench_tasks.parity.presets import PRESETS
from seqbench_tasks.synthetic import Ids
from seqbench_tasks.synthetic.bit_windows import BitWindowTask


class ParityTask(BitWindowTask):
    """At each bit, say whether the ones among the last N bits are odd in number (1) or even (0).

    One string about the window N = 3; "-" marks positions without a label:

        position   0  1  2  3  4  5
        inputs     1  0  0  1  1  1
        labels     -  -  1  1  0  1

    """

    name = "parity"
    summary = "parity of the last N bits, with N growing"
    version = "2"
    presets = PRESETS

    def answers(self, bits: Ids, window: int) -> Ids:
        """Sums over the window, modulo 2."""
        # The ones before each bit, and behind the last: np.pad would take half of a batch's time.
        totals = np.zeros((len(bits), bits.shape[1] + 1), dtype=np.int64)
        np.cumsum(bits, axis=1, out=totals[:, 1:])
        return (totals[:, window:] - totals[:, :-window]) % 2
