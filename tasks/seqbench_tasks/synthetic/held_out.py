"""Evaluation sets without repeats, and what keeps their samples out of training.

Two samples are the same when they have the same inputs. A sample has been seen in training when a training sequence is
the same, begins with it, or holds it from one of its `first_token`s on.

Samples of a difficulty that has so many that none comes twice (`sample_bits`) are not looked at. Of the others:

- A sample that an evaluation set has already is drawn again, from the next numbers of its own stream.
- Training draws a row again that holds a sample of an evaluation set.
- Where few samples exist, the sets are made smaller, until no training difficulty loses more than a quarter of its
  draws. Where that would leave next to nothing, the sets are shared with training, and what training saw is counted.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from seqbench.contracts import Contamination
from seqbench_tasks.synthetic.draws import Ids
from seqbench_tasks.synthetic.fingerprints import Digests, PartialSums, fingerprints
from seqbench_tasks.synthetic.samples import Difficulty, Samples

Rung = TypeVar("Rung", bound=Difficulty)

# With 2**80 samples that are alike likely, 2**32 training rows hit one of 2**20 evaluation samples once in 2**28 runs.
SURE_BITS = 80.0
# Of the draws of a training difficulty that are drawn again, at most. How many are is found out with these numbers of
# samples: the first, and the second where the first tell of half as many.
LARGEST_SHARE = 0.25
PROBES = (64, 512)
# A set that would become smaller than this is shared with training instead.
FEWEST = 8
# Draws for one sample of a set, before there are taken to be no more.
ATTEMPTS = 64
# Draws one after another that give nothing new, after which there is taken to be no more either.
FRUITLESS = 4096

_SPLITS = ("test", "validation")
# Tokens of the samples that are looked at together, at most, unless a single one is longer; and of all samples that
# find out what training would lose, the short ones first, of which there are few.
_TOKENS_AT_ONCE, _PROBED_TOKENS = 2**18, 2**24


class Source(Protocol[Rung]):
    """What the sets ask of a task."""

    def test_set(self) -> Mapping[Rung, int]:
        """The difficulties of the test set, each with its number of samples."""

    def validation_set(self) -> Mapping[Rung, int]:
        """The difficulties of the validation set, each with its number of samples."""

    def training_mixture(self) -> Mapping[Rung, int]:
        """The difficulties of training."""

    def sample_bits(self, difficulty: Rung) -> float | None:
        """Bits of the likeliest sample."""

    def sequence_length(self, difficulty: Rung) -> int:
        """Tokens of a sequence."""

    @property
    def first_token(self) -> int | None:
        """The id that every sample inside a training sequence begins with."""

    def samples_at(self, split: str, difficulty: Rung, places: Ids) -> Samples:
        """The samples of (samples, 2) places."""

    def probe(self, difficulty: Rung, count: int) -> Samples:
        """Samples of no split, the first ones of a stream of their own."""


@dataclass
class SampleSet(Generic[Rung]):
    """The samples of one difficulty in one split.

    Attributes:
        split: "test" or "validation".
        difficulty: of all of them.
        asked: number of samples that the config names.
        places: (samples, 2), where each comes from: the index of its stream, and how many draws of that came before.
        digests: (len(places),) their fingerprints; none where no sample comes twice.
        held_out: whether training leaves them out.
    """

    split: str
    difficulty: Rung
    asked: int
    places: Ids
    digests: Digests = field(default_factory=lambda: np.zeros(0, dtype=np.uint64))
    held_out: bool = True

    @property
    def known(self) -> set[int]:
        """The fingerprints."""
        return set(self.digests.tolist())

    def shortened(self, count: int) -> "SampleSet[Rung]":
        """The first `count` samples."""
        return SampleSet(self.split, self.difficulty, self.asked, self.places[:count], self.digests[:count])

    def shared(self) -> "SampleSet[Rung]":
        """The same samples, which training may hold."""
        return SampleSet(self.split, self.difficulty, self.asked, self.places, self.digests, held_out=False)


class EvaluationSets(Generic[Rung]):
    """The samples of both evaluation sets of a task, a function of its config alone."""

    def __init__(self, task: Source[Rung]) -> None:
        self._task = task
        sets = _without_repeats(task)
        self._sets = {(each.split, each.difficulty): each for each in _kept_from_training(task, sets)}
        self._lengths = np.unique([task.sequence_length(each.difficulty) for each in self if each.digests.size])
        self._held_out, self._shared = (
            _union(each.digests for each in self if each.held_out == held_out) for held_out in (True, False)
        )

    def __iter__(self) -> Iterator[SampleSet[Rung]]:
        return iter(self._sets.values())

    def of(self, split: str) -> dict[Rung, int]:
        """Difficulty -> number of samples."""
        return {each.difficulty: len(each.places) for each in self if each.split == split}

    def places(self, split: str, difficulty: Rung, start: int, stop: int) -> Ids:
        """Where samples start..stop-1 come from; beyond the set, or of a difficulty that it lacks, the first draws."""
        known = self._sets.get((split, difficulty))
        kept = known.places[start:stop] if known is not None else _first_draws(0, 0)
        return np.concatenate((kept, _first_draws(start + len(kept), stop)))

    def rows_held_out(self, ids: Ids, lengths: Sequence[int]) -> Ids:
        """The training rows that hold a sample which is to be kept from training, ascending.

        Args:
            ids: (rows, length) token ids.
            lengths: tokens of each row that are no padding.
        """
        if not self._held_out.size:
            return np.zeros(0, dtype=np.int64)
        rows, digests = _parts(ids, np.asarray(lengths), self._lengths, self._task.first_token)
        return np.unique(rows[_among(digests, self._held_out)])

    def contamination(self, training: Callable[[int], tuple[Ids, Sequence[int]]], batches: int) -> list[Contamination]:
        """What of both sets was seen in the first `batches` of the batches `training(index)`: ids and lengths of rows.

        Those are gone through only where a set is shared with training, and until all of it was found.
        """
        found = self._shared[:0]
        for index in range(batches):
            if len(found) == len(self._shared):
                break
            ids, lengths = training(index)
            _, digests = _parts(ids, np.asarray(lengths), self._lengths, self._task.first_token)
            found = np.union1d(found, digests[_among(digests, self._shared)])
        return [counted for split in _SPLITS[::-1] for counted in self._counted(split, found)]

    def _counted(self, split: str, found: Digests) -> Iterator[Contamination]:
        tested = _union(each.digests for each in self if each.split == "test") if split != "test" else self._shared[:0]
        counted = []
        for each in (each for each in self if each.split == split):
            seen, in_test = (int(_among(each.digests, digests).sum()) for digests in (found, tested))
            count = len(each.places)
            counted.append(Contamination(split, count, count, seen, in_test, each.difficulty.coordinates))
        items, seen, in_test = (
            sum(getattr(each, name) for each in counted) for name in ("items", "in_training", "in_test")
        )
        # Those that are not looked at come once.
        digests = [each.digests for each in self if each.split == split]
        distinct = items - sum(map(len, digests)) + len(_union(digests))
        yield Contamination(split, items, distinct, seen, in_test)
        yield from (each for each in counted if each.in_training or each.in_test)


def _without_repeats(task: Source[Rung]) -> list[SampleSet[Rung]]:
    """The sets as they are drawn, no sample twice: a set ends where no more are found.

    Samples of which there are too few for both sets are divided between them.
    """
    tests: dict[Rung, SampleSet[Rung]] = {}
    validations: dict[Rung, SampleSet[Rung]] = {}
    seen: set[int] = set()
    for difficulty, count in task.test_set().items():
        tests[difficulty] = _distinct(task, "test", difficulty, count, seen)
        seen |= tests[difficulty].known
    for difficulty, count in task.validation_set().items():
        drawn, tested = _distinct(task, "validation", difficulty, count, seen), tests.get(difficulty)
        if tested is not None and len(drawn.places) < count:
            found = len(tested.places) + len(drawn.places)
            tests[difficulty] = tested.shortened(max(1, found * tested.asked // (tested.asked + count)))
            seen -= tested.known - tests[difficulty].known
            drawn = _distinct(task, "validation", difficulty, count, seen)
        validations[difficulty] = drawn
        seen |= drawn.known
    sets = [*tests.values(), *validations.values()]
    # A difficulty whose samples are all in the sets of others.
    return [
        each if len(each.places) else _distinct(task, each.split, each.difficulty, each.asked, set()) for each in sets
    ]


def _distinct(task: Source[Rung], split: str, difficulty: Rung, count: int, seen: set[int]) -> SampleSet[Rung]:
    """`count` samples of which none is among `seen` nor comes twice; fewer where there are no more."""
    places, bits = _first_draws(0, count), task.sample_bits(difficulty)
    if bits is not None and bits >= SURE_BITS:
        return SampleSet(split, difficulty, count, places)
    taken: dict[int, list[int]] = {}
    fruitless = 0
    for part, digests in _draws(task, split, difficulty, places, taken):
        for place, digest in zip(part.tolist(), digests.tolist(), strict=True):
            is_new = digest not in seen and digest not in taken
            fruitless = 0 if is_new else fruitless + 1
            if is_new:
                taken[digest] = place
        if fruitless >= FRUITLESS:
            break
    ordered = sorted(taken.items(), key=lambda entry: entry[1])
    digests = np.array([digest for digest, _ in ordered], dtype=np.uint64)
    kept = np.array([place for _, place in ordered], dtype=np.int64).reshape(-1, 2)
    return SampleSet(split, difficulty, count, kept, digests)


def _draws(
    task: Source[Rung], split: str, difficulty: Rung, places: Ids, taken: Mapping[int, list[int]]
) -> Iterator[tuple[Ids, Digests]]:
    """The samples of these places in parts, with their fingerprints; then the next draws of those not `taken` since."""
    step = max(1, _TOKENS_AT_ONCE // task.sequence_length(difficulty))
    for attempt in range(ATTEMPTS):
        for start in range(0, len(places), step):
            part = places[start : start + step]
            yield part, fingerprints(task.samples_at(split, difficulty, part).input_ids)
        found = np.array([index for index, _ in taken.values()], dtype=np.int64)
        places = places[~np.isin(places[:, 0], found)]
        places[:, 1] = attempt + 1


def _first_draws(start: int, stop: int) -> Ids:
    indices = np.arange(start, stop)
    return np.stack((indices, np.zeros_like(indices)), axis=1)


def _kept_from_training(task: Source[Rung], sets: list[SampleSet[Rung]]) -> list[SampleSet[Rung]]:
    """The sets made so small that training can do without their samples; shared where that leaves next to nothing."""
    whole = list(sets)
    probes = list(_probes(task, sets))
    while True:
        held_out = _union(each.digests for each in sets if each.held_out)
        factors: dict[Rung, float] = {}
        for probe in probes:
            share = probe.share(held_out)
            if share > LARGEST_SHARE:
                # Of the sets whose samples it holds, the one that takes most.
                shares = {probe.share(np.sort(each.digests)): each.difficulty for each in sets if each.held_out}
                most = shares[max(shares)]
                factors[most] = min(factors.get(most, 1.0), LARGEST_SHARE / share)
        if not factors:
            return sets
        sets = _smaller(sets, whole, factors)


def _smaller(
    sets: Sequence[SampleSet[Rung]], whole: Sequence[SampleSet[Rung]], factors: Mapping[Rung, float]
) -> list[SampleSet[Rung]]:
    """The sets with their difficulty's share of samples, all of a difficulty's shared where one is left too few."""
    counts = [
        min(len(each.places) - 1, int(len(each.places) * factors[each.difficulty]))
        if each.held_out and each.difficulty in factors
        else len(each.places)
        for each in sets
    ]
    too_few = {
        each.difficulty for each, count in zip(sets, counts, strict=True) if count < min(FEWEST, len(each.places))
    }
    return [
        every.shared() if each.difficulty in too_few else each.shortened(count) if each.held_out else each
        for each, every, count in zip(sets, whole, counts, strict=True)
    ]


@dataclass(frozen=True)
class _Probe:
    """Some samples of a training difficulty: the rows and fingerprints of their parts, and how many samples."""

    rows: Ids
    digests: Digests
    count: int

    def share(self, held_out: Digests) -> float:
        """Of the samples that have such a part."""
        return len(np.unique(self.rows[_among(self.digests, held_out)])) / self.count


def _probes(task: Source[Rung], sets: Sequence[SampleSet[Rung]]) -> Iterator[_Probe]:
    """Samples of each training difficulty that may lose more than `LARGEST_SHARE`."""
    digests = _union(each.digests for each in sets)
    if not digests.size:
        return
    lengths = np.unique([task.sequence_length(each.difficulty) for each in sets if each.digests.size])
    tokens = 0
    for difficulty in sorted(task.training_mixture(), key=task.sequence_length):
        length = task.sequence_length(difficulty)
        if length < lengths[0]:
            continue
        for count in PROBES:
            tokens += count * length
            if tokens > _PROBED_TOKENS:
                return
            ids = task.probe(difficulty, count).input_ids
            probe = _Probe(*_parts(ids, np.full(count, length), lengths, task.first_token), count)
            if probe.share(digests) <= LARGEST_SHARE / 2:
                break
        else:
            yield probe


def _parts(ids: Ids, row_lengths: Ids, lengths: Ids, first_token: int | None) -> tuple[Ids, Digests]:
    """Rows and fingerprints of all parts of `lengths` tokens at which a sample may stand in these rows."""
    if first_token is None:
        ids = ids[:, : lengths[-1]]
    step = max(1, _TOKENS_AT_ONCE // ids.shape[1])
    if len(ids) > step:
        cuts = [slice(start, start + step) for start in range(0, len(ids), step)]
        found = [_parts(ids[cut], row_lengths[cut], lengths, first_token) for cut in cuts]
        all_rows = [cut.start + rows for cut, (rows, _) in zip(cuts, found, strict=True)]
        return np.concatenate(all_rows), np.concatenate([digests for _, digests in found])
    if first_token is None:
        rows, first = np.arange(len(ids)), np.zeros(len(ids), dtype=np.int64)
    else:
        rows, first = np.nonzero(ids == first_token)
    rows, first, lengths = np.broadcast_arrays(rows[:, None], first[:, None], lengths)
    inside = first + lengths <= row_lengths[rows]
    rows, first, lengths = rows[inside], first[inside], lengths[inside]
    return rows, PartialSums(ids).parts(rows, first, lengths)


def _among(digests: Digests, known: Digests) -> NDArray[np.bool_]:
    """Whether each is one of `known`, which ascend."""
    if not known.size:
        return np.zeros(digests.shape, dtype=np.bool_)
    return known[np.searchsorted(known, digests).clip(max=known.size - 1)] == digests


def _union(parts: Iterable[Digests]) -> Digests:
    """All of them, ascending, each once."""
    return np.unique(np.concatenate([np.zeros(0, dtype=np.uint64), *parts]))
