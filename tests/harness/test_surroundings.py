"""What surrounds a command decides no number: variables, the settings of torch, what was done in the process before."""

import contextlib
import functools
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from accelerate.utils import DynamoBackend
from command_line import SUPPORT, TOY, Bench, python
from safetensors.torch import load_file

from seqbench.environment import describe_environment, fixed_surroundings
from seqbench.errors import RequestError
from seqbench.planning.plan import resolve
from seqbench.planning.request import RunRequest
from seqbench.plugins.registry import find_model
from seqbench.running.rounding import made_otherwise, rounding_differences
from seqbench.store.run_folder import RunFolder
from seqbench.surroundings.torch_settings import fresh_torch_settings, kept_torch_settings
from seqbench.surroundings.variables import hidden_names, hidden_variables, refuse_variables, rounding_variables
from seqbench.training.trainer import _accelerator

RUN = ("run", *TOY, "--json")
CPU = torch.device("cpu")
# What they say, and accelerate alone would do.
INSTRUCTIONS = {
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4",
    "ACCELERATE_DYNAMO_BACKEND": "inductor",
    "ACCELERATE_MIXED_PRECISION": "bf16",
    "ACCELERATE_DOWNCAST_BF16": "1",
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_CPU_RAM_EFFICIENT_LOADING": "true",
    "ACCELERATE_TORCH_DEVICE": "meta",
    "ACCELERATE_OF_NEXT_YEAR": "1",
}


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    for name in hidden_names():
        monkeypatch.delenv(name)
    yield monkeypatch
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


@pytest.fixture(scope="module")
def plain(bench: Bench) -> dict:
    assert bench(*RUN, "--output", "plain").code == 0
    return bench.result("plain")


