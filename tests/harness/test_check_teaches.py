"""`bench check` as a teacher: one mistake is one failure, which names its cause and the author's line."""

import pytest
from one_mistake import RaisesInBuild

from seqbench.testing import examine_model_plugin
from seqbench.testing.model.clauses import MODEL_CLAUSES
from seqbench.testing.report import NOT_REACHED
from seqbench.testing.task.clauses import TASK_CLAUSES

# Mistake -> the clause that fails, and alone does; what it says; what stands in the author's line.
MISTAKES = {
    "ReturnsTuple": ("forward", "forward() returns a tuple without a tensor of logits", "def forward(self, input_ids"),
    "RaisesInBuild": ("build", "ValueError: width 16 does not divide by 5 heads", "raise ValueError("),
    "ForgetsVocabulary": (
        "forward",
        "out of range in self, on 2 rows of 70 random tokens with ids below 41",
        "",
    ),
    "WrongShape": ("vocabulary", "logits have shape (2, 41, 70), expected (2, 70, 41)", "def forward(self, *arguments"),
    "NotANumber": ("vocabulary", "logits of a fresh model are not finite", "class NotANumberModel"),
    "RaisesInForward": ("forward", "RuntimeError: mat1 and mat2", "return hidden @ torch.ones(3, 3)"),
    "DropsInEvaluation": ("deterministic", "draws random numbers in evaluation mode", ""),
    "ForgetsState": ("chunked", "", ""),
    "LooksAhead": ("causal", "change the logits of position", ""),
    "MixesRows": ("rows-independent", "row", ""),
    "CountsUnlabelled": ("labels", "divided by all tokens", ""),
    "FailsOnEmptyRows": ("padding", "no real token: its mask is zero everywhere", "raise IndexError("),
    "RaisesInFlops": ("settings", "KeyError: 'hidden_size'", "raise KeyError("),
    "MiscountsState": ("state-bytes", "state_bytes() declares", ""),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_one_mistake_is_one_failure_that_names_it(mistake):
    clause, message, line = MISTAKES[mistake]
    report = examine_model_plugin(f"one_mistake:{mistake}")
    assert report.failed_clauses == {clause}, report.text()
    [failure] = report.failures
    assert message in failure.message
    assert line in failure.place
    assert "one_mistake.py:" in failure.place or not line
    assert {outcome.cause for outcome in report.not_reached} <= {clause}
    assert all(outcome.state != NOT_REACHED or clause in outcome.message for outcome in report.outcomes)


def test_an_error_in_build_is_met_by_no_other_clause():
    report = examine_model_plugin(RaisesInBuild, clauses=["causal", "parameters"])
    assert [(outcome.clause, outcome.state) for outcome in report.outcomes] == [
        ("build", "failed"),
        ("causal", "not reached"),
        ("parameters", "not reached"),
    ]


def test_what_a_model_prints_is_counted_and_floods_no_table(bench):
    finished = bench("check", "one_mistake:Prints", "--clause", "vocabulary", "--clause", "parameters")
    assert finished.code == 0, finished.out
    assert "hidden (" not in finished.out + finished.err
    assert "the plugin printed" in finished.out and "0 of 2 clauses fail" in finished.out
    told = bench("check", "one_mistake:Prints", "--clause", "vocabulary", "--json").json
    assert "hidden (2, 70, 16)" in told["clauses"][0]["output"]


def test_a_failure_shows_the_line_of_the_authors_file_and_what_was_not_reached(bench):
    finished = bench("check", "one_mistake:ReturnsTuple", "--clause", "causal")
    assert finished.code == 1
    assert "1 of 2 clauses fail: forward; 1 were not reached" in finished.out
    assert "rests on forward, which fails" in finished.out
    assert "one_mistake.py:" in finished.out and "return transformers' CausalLMOutputWithPast" in finished.out


@pytest.mark.parametrize(
    ("plugin", "wrong", "told"),
    [("right_model:Right", "causl", "did you mean causal"), ("right_task:RightTask", "batchs", "did you mean batches")],
)
def test_an_unknown_clause_is_refused_with_the_list(bench, plugin, wrong, told):
    finished = bench("check", plugin, "--clause", wrong)
    assert finished.code == 2
    assert told in finished.err and "clauses: settings, presets, " in finished.err


@pytest.mark.parametrize("clauses", [MODEL_CLAUSES, TASK_CLAUSES], ids=["model", "task"])
def test_what_clauses_rest_on_exists_and_goes_in_no_circle(clauses):
    def depth(name, below=()):
        assert name not in below
        return 1 + max((depth(needed, (*below, name)) for needed in clauses[name].needs), default=0)

    assert all(depth(name) < 10 for name in clauses)
