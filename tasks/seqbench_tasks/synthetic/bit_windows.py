"""Tasks on a stream of random bits whose answers depend on its last N bits: settings, stream, evaluation."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from seqbench.contracts import IGNORED_LABEL, Evaluation, Measurement, Predictor, TaskPreset, setting
from seqbench.errors import RequestError
from seqbench_tasks.synthetic.config import SyntheticConfig, require_ladder
from seqbench_tasks.synthetic.draws import Draws, Ids
from seqbench_tasks.synthetic.samples import Difficulty, Samples
from seqbench_tasks.synthetic.task import SyntheticTask
from seqbench_tasks.synthetic.trainer import TINY_TRAINER

# A window counts as solved from this accuracy on: where the curriculum of arXiv 2309.12927 goes on to the next one.
SOLVED = 0.98
# Of all weights of a training mixture, which 32-bit numbers have to reach.
_MIXTURE = 2**30
_LONGEST_WINDOW = 4096


@dataclass(frozen=True)
class BitWindowConfig(SyntheticConfig):
    """Settings of the tasks on windows of bits: the windows, the lengths of strings, and which positions are labelled.

    Token ids: bit b of a string that is about windows[i] is 2i + b, so that every token tells which window is asked
    for; answers are 0 and 1. With a single window the vocabulary is that of the bits.

    Raises:
        RequestError: a field has the wrong type, is out of range, or contradicts another field.
    """

    windows: tuple[int, ...] = setting(
        (2, 3, 4, 6, 8),
        "the ladder: numbers N of bits that an answer depends on, ascending; all are trained and tested",
        minimum=2,
        maximum=_LONGEST_WINDOW,
    )
    labels: str = setting(
        "every",
        "every: an answer at each position with N bits up to it; end: one answer, at the last bit",
        choices=("every", "end"),
    )
    curriculum_batches: int = setting(
        0,
        "number of first batches over which the windows join one after another, the smallest first; 0 trains on all of "
        "them from the start",
        minimum=0,
        maximum=2**31,
    )
    test_length_multiple: int = setting(
        4,
        "strings of the validation and test sets have this many times N bits, and one more; training goes up to 4",
        minimum=2,
        maximum=1024,
    )
    least_length: int = setting(
        25,
        "strings about small windows go up to this many bits in training, and have as many in the validation and test "
        "sets: shorter ones are so few that training would see all of them",
        minimum=1,
        maximum=2**20,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require_ladder(self, "windows")
        if list(self.windows) != sorted(self.windows):
            raise RequestError(f"windows must ascend, not {', '.join(map(str, self.windows))}")
        if self.curriculum_batches and len(self.windows) == 1:
            raise RequestError(
                f"curriculum_batches {self.curriculum_batches} has nothing to add: windows names {self.windows[0]} "
                "alone; name smaller windows before it or set curriculum_batches to 0"
            )

    def longest(self, window: int) -> int:
        """Bits of the longest training string about a window."""
        return max(4 * window + 1, self.least_length)

    def tested(self, window: int) -> int:
        """Bits of the validation and test strings about a window."""
        return max(self.test_length_multiple * window + 1, self.least_length)

    def windows_at(self, batch_index: int) -> tuple[int, ...]:
        """The windows that training batch `batch_index` is drawn from: the first one, and then one more at a time.

        Published curricula add the next window when the model has solved the last. Here the batch index alone decides,
        so that all models see the same data.
        """
        if batch_index >= self.curriculum_batches:
            return self.windows
        return self.windows[: 1 + (len(self.windows) - 1) * batch_index // self.curriculum_batches]


@dataclass(frozen=True)
class BitString(Difficulty):
    """A string of `length` bits about a window of `window`."""

    window: int
    length: int


class BitWindowTask(SyntheticTask[BitWindowConfig, BitString]):
    """Answer at each bit with a function of it and the window - 1 bits before it.

    Strings of training have from N + 2 to 4N + 1 bits, or to 25 where that is more, every length equally likely and
    every window too, and each string of a batch has its own. An answer has to bridge N - 1 tokens.
    """

    config_class = BitWindowConfig
    primary_coordinate = "lookback"

    @abstractmethod
    def answers(self, bits: Ids, window: int) -> Ids:
        """The answers, 0 or 1, at positions window - 1 and on: (strings, length - window + 1) for (strings, length)."""

    @property
    def vocab_size(self) -> int:
        """Two ids for each window."""
        return 2 * len(self.config.windows)

    @property
    def longest_sequence(self) -> int:
        """Bits of the longest training string, that of the largest window."""
        return self.config.longest(self.config.windows[-1])

    @property
    def mixes_rows(self) -> bool:
        """Every training string has a window and a length of its own."""
        return True

    def training_mixture(self) -> Mapping[BitString, int]:
        """All windows, equally likely, at all lengths."""
        return mixture_of(self.config.windows, self.config.least_length)

    def training_mixture_at(self, batch_index: int) -> Mapping[BitString, int]:
        """The windows that the curriculum has come to."""
        return mixture_of(self.config.windows_at(batch_index), self.config.least_length)

    def validation_set(self) -> Mapping[BitString, int]:
        """Every window at one length."""
        return dict.fromkeys(self._tested, self.config.validation_samples)

    def test_set(self) -> Mapping[BitString, int]:
        """Every window at one length."""
        return dict.fromkeys(self._tested, self.config.test_samples)

    def samples(self, difficulty: BitString, draws: Draws) -> Samples:
        """Random bits, and the answers where they are asked for."""
        window, bits = difficulty.window, draws.below(2, difficulty.length)
        labels = np.full_like(bits, IGNORED_LABEL)
        labels[:, window - 1 :] = self.answers(bits, window)
        if self.config.labels == "end":
            labels[:, :-1] = IGNORED_LABEL
        return Samples(2 * self.config.windows.index(window) + bits, labels)

    def chance(self, difficulty: BitString) -> float:
        """One half, and the bound of whoever does not know the window's first bit: both answers are then as likely."""
        del difficulty
        return 0.5

    def lookback(self, difficulty: BitString) -> int:
        """From a position to the first bit of its window."""
        return difficulty.window - 1

    def memory_bits(self, difficulty: BitString) -> float | None:
        """The last window - 1 bits, each of which decides an answer to come.

        Of a string whose only answer is at its end, whoever knows where that is can do with less.
        """
        return difficulty.window - 1 if self.config.labels == "every" else None

    def sample_bits(self, difficulty: BitString) -> float:
        """The bits themselves."""
        return difficulty.length

    def evaluate(self, predictor: Predictor, split: str) -> Evaluation:
        """Accuracy by window, and the largest window that is solved: it and all smaller ones to 98 %; 0 for none."""
        evaluation = super().evaluate(predictor, split)
        accuracy = {
            measured.coordinates["window"]: measured.value
            for measured in evaluation.measurements
            if measured.metric == self.names.accuracy and measured.coordinates
        }
        largest = 0
        for window in self.config.windows:
            if accuracy[window] < SOLVED:
                break
            largest = window
        labels = sum(item[self.names.total] for item in evaluation.items)
        solved = Measurement("largest_window_solved", largest, "bits", labels, split)
        return Evaluation((*evaluation.measurements, solved), evaluation.items)

    def notes(self) -> list[str]:
        """What the words of the table mean."""
        return [
            f"A window is one more than its look-back; solved: accuracy of {SOLVED:.0%} or more in it and all smaller "
            "windows."
        ]

    @property
    def _tested(self) -> list[BitString]:
        return [BitString(window, self.config.tested(window)) for window in self.config.windows]


