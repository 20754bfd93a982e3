"""Parts of the kit that single tasks use: sequences of ragged parts, and sequences beyond one call."""

import numpy as np
import pytest
import torch
from generated_support import drawn
from hypothesis import given
from hypothesis import strategies as st

from seqbench.planning.fresh_model import build_model
from seqbench.planning.plan import resolve
from seqbench.planning.request import RunRequest
from seqbench.running.measuring import predictor_of
from seqbench_tasks.needle import NeedleConfig, NeedleTask
from seqbench_tasks.needle.task import Length
from seqbench_tasks.synthetic.long import answer_logits, answered_part
from seqbench_tasks.synthetic.ragged import moved_together

NOTHING = -1


@given(st.integers(1, 4), st.integers(0, 9), st.integers(0, 12), st.randoms(use_true_random=False))
def test_what_is_kept_moves_together(samples, width, length, random):
    ids = [[random.randrange(50) for _ in range(width)] for _ in range(samples)]
    kept = [[random.random() < 0.6 for _ in range(width)] for _ in range(samples)]
    arrays = (np.array(ids, dtype=np.int64), np.array(kept, dtype=np.bool_))
    left = [
        [token for token, stays in zip(row, stay, strict=True) if stays] for row, stay in zip(ids, kept, strict=True)
    ]
    expected = [(row + [NOTHING] * length)[:length] for row in left]
    shape = [array.reshape(samples, width) for array in arrays]
    assert moved_together(*shape, length, NOTHING).tolist() == expected


@pytest.mark.parametrize("model", ["pmnet", "transformer", "mamba"])
def test_answers_are_the_same_with_the_state_carried_on(model, monkeypatch):
    monkeypatch.setattr("seqbench_tasks.synthetic.long.CHUNK_TOKENS", 32)
    plan = resolve(RunRequest(model, "needle", device="cpu"))
    predictor = predictor_of(plan, build_model(plan))
    samples = drawn(NeedleTask(NeedleConfig(needles=4, queries=4)), Length(150), 2)
    whole = answer_logits(predictor, samples, carried=False)
    assert whole.shape == (2, 10, plan.task.vocab_size)
    torch.testing.assert_close(answer_logits(predictor, samples, carried=True), whole, rtol=1e-4, atol=1e-5)


def test_the_answered_part_begins_with_the_first_label():
    samples = drawn(NeedleTask(NeedleConfig(needles=4, queries=4)), Length(150), 3)
    part = answered_part(samples)
    # Four answers, and a sign and a key before each but the first.
    assert part.labels.shape == part.input_ids.shape == (3, 10) and part.problem() is None
    assert np.array_equal(part.labels, samples.labels[:, 140:])
    assert np.array_equal(part.answers["recall_quarter_2"], samples.answers["recall_quarter_2"][:, 140:])
