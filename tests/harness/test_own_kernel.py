"""docs/speed.md, "One of your own": an operation that a stranger's package announces is measured and chosen by name."""

import json
import re
import sys
from pathlib import Path

import pytest
import torch
from announced_package import announce_package
from command_line import Bench

PAGE = (Path(__file__).parents[2] / "docs" / "speed.md").read_text()


def fenced(language: str) -> str:
    """The page's only block in a language."""
    (block,) = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return block


@pytest.fixture(scope="module")
def bench(bench: Bench) -> Bench:
    """A working directory with the page's file, announced as the page says."""
    (bench.folder / "my_kernels.py").write_text(fenced("python"))
    announced = fenced("toml").replace('[project.entry-points."bench.kernels"]', "[bench.kernels]").replace('"', "")
    announce_package(bench.folder, "mine", announced)
    return bench


def test_its_paths_are_measured_beside_the_reference(bench: Bench) -> None:
    shown = bench("speed", "--kernels", "forgetting_sum", "--repeats", "1", "--device", "cpu", "--output", "out")
    assert shown.code == 0, shown.err
    cells = json.loads((bench.folder / "out" / "speed.json").read_text())["cells"]
    assert {cell["name"] for cell in cells} == {"doubling", "reference"}
    assert {cell["place"]["direction"] for cell in cells} == {"forward", "forward+backward"}
    assert all(cell["seconds_per_unit"]["median"] > 0 for cell in cells)


def test_its_paths_are_known_to_requests(bench: Bench) -> None:
    command = ("run", "--model", "toy_model:Neighbour", "--task", "toy_task:Recall", "--dry-run")
    assert bench(*command, "--kernels", "forgetting_sum=reference").code == 0
    refused = bench(*command, "--kernels", "forgetting_sum=triton")
    assert refused.code == 2 and "forgetting_sum has doubling, reference" in refused.err


@pytest.mark.parametrize("length", [1, 2, 37])
def test_its_paths_agree_in_values_and_gradients(bench: Bench, length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(bench.folder)
    import my_kernels

    values = torch.randn(2, length, 3, dtype=torch.float64, requires_grad=True)
    results = []
    for path in (my_kernels.token_by_token, my_kernels.by_doubling):
        sums = path(values, 0.9)
        results.append((sums, *torch.autograd.grad(sums.square().sum(), values)))
    for plain, fast in zip(*results, strict=True):
        torch.testing.assert_close(fast, plain)
    sys.modules.pop("my_kernels")