@lru_cache(maxsize=8)
def mixture_of(windows: tuple[int, ...], least_length: int) -> Mapping[BitString, int]:
    """Strings of N + 2 to 4N + 1 bits for each window N, or to `least_length` where that is more, with weights that
    make windows and lengths equally likely.
    """
    lengths = {window: range(window + 2, max(4 * window + 1, least_length) + 1) for window in windows}
    return {
        BitString(window, length): _MIXTURE // (len(windows) * len(lengths[window]))
        for window in windows
        for length in lengths[window]
    }


def single_window(window: int) -> TaskPreset[BitWindowConfig]:
    """A preset with one window: a vocabulary of two, and nothing but the bits to tell what is asked."""
    config = BitWindowConfig(windows=(window,))
    return TaskPreset(config, f"a window of {window} bits alone; minutes on a laptop", {**TINY_TRAINER, "steps": 1000})


def multi_head(name: str) -> TaskPreset[BitWindowConfig]:
    """The preset of the published curriculum, which keeps all windows that it has come to.

    Published: the windows from 2 on, joined by the next one, and one answer at the end of a string of N + 2 to 4N + 1
    bits. When the next one joins, how far they go, and the trainer's settings are ours.
    """
    # Four times the smallest window and one more: as published, no string is longer.
    config = BitWindowConfig(windows=tuple(range(2, 21)), labels="end", curriculum_batches=16_000, least_length=9)
    trainer = {"steps": 20_000, "batch_size": 128, "warmup_steps": 100, "evaluation_interval": 1000}
    summary = "windows of 2 to 20 bits that join one by one, an answer at the end alone; needs a GPU"
    return TaskPreset(config, summary, trainer, figure=f"{name}, multi-head curriculum (arXiv 2309.12927)")
