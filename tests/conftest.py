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


@pytest.fixture(autouse=True, scope="session")
def single_thread() -> None:
    """Tiny tensors: a second thread costs more than it brings, and sums keep their order."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)