@pytest.mark.slow
def test_instructions_in_the_environment_change_no_bit_and_are_told_and_recorded(bench: Bench, plain: dict) -> None:
    finished = bench.fresh(*RUN, "--output", "instructed", **INSTRUCTIONS)
    assert finished.code == 0, finished.err
    assert finished.json["measurements"] == plain["measurements"]
    one, other = (load_file(bench.folder / name / "model" / "model.safetensors") for name in ("plain", "instructed"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert (
        "bench: not followed, in the environment: ACCELERATE_DOWNCAST_BF16, ACCELERATE_DYNAMO_BACKEND" in finished.err
    )
    stored = json.loads((bench.folder / "instructed" / "environment.json").read_text())
    assert stored["ignored_variables"] == INSTRUCTIONS


def test_a_precision_that_cannot_be_overruled_is_refused_with_the_line_to_type(bench: Bench) -> None:
    stored = sorted(bench.folder.glob("runs/*"))
    for name, value in (("NVIDIA_TF32_OVERRIDE", "1"), ("ONEDNN_DEFAULT_FPMATH_MODE", "BF16")):
        for command in (RUN, ("compare", "--models", TOY[1], "--task", TOY[3], "--seeds", "1")):
            finished = bench(*command, **{name: value})
            assert finished.code == 2 and f"type: unset {name}" in finished.err
    assert sorted(bench.folder.glob("runs/*")) == stored


def test_a_stored_result_of_other_rounding_is_told(bench: Bench, plain: dict) -> None:
    """As threads and kernels are."""
    finished = bench(*RUN, "--output", "plain", MKL_CBWR="COMPATIBLE")
    assert finished.json["measurements"] == plain["measurements"]
    assert "the stored result was made with MKL_CBWR unset instead of COMPATIBLE" in finished.err
    assert "instead of" not in bench(*RUN, "--output", "plain").err


def test_settings_of_a_plugins_module_and_build_are_undone(bench: Bench, plain: dict) -> None:
    result = bench("run", "--model", "toy_surroundings:Meddler", "--task", TOY[3], "--json", "--runs", "meddled").json
    assert result["measurements"] == plain["measurements"]


@pytest.mark.parametrize("name", INSTRUCTIONS)
def test_accelerate_finds_no_instructions(clean: pytest.MonkeyPatch, name: str) -> None:
    clean.setenv(name, INSTRUCTIONS[name])
    accelerator = _accelerator(CPU, "fp32")
    assert accelerator.gradient_accumulation_steps == 1
    assert accelerator.mixed_precision == "no"
    assert accelerator.state.dynamo_plugin.backend == DynamoBackend.NO
    assert accelerator.device.type == "cpu"
    assert os.environ[name] == INSTRUCTIONS[name]


def test_an_accelerator_of_the_caller_leaves_nothing_behind(clean: pytest.MonkeyPatch) -> None:
    theirs = Accelerator(gradient_accumulation_steps=4, cpu=True)
    with theirs.accumulate(torch.nn.Linear(1, 1)):
        assert not GradientState().sync_gradients
    ours = _accelerator(CPU, "bf16")
    assert ours.gradient_accumulation_steps == 1 and ours.sync_gradients
    assert ours.mixed_precision == "bf16"


def test_hidden_variables_come_back_and_what_was_set_meanwhile_goes(clean: pytest.MonkeyPatch) -> None:
    clean.setenv("ACCELERATE_OF_NEXT_YEAR", "1")
    with hidden_variables():
        assert hidden_names() == []
        assert describe_environment(CPU)["ignored_variables"] == {"ACCELERATE_OF_NEXT_YEAR": "1"}
        os.environ["ACCELERATE_USE_FSDP"] = "true"
    assert hidden_names() == ["ACCELERATE_OF_NEXT_YEAR"]
    assert describe_environment(CPU)["ignored_variables"] == {}


@pytest.mark.parametrize(
    ("name", "value", "harmless"),
    [
        ("NVIDIA_TF32_OVERRIDE", "1", "0"),
        ("DNNL_DEFAULT_FPMATH_MODE", "any", "strict"),
        ("ONEDNN_DEFAULT_FPMATH_MODE", "TF32", "STRICT"),
        ("TRITON_F32_DEFAULT", "tf32", "ieee"),
    ],
)
def test_precisions_are_refused_by_value(clean: pytest.MonkeyPatch, name: str, value: str, harmless: str) -> None:
    for allowed in (harmless, ""):
        clean.setenv(name, allowed)
        refuse_variables()
    clean.setenv(name, value)
    with pytest.raises(RequestError, match=f"{name}={value} in the environment .*(.|\n)*type: unset {name}"):
        resolve(RunRequest(TOY[1], TOY[3]))


def test_what_can_decide_rounding_is_recorded_by_prefix_and_what_cannot_is_not(clean: pytest.MonkeyPatch) -> None:
    before = rounding_variables()
    deciding = {
        "ATEN_CPU_CAPABILITY": "default",
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
        "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2",
        "KMP_BLOCKTIME": "1",
        "LD_PRELOAD": "",
        "MKL_CBWR": "AVX2",
        "OMP_DYNAMIC": "true",
        "PYTHONHASHSEED": "3",
        "PYTORCH_JIT": "0",
        "TORCHDYNAMO_DISABLE": "1",
        "TORCHINDUCTOR_OF_NEXT_YEAR": "1",
        "TORCH_COMPILE_DISABLE": "1",
        "TRITON_INTERPRET": "1",
    }
    others = ["OMP_NUM_THREADS", "TORCH_HOME", "TRITON_CACHE_DIR", "TORCH_LOGS", "PYTORCH_ALLOC_CONF", "HF_HUB_OFFLINE"]
    for name, value in {**deciding, **dict.fromkeys(others, "x")}.items():
        clean.setenv(name, value)
    assert rounding_variables() == {**before, **deciding}


def told_of(folder: Path, stored: dict) -> list[str]:
    """What is told of a run that was made in the environment `stored`."""
    plan = resolve(RunRequest("transformer", "copy-paste", kernels=""))
    RunFolder(folder).write_environment({"run": plan.run_hash, **stored})
    return made_otherwise(plan, RunFolder(folder))


def test_differences_of_variables_and_instructions_of_the_processor_are_told(
    clean: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    here = describe_environment(CPU)
    clean.setenv("MKL_CBWR", "AVX2")
    now = describe_environment(CPU)
    assert rounding_differences(here, now) == ["MKL_CBWR unset, now AVX2"]
    assert rounding_differences({**now, "cpu_capability": "OLD"}, now) == [
        f"cpu_capability OLD, now {torch.backends.cpu.get_cpu_capability()}"
    ]
    told = functools.partial(told_of, tmp_path)
    assert told(here) == ["MKL_CBWR unset instead of AVX2"]
    older = {**here, "packages": {**here["packages"], "transformers": "5.17.0"}}
    assert told(older)[1:] == [f"transformers 5.17.0 instead of {here['packages']['transformers']}"]
    # Of what a run before did not record, nothing is known.
    unrecorded = {key: value for key, value in here.items() if key not in ("variables", "cpu_capability")}
    assert rounding_differences(unrecorded, now) == [] and told(unrecorded) == []


@pytest.fixture
def meddled() -> Iterator[None]:
    """Everything that a caller may have changed for the whole process."""
    with kept_torch_settings():
        torch.set_default_dtype(torch.float64)
        torch.set_float32_matmul_precision("medium")
        torch.backends.fp32_precision = "tf32"
        torch.backends.mkldnn.conv.fp32_precision = "bf16"
        torch.backends.cudnn.benchmark = True
        torch.backends.cuda.enable_flash_sdp(False)
        torch.set_flush_denormal(True)
        torch.set_grad_enabled(False)
        torch.set_default_device("meta")
        with torch.autocast("cpu", torch.bfloat16):
            yield


def test_inside_torch_computes_as_in_a_fresh_process_and_afterwards_as_the_caller_had_it(meddled: None) -> None:
    with fixed_surroundings():
        assert torch.zeros(1).dtype == torch.float32 and torch.zeros(1).device.type == "cpu"
        assert torch.get_float32_matmul_precision() == "highest"
        assert torch.backends.mkldnn.matmul.fp32_precision == "ieee" == torch.backends.cuda.matmul.fp32_precision
        assert torch.backends.mkldnn.conv.fp32_precision == "none" == torch.backends.fp32_precision
        assert not torch.backends.cudnn.benchmark and torch.backends.cuda.flash_sdp_enabled()
        assert torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu")
        assert torch.tensor(1e-40) * 1 > 0
    assert torch.get_default_dtype() == torch.float64 and torch.get_default_device().type == "meta"
    assert torch.backends.mkldnn.conv.fp32_precision == "bf16" and torch.backends.fp32_precision == "tf32"
    assert torch.backends.cudnn.benchmark and not torch.backends.cuda.flash_sdp_enabled()
    assert not torch.is_grad_enabled() and torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize("by_context", [False, True])
def test_a_default_device_is_put_aside_without_another_in_its_place(by_context: bool) -> None:
    """One that is set looks at every call of torch, and nothing that it looks at can be compiled."""
    with kept_torch_settings(), contextlib.ExitStack() as stack:
        if by_context:
            stack.enter_context(torch.device("meta"))
        else:
            torch.set_default_device("meta")
        with fresh_torch_settings():
            assert torch.zeros(1).device.type == "cpu"
            assert by_context or not torch.overrides._get_current_function_mode_stack()
        assert torch.zeros(1).device.type == "meta"
    assert torch.zeros(1).device.type == "cpu" and not torch.overrides._get_current_function_mode_stack()


def test_fresh_settings_are_those_that_torch_starts_with() -> None:
    """Where a release of torch starts otherwise, this says so."""
    lines = [
        "from seqbench.surroundings.torch_settings import _SETTINGS",
        "pairs = [(setting.read(), setting.fresh) for setting in _SETTINGS]",
        "print([pair for pair in pairs if pair[0] != pair[1] and pair != ('none', 'ieee')])",
    ]
    found, _ = python("-c", "\n".join(lines)).communicate()
    assert found == "[]\n"


def test_importing_a_plugin_leaves_torch_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(SUPPORT)
    with fresh_torch_settings():
        find_model("toy_surroundings:Meddler")
        assert torch.get_default_dtype() == torch.float32 and torch.get_float32_matmul_precision() == "highest"


def test_the_environment_of_a_run_says_what_was_there(bench: Bench, plain: dict) -> None:
    stored = json.loads((bench.folder / Path("plain") / "environment.json").read_text())
    assert stored["cpu_capability"] == torch.backends.cpu.get_cpu_capability()
    assert stored["ignored_variables"] == {}
