"""Every test runs on one thread, from one seed, and property tests repeat the same examples."""

import signal

import hypothesis
import pytest
import torch

# Under nohup it is ignored, and so would processes that a test sends it to.
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# Thirty examples: one of a task costs a tenth of a second, for its evaluation sets are drawn to hold training out of
# them. Tests of what costs nothing ask for more.
hypothesis.settings.register_profile("reproducible", deadline=None, derandomize=True, max_examples=30)
hypothesis.settings.load_profile("reproducible")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Processes share the tests out by file, whose set-up is made once; the contract's by plugin, of which there are
    many.
    """
    for item in items:
        of_plugin = getattr(item, "callspec", None) if item.path.name == "test_model_contract.py" else None
        part = of_plugin.params.get("name", "") if of_plugin is not None else ""
        item.add_marker(pytest.mark.xdist_group(f"{item.path.stem} {part}".strip()))


@pytest.fixture(autouse=True, scope="session")
def single_thread() -> None:
    """Tiny tensors: a second thread costs more than it brings, and sums keep their order."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)
