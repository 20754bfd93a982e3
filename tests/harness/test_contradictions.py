"""A request that contradicts itself is refused: nothing in it is overruled in silence by something else in it."""

import click
import pytest
from command_line import TOY

from seqbench.cli.app import LazyGroup
from seqbench.cli.command import Command

RUN = ("run", *TOY)
PMNET = ("run", "--model", "pmnet", "--task", "copy-paste")
MODELS = ("toy_model:Neighbour", "toy_model:ShortSighted")
COMPARE = ("compare", "--task", "toy_task:Recall", "--models", ",".join(MODELS))
SPEED = ("speed", "--models", MODELS[0])

# Arguments, and what the message must say: what contradicts what, and what to do.
CONTRADICTIONS = {
    "two models": ((*RUN, "--model", "pmnet"), "--model is given 2 times, as toy_model:Neighbour and pmnet; type it"),
    "two seeds": ((*RUN, "--seed", "1", "--seed=2"), "--seed is given 2 times, as 1 and 2; type it once"),
    "two budgets": ((*RUN, "--tokens", "1k", "--flops", "1e6"), "give one of --tokens and --flops"),
    "two values of a field": ((*RUN, "--set", "steps=1", "--set", "steps=2"), "given twice, as 1 and 2; type it once"),
    "two names of a field": ((*RUN, "--set", "lr=1", "--set", "learning_rate=2"), "lr and learning_rate are the same"),
    "two presets of the model": (
        (*PMNET, "--preset", "30m", "--preset", "119m"),
        "30m and --preset 119m are both presets of model",
    ),
    "two presets of the task": ((*PMNET, "--preset", "paper", "--preset", "tiny-filler"), "are both presets of task"),
    "a solved field": ((*RUN, "--params", "1k", "--set", "model.width=9"), "--params finds width of model"),
    "a solved field, in total": ((*RUN, "--params-total", "1k", "--set", "model.width=9"), "leave one of them out"),
    "tokens and steps": ((*RUN, "--tokens", "1k", "--set", "steps=9"), "--tokens ends training, and so would steps=9"),
    "seconds and steps": ((*RUN, "--seconds", "1", "--steps", "9"), "--seconds ends training, and so would steps=9"),
    "steps and the field": ((*RUN, "--steps", "9", "--set", "trainer.steps=8"), "--steps 9 and --set trainer.steps=8"),
    "rate and the field": ((*RUN, "--lr", "0.1", "--set", "lr=0.2"), "--lr 0.1 and --set lr=0.2 are the same field"),
    "one ablation and several": ((*RUN, "--ablate", "no-dropout", "--ablations", "all"), "--ablate means nothing"),
    "searched and set": ((*COMPARE, "--search", "lr=1,2", "--set", "learning_rate=3"), "given as learning_rate=3"),
    "searched and given": ((*COMPARE, "--search", "lr=1,2", "--lr", "3"), "given as learning_rate=3.0; leave one"),
    "searched twice": ((*COMPARE, "--search", "lr=1,2", "--search", "learning_rate=3,4"), "is searched already"),
    "a value searched twice": ((*COMPARE, "--search", "lr=0.1,1e-1"), "0.1, 1e-1 are not all different"),
    "halving nothing": ((*COMPARE, "--halving"), "--halving means nothing without --search; add --search"),
    "a share of nothing": ((*COMPARE, "--trial-share", "0.5"), "--trial-share means nothing without --search"),
    "searched steps": ((*COMPARE, "--search", "steps=1,2"), "what can be searched: optimizer, learning_rate"),
    "searched batches": ((*COMPARE, "--search", "batch_size=1,2"), "every point is to have alike"),
    "of one and of all": (
        (*COMPARE, "--set", f"{MODELS[0]}.dropout=0.1", "--set", "model.dropout=0.2"),
        f"--set {MODELS[0]}.dropout and model.dropout are the same field",
    ),
    "of one and of all, when measured": (
        (*SPEED, "--set", "model.dropout=0.2", "--set", f"{MODELS[0]}.dropout=0.1"),
        f"--set model.dropout and {MODELS[0]}.dropout are the same field",
    ),
    "a solved field, when measured": ((*SPEED, "--params", "1k", "--set", "model.width=9"), "--params finds width"),
    "two presets, when measured": ((*SPEED, "--preset", "wide", "--preset", "tiny"), "every model has one preset"),
    "models and operations": ((*SPEED, "--kernels"), "--models means nothing beside --kernels"),
    "lengths of operations": (("speed", "--kernels", "--lengths", "1k"), "--lengths means nothing beside --kernels"),
    "agreed to nothing": (("runs", "--yes"), "--yes means nothing without --remove"),
    "two runs folders": (("runs", "--runs", "a", "--runs", "b"), "--runs is given 2 times, as a and b"),
}


@pytest.mark.parametrize("case", CONTRADICTIONS)
def test_a_contradiction_is_named_and_nothing_is_done(bench, case):
    arguments, told = CONTRADICTIONS[case]
    finished = bench(*arguments)
    assert (finished.code, finished.out) == (2, ""), finished
    assert told in " ".join(finished.err.split())
    assert "Traceback" not in finished.err
    assert not list(bench.folder.iterdir())


@pytest.mark.parametrize(
    "twice",
    [
        ("--seed", "3", "--seed", "3"),
        ("--set", "steps=4", "--set", "steps=4"),
        ("--preset", "wide", "--preset", "wide"),
        ("--preset", "wide", "--preset", "longer"),
        # Of the model alone, and of both.
        ("--preset", "wide", "--preset", "tiny"),
    ],
)
def test_what_is_said_twice_and_agrees_is_done(bench, twice):
    assert bench(*RUN, *twice, "--dry-run").code == 0


@pytest.mark.parametrize("name", LazyGroup().list_commands(None))
def test_every_command_refuses_every_option_of_one_value_that_is_given_two(name):
    command = LazyGroup().get_command(None, name)
    assert isinstance(command, Command)
    single = [each for each in command.params if isinstance(each, click.Option) and not (each.multiple or each.is_flag)]
    for option in single:
        with pytest.raises(click.UsageError, match=f"{option.opts[0]} is given 2 times, as 1 and 2"):
            command.make_context(name, [option.opts[0], "1", option.opts[0], "2"])


@pytest.mark.parametrize("name", LazyGroup().list_commands(None))
def test_every_command_refuses_an_empty_value_of_every_option(name):
    command = LazyGroup().get_command(None, name)
    for option in command.params:
        if isinstance(option, click.Option) and not option.is_flag:
            for arguments in ([option.opts[0], ""], [option.opts[0], " "], [f"{option.opts[0]}="]):
                with pytest.raises(click.UsageError, match=f"{option.opts[0]} is empty"):
                    command.make_context(name, arguments)
