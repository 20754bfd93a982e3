"""What the device reaches at best: a matrix product and a copy, measured in the same run as the models."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

import torch

from seqbench.speed.clock import synchronize

# Square products; a CPU core is at its best from about a thousand on, a large GPU from several thousand.
_SIZES = {"cpu": (256, 512, 1024, 2048), "cuda": (1024, 2048, 4096, 8192, 16384)}
# Copied at once: well beyond the caches of a core, and of a GPU.
_COPY_BYTES = {"cpu": 128 * 2**20, "cuda": 2**30}
# A measurement goes on this long, and for so many tries.
_SAMPLE_SECONDS, _TRIES = 0.2, 3
# No larger product is tried after one that took this long: a CPU without the number format is slow by far.
_LONG_SECONDS = 1.0


@dataclass
class Peaks:
    """The device's matrix-product and copy rates.

    Attributes:
        device, dtype: what was measured, as words.
        matrix: side of the square product -> FLOP/s of its fastest try, before everything else.
        copy: bytes read plus bytes written per second in the fastest try, before everything else.
        matrix_samples, copy_samples: the same of the best side, and of the copy, once a repeat.
        matrix_averages, copy_averages: over all tries of those samples; far below them where something else uses the
            machine.
    """

    device: torch.device
    dtype: torch.dtype
    matrix: dict[int, float] = field(default_factory=dict)
    copy: float = 0.0
    matrix_samples: list[float] = field(default_factory=list)
    copy_samples: list[float] = field(default_factory=list)
    matrix_averages: list[float] = field(default_factory=list)
    copy_averages: list[float] = field(default_factory=list)

    def measure(self) -> None:
        """All sizes, before everything else."""
        for size in _SIZES[self.device.type]:
            seconds = min(self._product_times(size))
            self.matrix[size] = 2 * size**3 / seconds
            if seconds > _LONG_SECONDS:
                break
        self.copy = self._copied_bytes / min(self._copy_times())

    def sample(self) -> None:
        """The best size and the copy again, so that a machine that drifts is seen to."""
        size = self.best_size
        products, copies = self._product_times(size), self._copy_times()
        self.matrix_samples.append(2 * size**3 / min(products))
        self.matrix_averages.append(2 * size**3 / fmean(products))
        self.copy_samples.append(self._copied_bytes / min(copies))
        self.copy_averages.append(self._copied_bytes / fmean(copies))

    @property
    def best_size(self) -> int:
        """Side of the fastest product."""
        return max(self.matrix, key=self.matrix.__getitem__)

    def plain(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "dtype": str(self.dtype).removeprefix("torch."),
            "matrix_flops_per_second": {str(size): rate for size, rate in self.matrix.items()},
            "matrix_best_size": self.best_size,
            "matrix_samples": self.matrix_samples,
            "copy_bytes_per_second": self.copy,
            "copy_samples": self.copy_samples,
            "matrix_averages": self.matrix_averages,
            "copy_averages": self.copy_averages,
        }

    @property
    def _copied_bytes(self) -> int:
        """Read and written in one copy."""
        return 2 * _COPY_BYTES[self.device.type]

    def _product_times(self, size: int) -> list[float]:
        left, right = (torch.randn(size, size, device=self.device, dtype=self.dtype) for _ in range(2))
        product = torch.empty_like(left)
        return self._times(lambda: torch.mm(left, right, out=product))

    def _copy_times(self) -> list[float]:
        source = torch.ones(_COPY_BYTES[self.device.type] // 4, device=self.device)
        target = torch.empty_like(source)
        return self._times(lambda: target.copy_(source))

    def _times(self, run: Callable[[], object]) -> list[float]:
        """Seconds of each try; one before them is not counted."""
        run()
        times: list[float] = []
        while len(times) < _TRIES or sum(times) < _SAMPLE_SECONDS:
            synchronize(self.device)
            started = time.perf_counter()
            run()
            synchronize(self.device)
            times.append(time.perf_counter() - started)
        return times
