"""`bench check` and `seqbench.testing`: right plugins pass, and wrong ones fail the clauses that they break."""

from typing import ClassVar

import pytest
import torch
import wrong_behaviour
import wrong_calls  # noqa: F401 (its models are among WRONG)
import wrong_declarations  # noqa: F401 (its models are among WRONG)
import wrong_tasks
import wrong_weights
from announced_package import announce_package
from click.testing import CliRunner
from right_model import Right
from right_task import RightTask
from wrong_plugins import WRONG

from seqbench.cli.check import check
from seqbench.errors import RequestError
from seqbench.testing import (
    check_model_plugin,
    check_task_plugin,
    examine_model_plugin,
    examine_task_plugin,
)
from seqbench.testing.model.clauses import MODEL_CLAUSES
from seqbench.testing.task.clauses import TASK_CLAUSES

# Clauses on what a prediction depends on: a model that breaks one of them is held to the others too. Plugins that break
# another one are spared these, and everybody the other long ones, unless they are to fail them.
BEHAVIOUR = {"causal", "rows-independent", "chunked", "padding", "padding-state"}
LONG = {"receptive-field", "flops", "save-load"}
# What a model does with its arguments, in `generate` and in training: others are spared these.
CALLS = {"arguments", "labels", "logits-to-keep", "generate", "training-step", "auxiliary-loss"}


def named(plugin):
    return plugin.__name__


def at_the_bottom(broken, clauses):
    """Of the clauses that a plugin breaks, those that do not rest on another one of them."""

    def rests_on(name):
        return {*clauses[name].needs}.union(*(rests_on(needed) for needed in clauses[name].needs))

    return {name for name in broken if not rests_on(name) & broken}


def test_a_right_model_keeps_every_clause():
    report = examine_model_plugin(Right)
    assert [outcome.clause for outcome in report.outcomes] == list(MODEL_CLAUSES)
    assert {outcome.state for outcome in report.outcomes} == {"passed"}, report.text()


@pytest.mark.parametrize("plugin", WRONG, ids=named)
def test_a_wrong_model_fails_what_it_breaks_and_nothing_else(plugin):
    expected = WRONG[plugin]
    spared = LONG | (BEHAVIOUR if not expected & BEHAVIOUR else set()) | (CALLS if not expected & CALLS else set())
    clauses = [clause for clause in MODEL_CLAUSES if clause in expected or clause not in spared]
    report = examine_model_plugin(plugin, clauses=clauses)
    assert report.failed_clauses == at_the_bottom(expected, MODEL_CLAUSES), report.text()


def test_every_clause_has_a_model_that_fails_it():
    told = [at_the_bottom(expected, MODEL_CLAUSES) for expected in WRONG.values()]
    # The first two: test_check_teaches.py.
    assert set().union(*told) | {"build", "forward"} == MODEL_CLAUSES.keys()


def test_a_parameter_that_nobody_initialises_is_noticed():
    report = examine_model_plugin(wrong_weights.UnsetParameter, clauses=["seeded-initialisation"])
    assert "scale" in report.failures[0].message


# The process that compares batches with those of another one takes seconds to start: only where nothing else tells.
def task_clauses(task):
    told = wrong_tasks.WRONG.get(task, set())
    return [clause for clause in TASK_CLAUSES if clause != "reproducible" or clause in told]


def test_a_right_task_keeps_every_clause():
    report = examine_task_plugin(RightTask, clauses=task_clauses(RightTask))
    assert {outcome.state for outcome in report.outcomes} == {"passed"}, report.text()


@pytest.mark.parametrize("task", wrong_tasks.WRONG, ids=named)
def test_a_wrong_task_fails_what_it_breaks_and_nothing_else(task):
    report = examine_task_plugin(task, clauses=task_clauses(task))
    assert report.failed_clauses == at_the_bottom(wrong_tasks.WRONG[task], TASK_CLAUSES), report.text()


