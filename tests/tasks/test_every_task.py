"""What holds for every generated task that is installed, besides the contract (tests/test_task_contract.py)."""

import dataclasses
import re

import pytest

from seqbench.contracts import IGNORED_LABEL
from seqbench.plugins.registry import TASK_GROUP, announced
from seqbench.training.settings import TrainerSettings
from seqbench_tasks.synthetic import SyntheticTask

GENERATED = {
    name: plugin
    for name, plugin in announced(TASK_GROUP).items()
    if isinstance(plugin, type) and issubclass(plugin, SyntheticTask)
}
PRESETS = [(name, preset) for name, plugin in GENERATED.items() for preset in plugin.presets]
# Training tokens of a preset for a laptop: minutes on two cores.
MINUTES = 20_000_000

every_task = pytest.mark.parametrize("name", GENERATED)
every_preset = pytest.mark.parametrize("name, preset", PRESETS)


def task_of(name, preset=None):
    plugin = GENERATED[name]
    return plugin(plugin.presets[preset or plugin.default_preset].config)


def test_the_family_is_installed():
    assert set(GENERATED) >= {
        *("address-update", "copy-paste", "delayed-match", "joint-recall", "latest-value", "mqar", "needle"),
        *("parity", "recall", "repeat-after-me", "selectivity", "set-disjointness"),
    }


@every_task
def test_fifty_batches_stay_within_the_longest_sequence_and_come_near_it(name):
    task = task_of(name)
    lengths = [task.training_batch(3, index, 8).input_ids.shape[1] for index in range(50)]
    assert 0.8 * task.longest_sequence <= max(lengths) <= task.longest_sequence


@every_preset
def test_every_preset_trains_within_its_vocabulary_and_its_longest_sequence(name, preset):
    task = task_of(name, preset)
    for index in (0, 1, 10**6):
        batch = task.training_batch(1, index, 3)
        assert batch.input_ids.shape[1] <= task.longest_sequence
        learned = batch.labels[batch.labels != IGNORED_LABEL]
        for ids in (batch.input_ids, learned):
            assert int(ids.min()) >= 0 and int(ids.max()) < task.vocab_size


@every_preset
def test_no_two_seeds_see_the_same_data(name, preset):
    task = task_of(name, preset)
    seen = {tuple(task.training_batch(seed, 0, 8).input_ids.flatten().tolist()) for seed in range(4)}
    assert len(seen) == 4


@every_preset
def test_a_preset_says_on_a_line_what_it_is_for_and_is_ours_or_published(name, preset):
    found = GENERATED[name].presets[preset]
    assert 10 <= len(found.summary) <= 160 and "\n" not in found.summary and not found.summary.endswith(".")
    # What trains in minutes is ours; a published figure names where it is.
    if found.figure:
        assert re.search(r"arXiv \d{4}\.\d{5}|/", found.figure)
    trainer = dataclasses.replace(TrainerSettings(), **found.trainer)
    tokens = trainer.steps * trainer.batch_size * task_of(name, preset).longest_sequence
    if preset.startswith("tiny"):
        assert tokens <= MINUTES and "GPU" not in found.summary
    assert tokens <= MINUTES or "GPU" in found.summary


@every_task
def test_the_default_preset_is_the_tiny_one_and_the_summary_fits_a_line(name):
    assert GENERATED[name].default_preset == "tiny" and name == GENERATED[name].name
    summary = GENERATED[name].summary
    assert 10 <= len(summary) <= 90 and "\n" not in summary and not summary.endswith(".")


@every_task
def test_the_docstring_draws_a_sample_inputs_over_labels(name):
    """Both rows have a cell for each token, and a label stands somewhere."""
    drawings = re.findall(r"^ +inputs +(.+)\n +labels +(.+)$", GENERATED[name].__doc__ or "", re.MULTILINE)
    assert drawings
    for inputs, labels in drawings:
        assert len(inputs.split()) == len(labels.split())
        assert set(labels.split()) - {"-"} and "-" in labels.split()


@every_preset
def test_notes_say_what_chance_is_and_published_scores_are_of_what_is_measured(name, preset):
    task = task_of(name, preset)
    for reach in (None, 12):
        assert sum(note.startswith("Chance is") for note in task.report_notes(reach)) == 1
    for score in task.published():
        assert score.source and score.model and 0 <= score.value <= 1
    if task.published():
        assert task.primary_metric in {score.metric for score in task.published()}
