"""The task plugin of delayed match."""

import numpy as np

from seqbench_tasks.delayed_match.presets import PRESETS
from seqbench_tasks.synthetic import Ids
from seqbench_tasks.synthetic.bit_windows import BitWindowTask


class DelayedMatchTask(BitWindowTask):
    """At each bit, say whether it equals the first of the last N bits (1) or not (0).

    One string about the window N = 3; "-" marks positions without a label:

        position   0  1  2  3  4  5
        inputs     1  0  0  1  1  1
        labels     -  -  0  0  0  1

    """

    name = "delayed-match"
    summary = "does a bit equal the one N - 1 places before it, with N growing"
    version = "2"
    presets = PRESETS

    def answers(self, bits: Ids, window: int) -> Ids:
        """1 where the first and the last bit of the window are equal."""
        return (bits[:, window - 1 :] == bits[:, : bits.shape[1] - window + 1]).astype(np.int64)