def test_a_task_that_counts_what_it_trains_on_keeps_the_clause(monkeypatch):
    monkeypatch.setattr(wrong_tasks.CountsTooFewOfThem, "counted", 2)
    report = examine_task_plugin(wrong_tasks.CountsTooFewOfThem, clauses=["held-out"])
    assert not report.failures, report.text()
    report = examine_task_plugin(wrong_tasks.TrainsOnTwoTestItems, clauses=["held-out"])
    assert report.failures[0].message == "2 of 24 test sequences occur in the first 16 batches of training seed 0"
    report = examine_task_plugin(wrong_tasks.RepeatsTestItems, clauses=["held-out"])
    assert report.failures[0].message == "1 of 24 test sequences are repeats of others"


def test_every_clause_has_a_task_that_fails_it():
    told = [at_the_bottom(expected, TASK_CLAUSES) for expected in wrong_tasks.WRONG.values()]
    assert set().union(*told) == TASK_CLAUSES.keys()


@pytest.mark.parametrize("clause", [*MODEL_CLAUSES.values(), *TASK_CLAUSES.values()], ids=lambda clause: clause.name)
def test_every_clause_says_what_it_demands(clause):
    assert clause.rule.endswith(".") and 20 < len(clause.rule) < 200


# For a plugin author's own pytest.


def test_a_check_raises_an_assertion_error_that_names_clauses_places_and_numbers():
    with pytest.raises(AssertionError) as raised:
        check_model_plugin(wrong_behaviour.SequenceNorm, clauses=["vocabulary", "causal"])
    told = str(raised.value)
    assert "fails 1 of 2 clauses" in told
    assert "causal: other tokens from position" in told and "allowed" in told and "usual causes" in told
    assert raised.value.report.failed_clauses == {"causal"}


@pytest.mark.parametrize("plugin", [Right, Right(), "right_model:Right"], ids=["class", "instance", "name"])
def test_a_model_is_given_as_class_instance_or_name(plugin):
    report = check_model_plugin(plugin, clauses=["parameters", "flops"])
    assert [(outcome.clause, outcome.state) for outcome in report.outcomes] == [
        ("parameters", "passed"),
        ("flops", "passed"),
    ]


def test_another_preset_is_examined_on_request():
    assert check_model_plugin(Right, preset="wide", clauses=["parameters"]).preset == "wide"
    assert check_task_plugin(RightTask, preset="longer", clauses=["batches"]).preset == "longer"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [({"preset": "wied"}, "did you mean wide"), ({"clauses": ["causl"]}, "did you mean causal")],
)
def test_an_unknown_preset_or_clause_is_refused(arguments, told):
    with pytest.raises(RequestError, match=told):
        check_model_plugin(Right, **arguments)


def test_the_callers_random_numbers_go_on_as_if_nothing_had_been_checked():
    torch.manual_seed(3)
    check_model_plugin(Right, clauses=["causal", "seeded-initialisation", "deterministic"])
    after = torch.rand(4)
    torch.manual_seed(3)
    assert torch.equal(after, torch.rand(4))
    assert torch.get_default_dtype() == torch.float32 and not torch.are_deterministic_algorithms_enabled()


# What a plugin declares not to fulfil.


class NeedsWholePrompts(wrong_behaviour.PaddingWrites):
    exemptions: ClassVar = {"padding-state": "prompts of one length only", "causal": "an old habit"}


def test_a_declared_clause_is_no_failure_and_shows_its_reason():
    report = check_model_plugin(NeedsWholePrompts, clauses=["padding-state"])
    (outcome,) = report.outcomes
    assert (outcome.state, outcome.message) == ("declared", "prompts of one length only")
    assert "what follows a prompt" in outcome.hint


def test_a_declared_clause_that_is_fulfilled_is_told():
    (outcome,) = check_model_plugin(NeedsWholePrompts, clauses=["causal"]).outcomes
    assert (
        outcome.state == "passed" and "an old habit" in outcome.message and "take the exemption out" in outcome.message
    )


class ExemptsItselfFromExemptions(Right):
    exemptions: ClassVar = {"exemptions": "of course"}


def test_nobody_is_exempt_from_naming_exemptions_rightly():
    assert examine_model_plugin(ExemptsItselfFromExemptions, clauses=["exemptions"]).failures


# What raises.


class RaisesInState(Right):
    def state_bytes(self, config, sequence_length):
        raise ArithmeticError("nobody counts this")


class EndsProcess(Right):
    def flops(self, config, sequence_length):
        raise SystemExit(3)


