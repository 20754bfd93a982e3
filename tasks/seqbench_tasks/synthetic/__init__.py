'''The kit of generated tasks: a task says what one sample is, and the kit does the rest.

A generated task is four things: settings, a ladder of difficulties, one function that makes samples, and words. All of
`recall`, without its words:

    @dataclass(frozen=True)
    class RecallConfig(SyntheticConfig):          # adds validation_samples and test_samples
        test_pairs: tuple[int, ...] = setting((4, 8), "pairs of the test samples", minimum=1, maximum=8)

    @dataclass(frozen=True)
    class Pairs(Difficulty):                      # its fields are the coordinates of measurements
        pairs: int

    class RecallTask(SyntheticTask[RecallConfig, Pairs]):
        """A drawing of one sample, inputs over labels."""

        name, summary, version = "recall", "...", "2"
        config_class, presets, primary_coordinate = RecallConfig, PRESETS, "pairs"

        @property
        def vocab_size(self): return 21

        def training_mixture(self): return {Pairs(4): 1}     # difficulty -> weight
        def test_set(self):                                  # difficulty -> number of samples
            return dict.fromkeys(map(Pairs, self.config.test_pairs), self.config.test_samples)

        def samples(self, difficulty, draws):
            keys = 5 + draws.distinct(8, difficulty.pairs)        # (count, pairs): different keys in each sample
            values = 13 + draws.below(8, difficulty.pairs)
            asked = draws.below(difficulty.pairs, 1)              # (count, 1)
            facts = np.stack((keys, values), axis=2).reshape(draws.count, -1)
            input_ids = np.concatenate((facts, np.take_along_axis(keys, asked, axis=1)), axis=1)
            labels = np.full_like(input_ids, IGNORED_LABEL)
            labels[:, -1:] = np.take_along_axis(values, asked, axis=1)
            return Samples(input_ids, labels)

        def chance(self, difficulty): return 1 / 8

- `samples` makes all samples of a batch at once, (count, length) int64, from a `Draws`: row r of what is drawn belongs
  to sample r. It draws the same count of numbers for every sample of a difficulty (no "again until it fits"), and the
  samples of a difficulty have one length: another length is another difficulty.
- Training draws one difficulty for each batch, or for each row (`mixes_rows`, with padding and a mask). A curriculum is
  `training_mixture_at(batch_index)`. Validation and test samples depend on config, difficulty and index alone.
- `Samples.answers` adds metrics: ids that an outdated memory would name ("stale_rate"), or the labels of some
  positions.
- The sets hold no sample twice, and training none of theirs: `held_out.py` draws again what coincides. `sample_bits`
  says that there are so many samples that nothing can; `first_token`, where samples begin inside a training sequence.
- The difficulties of the validation set are those of training, unless `validation_set` says otherwise.
- `lookback`, `memory_bits`, `notes` and `published` tell more where there is more to tell. `score` is for tasks whose
  samples are not read in one forward call.
- What all samples share, such as a grammar, comes from `SymbolStream("shared", seed, 0)`; weights are whole numbers.
  Floating-point powers and logarithms differ between processors: `decimal` does not.

What follows: training batches, evaluation in calls of at most 16,384 tokens, `accuracy` over labels, `exact_match` over
samples and `loss` for each difficulty and over all, one item per sample, notes under the result.
'''

from seqbench_tasks.synthetic.config import SyntheticConfig, require_ladder
from seqbench_tasks.synthetic.draws import Draws, Ids
from seqbench_tasks.synthetic.samples import Difficulty, Samples
from seqbench_tasks.synthetic.score import Names
from seqbench_tasks.synthetic.task import SyntheticTask
from seqbench_tasks.synthetic.trainer import TINY_TRAINER, ZOOLOGY_TRAINER

__all__ = [
    "TINY_TRAINER",
    "ZOOLOGY_TRAINER",
    "Difficulty",
    "Draws",
    "Ids",
    "Names",
    "Samples",
    "SyntheticConfig",
    "SyntheticTask",
    "require_ladder",
]
