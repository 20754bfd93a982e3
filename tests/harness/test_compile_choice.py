"""`--compile`: the same scores to rounding, compiling told and not timed, plain checkpoints, and refusals by name."""

import shutil
from collections.abc import Iterator

import pytest
import torch
from accelerate import Accelerator
from command_line import TOY, Bench
from safetensors import safe_open
from toy_model import Neighbour, NeighbourSettings
from toy_task import Recall, RecallSettings

from seqbench.contracts import Batch
from seqbench.errors import RunFailure
from seqbench.planning.plan import resolve
from seqbench.planning.request import RunRequest
from seqbench.training.compilation import CompiledLoss, SummedLoss
from seqbench.training.gradients import GradientAccumulator

RUN = ("run", *TOY, "--set", "model.dropout=0")
needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="compiling for a CPU needs g++")


@pytest.fixture(autouse=True)
def nothing_compiled_before() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def measured(result: dict) -> list[float]:
    return [measurement["value"] for measurement in result["measurements"]]


def toy() -> tuple[torch.nn.Module, list[Batch]]:
    """A toy without dropout, and batches of its task."""
    task = Recall(RecallSettings())
    torch.manual_seed(0)
    plugin = Neighbour()
    model = plugin.build(plugin.with_vocabulary(NeighbourSettings(dropout=0.0), task.vocab_size))
    return model.train(), [task.training_batch(0, index, 8) for index in range(4)]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_compiled_step_has_the_loss_and_gradients_of_an_uncompiled_one(precision: str) -> None:
    model, batches = toy()
    compiled = CompiledLoss(model, precision, backend="aot_eager")
    found = {}
    with compiled.timed():
        for name, loss in (("compiled", compiled), ("plain", SummedLoss(model))):
            model.zero_grad()
            gradients = GradientAccumulator(model, loss, Accelerator(cpu=True), 4, lambda size: None)
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                losses = torch.stack([gradients.accumulate(batch, 0)[0] for batch in batches])
            found[name] = torch.cat([losses, *(parameter.grad.flatten() for parameter in model.parameters())])
    assert (found["compiled"] - found["plain"]).abs().max() < (1e-5 if precision == "fp32" else 2e-2)
    assert compiled.seconds > 0


def test_time_is_taken_of_compiling_alone() -> None:
    model, batches = toy()
    compiled = CompiledLoss(model, "fp32", backend="aot_eager")
    with compiled.timed():
        compiled(batches[0])[0].backward()
        first = compiled.seconds
        for _ in range(20):
            compiled(batches[0])[0].backward()
        assert compiled.seconds == first > 0


def test_what_breaks_the_graph_in_the_middle_of_a_run_fails_it() -> None:
    """Nothing is computed uncompiled in its place."""
    model, batches = toy()
    compiled = CompiledLoss(model, "fp32", backend="aot_eager")
    model.inner.register_forward_hook(lambda *_: torch._dynamo.graph_break())
    with pytest.raises(RunFailure, match="cannot take a batch as one graph") as caught, compiled.timed():
        compiled(batches[0])
    assert caught.value.reason == "compilation"


def test_a_compiled_run_is_another_run() -> None:
    """Its dropout is drawn from another generator."""
    plain, compiled = (resolve(RunRequest(TOY[1], TOY[3], compiled=compiled)).identity for compiled in (False, True))
    assert compiled == {**plain, "compiled": True}


def test_the_request_is_handed_on_to_the_processes_of_a_comparison() -> None:
    assert "--compile" in RunRequest(TOY[1], TOY[3], compiled=True).arguments()
    assert "--compile" not in RunRequest(TOY[1], TOY[3]).arguments()


@needs_compiler
def test_a_model_that_is_no_single_graph_is_refused_with_the_reason_before_anything_is_written(bench: Bench) -> None:
    refused = bench("run", "--model", "toy_model:Asking", *TOY[2:], "--compile", "--runs", "refused")
    assert refused.code == 2
    assert "--compile: model toy_model:Asking cannot be compiled as one graph" in refused.err
    assert "toy_model.py" in refused.err and "leave --compile out" in refused.err
    assert "Traceback" not in refused.err
    assert not list((bench.folder / "refused").rglob("run.json"))


@pytest.mark.slow
def test_without_a_compiler_it_is_refused(bench: Bench) -> None:
    cache = bench.folder / "empty cache"
    refused = bench(*RUN, "--compile", "--runs", "none", CXX="no-such-compiler", TORCHINDUCTOR_CACHE_DIR=str(cache))
    assert refused.code == 2
    assert "torch cannot do that here" in refused.err and "g++" in refused.err


@pytest.mark.slow
@needs_compiler
def test_a_compiled_run_scores_as_an_uncompiled_one_and_says_what_compiling_took(bench: Bench) -> None:
    """Also where it was killed on the way; its checkpoints name parameters as the model does."""
    plain = bench(*RUN, "--json", "--output", "plain").json
    compiled = bench(*RUN, "--compile", "--json", "--output", "compiled").json
    killed = bench(*RUN, "--compile", "--output", "killed", TOY_SIGNAL="SIGKILL@train:6")
    assert killed.code != 0
    checkpoint = next((bench.folder / "killed" / "checkpoints").glob("step-*/model.safetensors"))
    with safe_open(checkpoint, "pt") as file:
        assert set(file.keys()) == {name for name, _ in toy()[0].named_parameters()}
    resumed = bench(*RUN, "--compile", "--json", "--output", "killed").json
    assert measured(compiled) == pytest.approx(measured(plain), abs=1e-4)
    assert measured(resumed) == measured(compiled)
    assert compiled["compiled"] and not plain["compiled"]
    assert compiled["compile_seconds"] > compiled["seconds"] and "compile_seconds" not in plain
    shown = bench("show", "compiled").out
    assert "compiled by torch.compile, which training times do not count" in shown
