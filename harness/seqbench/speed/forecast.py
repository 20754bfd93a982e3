"""What a pass at a length will take, from passes at shorter ones, so that what cannot be done is not begun."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import nnls


@dataclass
class Forecast:
    """Time and memory of one model in one mode.

    Attributes:
        work: length -> something that the time is taken to be proportional to, such as FLOPs.
        seconds: length -> seconds of a pass.
        rises: length -> bytes by which memory rose in it.
    """

    work: Callable[[int], float]
    seconds: dict[int, float] = field(default_factory=dict)
    rises: dict[int, int] = field(default_factory=dict)

    def note(self, length: int, seconds: float, rise: int) -> None:
        """A pass was made."""
        self.seconds[length], self.rises[length] = seconds, rise

    def expected_seconds(self, length: int) -> float:
        """From the longest pass so far, in proportion to the work, or to the tokens where no work is declared."""
        longest = max(self.seconds)
        done = self.work(longest)
        factor = self.work(length) / done if done > 0 else length / longest
        return self.seconds[longest] * factor

    def expected_rise(self, length: int) -> float:
        """From all passes: constant + linear + quadratic in the length, none of them negative.

        Relative errors count, so that short passes, which tell the constant, weigh as much as long ones.
        """
        lengths = np.array(list(self.rises), dtype=float)
        rises = np.array([max(1, rise) for rise in self.rises.values()], dtype=float)
        powers = np.array([0, 1, 2])[: max(1, len(lengths))] if len(lengths) > 1 else np.array([1])
        # In units of the longest pass, or the columns would differ by orders of magnitude.
        columns = (lengths[:, None] / lengths.max()) ** powers
        weights, _ = nnls(columns / rises[:, None], np.ones(len(lengths)))
        return float(((length / lengths.max()) ** powers) @ weights)
