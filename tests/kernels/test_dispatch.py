"""Which path of an operation runs: by preference, device and request."""

import pytest
import torch

from seqbench_kernels import dispatch
from seqbench_kernels.dispatch import Operation, Path, UnknownPathError, check_request, request_paths

CPU, CUDA, META = torch.device("cpu"), torch.device("cuda"), torch.device("meta")


def only_cuda(device: torch.device, dtype: torch.dtype) -> str | None:
    return None if device.type == "cuda" else "it needs a GPU"


def only_fp32(device: torch.device, dtype: torch.dtype) -> str | None:
    return None if dtype == torch.float32 else "it computes in fp32 alone"


def operation(name: str = "scan") -> Operation:
    paths = (Path("gpu", only_cuda), Path("cpu", only_fp32), Path("slow", by_default=False), Path("reference"))
    return Operation(name, lambda: None, paths)


def test_the_first_path_that_serves_device_and_dtype_runs_and_is_noted() -> None:
    scan = operation()
    assert scan.choose(CPU, torch.float32) == "cpu"
    assert scan.choose(CPU, torch.bfloat16) == "reference"
    assert scan.choose(CUDA, torch.bfloat16) == "gpu"
    assert scan.taken == {"cpu", "reference", "gpu"}


def test_a_path_may_be_taken_by_default_on_one_type_of_device_and_elsewhere_on_request() -> None:
    both = Operation("read", lambda: None, (Path("gpu", by_default="cuda"), Path("cpu")))
    assert both.choose(CUDA, torch.float32) == "gpu"
    assert both.choose(CPU, torch.float32) == "cpu"
    request_paths("gpu")
    assert both.choose(CPU, torch.float32) == "gpu"


@pytest.mark.parametrize("request_text", ["slow", "scan=slow", " scan = slow , other=cpu", "slow,other=reference"])
def test_a_path_that_is_asked_for_runs_even_where_it_is_not_taken_by_default(request_text: str) -> None:
    request_paths(request_text)
    assert operation().choose(CPU, torch.float32) == "slow"


def test_what_is_asked_of_one_operation_goes_before_what_is_asked_of_all() -> None:
    request_paths("reference,scan=slow")
    assert operation().choose(CPU, torch.float32) == "slow"
    assert operation("other").choose(CPU, torch.float32) == "reference"


def test_a_path_for_all_that_an_operation_does_not_have_leaves_it_its_choice() -> None:
    request_paths("triton")
    assert operation().choose(CPU, torch.float32) == "cpu"


def test_a_path_that_was_asked_for_and_cannot_serve_is_an_error_that_says_why() -> None:
    request_paths("scan=gpu")
    with pytest.raises(UnknownPathError, match="'gpu', which cannot serve cpu tensors of float32: it needs a GPU"):
        operation().choose(CPU, torch.float32)


def test_the_environment_variable_counts_where_a_program_asks_for_nothing(monkeypatch) -> None:
    monkeypatch.setenv(dispatch.ENVIRONMENT_VARIABLE, "slow")
    assert operation().choose(CPU, torch.float32) == "slow"
    request_paths("reference")
    assert operation().choose(CPU, torch.float32) == "reference"
    request_paths("")
    assert operation().choose(CPU, torch.float32) == "cpu"


@pytest.mark.parametrize(
    ("request_text", "device", "told"),
    [
        ("sacn=cpu", None, "no operation 'sacn'; there are other, scan"),
        ("scan=cuda", None, "no path 'cuda'; scan has cpu, gpu, reference, slow"),
        ("fast", None, "no path 'fast'; operations have"),
        ("scan=", None, "neither a path nor operation=path"),
        ("scan=cpu,scan=gpu", None, "names scan twice"),
        ("cpu,gpu", None, "names a path for all twice"),
        ("scan=gpu", CPU, "the path 'gpu' cannot serve cpu tensors: it needs a GPU"),
        ("gpu", META, "the path 'gpu' cannot serve meta tensors: it needs a GPU"),
    ],
)
def test_a_request_that_cannot_be_followed_is_told_beforehand(request_text, device, told: str) -> None:
    with pytest.raises(UnknownPathError, match=told):
        check_request(request_text, [operation(), operation("other")], device)


@pytest.mark.parametrize("device", [None, CPU, CUDA])
@pytest.mark.parametrize("request_text", ["", "reference", "scan=cpu", "slow,other=reference"])
def test_a_request_that_can_be_followed_passes(request_text: str, device: torch.device | None) -> None:
    check_request(request_text, [operation(), operation("other")], device)
    operation().check_request(request_text, [operation(), operation("other")], device)
