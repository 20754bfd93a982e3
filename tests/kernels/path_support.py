"""Tests that are run once for each path of an operation."""

import pytest

PATHS = [
    pytest.param("cpu", id="cpu"),
    pytest.param("reference", id="reference"),
    pytest.param("triton", id="triton", marks=pytest.mark.interpreted),
]
on_every_path = pytest.mark.parametrize("path", PATHS)
