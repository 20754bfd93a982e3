"""Every test runs on one thread, from one seed, and property tests repeat the same examples."""

import hypothesis
import pytest
import torch

hypothesis.settings.register_profile("reproducible", deadline=None, derandomize=True)
hypothesis.settings.load_profile("reproducible")


@pytest.fixture(autouse=True, scope="session")
def single_thread() -> None:
    """Tiny tensors: a second thread costs more than it brings, and sums keep their order."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)
