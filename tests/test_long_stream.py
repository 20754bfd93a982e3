"""A million tokens through the tiny PMNet: memory stays where it was at a hundred thousand."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest
import torch
from model_support import bytes_in
from torch import Tensor

from seqbench.environment import tune_allocator
from seqbench.evaluating.streaming import stream
from seqbench.plugins.registry import find_model

EARLY, LONG = 100_000, 1_000_000
VOCABULARY = 384
MEBIBYTE = 2**20


def pieces(length: int) -> Iterator[Tensor]:
    """Random bytes, made as they are needed: the sequence is not held either."""
    generator = torch.Generator().manual_seed(1)
    for start in range(0, length, 10_000):
        yield torch.randint(0, 256, (1, min(10_000, length - start)), generator=generator)


def measure(allocator: str) -> dict[str, dict[str, int] | bool]:
    """Resident memory and bytes of the state at both lengths, and whether all logits were finite."""
    torch.set_num_threads(1)
    if allocator == "tuned":
        tune_allocator()
    plugin = find_model("pmnet")
    torch.manual_seed(0)
    model = plugin.build(plugin.with_vocabulary(plugin.presets["tiny"], VOCABULARY))
    process, finite, marks = psutil.Process(), True, {}
    for chunk in stream(model, pieces(LONG)):
        finite = finite and bool(chunk.logits.isfinite().all())
        end = chunk.start + chunk.input_ids.shape[1]
        if (end >= EARLY and "early" not in marks) or end == LONG:
            name = "early" if "early" not in marks else "late"
            marks[name] = {"tokens": end, "resident": process.memory_info().rss, "state": bytes_in(chunk.state)}
    return {**marks, "finite": finite}


@pytest.mark.slow
@pytest.mark.parametrize("allocator", ["default", "tuned"])
def test_memory_after_a_million_tokens_is_that_after_a_hundred_thousand(allocator: str) -> None:
    """In a process of its own, with the C library's memory settings and with those of `bench`."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, allocator]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment)
    assert finished.returncode == 0, finished.stderr
    measured = json.loads(finished.stdout.splitlines()[-1])
    early, late = measured["early"], measured["late"]
    assert EARLY <= early["tokens"] < EARLY + 10_000
    assert late["tokens"] == LONG
    assert measured["finite"]
    assert late["state"] == early["state"] > 0
    assert late["resident"] - early["resident"] <= 16 * MEBIBYTE


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1])))