def test_an_error_fails_the_first_clause_that_meets_it_and_the_others_are_run():
    report = examine_model_plugin(RaisesInState, clauses=["settings", "parameters", "state-bytes"])
    states = {outcome.clause: outcome.state for outcome in report.outcomes}
    assert states == {"settings": "failed", "state-bytes": "not reached", "parameters": "passed"}
    assert report.failures[0].message == "ArithmeticError: nobody counts this"
    assert "in state_bytes" in report.failures[0].traceback


def test_a_plugin_that_ends_the_process_fails_its_clause():
    report = examine_model_plugin(EndsProcess, clauses=["flops", "parameters"])
    assert report.failed_clauses == {"flops"}


# The command.


def test_the_command_lists_every_clause_and_exits_with_zero(bench):
    finished = bench("check", "right_model:Right")
    assert finished.code == 0, finished.out + finished.err
    assert all(clause in finished.out for clause in MODEL_CLAUSES)
    assert "0 of 30 clauses fail" in finished.out and "failed" not in finished.out


def test_a_failed_clause_is_named_with_numbers_and_a_usual_cause_and_the_exit_code_is_one(bench):
    finished = bench("check", "wrong_behaviour:SecondPass")
    assert finished.code == 1
    assert "1 of 30 clauses fail: causal; 8 were not reached" in finished.out
    assert "change the logits of position" in finished.out and "a state from the end of the sequence" in finished.out


def test_json_holds_every_clause_with_state_rule_and_message(bench):
    told = bench("check", "wrong_behaviour:MiscountsState", "--json").json
    assert (told["kind"], told["preset"], told["passed"]) == ("model", "tiny", False)
    by_name = {clause["clause"]: clause for clause in told["clauses"]}
    assert list(by_name) == list(MODEL_CLAUSES)
    assert {name for name, clause in by_name.items() if clause["state"] == "failed"} == {"state-bytes"}
    assert "holds 459 bytes and state_bytes() declares 448" in by_name["state-bytes"]["message"]


def test_errors_of_the_plugin_are_shown_where_they_were_raised_on_request(bench):
    plain, told = (bench("check", "wrong_declarations:NeedsValues", *more) for more in ((), ("--traceback",)))
    assert plain.code == told.code == 1
    assert "the same command with --traceback shows where" in plain.out and "Traceback" not in plain.out
    assert "Traceback" in told.out and "wrong_declarations.py" in told.out


def test_a_task_is_checked_by_the_same_command(bench):
    told = bench("check", "wrong_tasks:CountsItsBatches", "--json")
    assert told.code == 1
    assert [clause["clause"] for clause in told.json["clauses"]] == list(TASK_CLAUSES)
    assert [clause["clause"] for clause in told.json["clauses"] if clause["state"] == "failed"] == ["reproducible"]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("transfromer", "did you mean transformer?"),
        ("no_such_module:Thing", "there is no module 'no_such_module'"),
        ("right_model:Rihgt", "did you mean Right"),
        ("right_model:RightSettings", "neither a ModelPlugin nor a TaskPlugin"),
        ("broken_on_import:Model", "OSError: the shared library libtoy.so is not installed"),
    ],
)
def test_a_name_that_leads_to_no_plugin_is_refused(bench, name, told):
    finished = bench("check", name)
    assert finished.code == 2
    assert told in finished.err


def test_a_name_of_a_model_and_a_task_is_asked_back(tmp_path, monkeypatch):
    points = "[bench.models]\nboth = right_model:Right\n[bench.tasks]\nboth = right_task:RightTask\n"
    announce_package(tmp_path, "both", points)
    monkeypatch.syspath_prepend(str(tmp_path))
    asked = CliRunner().invoke(check, ["both"])
    assert asked.exit_code == 2
    assert "'both' is a model and a task: type --kind model or --kind task" in asked.output
    answered = CliRunner().invoke(check, ["both", "--kind", "task", "--preset", "tinny"])
    assert answered.exit_code == 2 and "task both has no preset 'tinny'" in answered.output


def test_help_needs_no_torch_and_says_what_exit_codes_mean(bench):
    shown = bench("check", "--help")
    assert shown.code == 0 and "Exit code 0" in shown.out and "package.module:Class" in shown.out
