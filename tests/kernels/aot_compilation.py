"""Compile Triton kernels for a GPU that is not there, exactly as a launcher launches them."""

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any
from unittest.mock import patch

import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

# The most shared memory one block may have, in bytes, by compute capability (CUDA C++ Programming Guide, table of
# technical specifications per compute capability).
SHARED_MEMORY = {80: 163 * 1024, 90: 227 * 1024}


@dataclass(frozen=True)
class CompiledLaunch:
    """One compiled kernel: its name, and the bytes of shared memory one block needs."""

    name: str
    shared_bytes: int
    num_warps: int
    ptx: str
    cubin: bytes

    def resources(self) -> dict[str, int]:
        """What the assembler gave the kernel: REG per thread, STACK and LOCAL bytes (spills lie on the stack)."""
        tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
        with NamedTemporaryFile(suffix=".cubin") as file:
            file.write(self.cubin)
            file.flush()
            command = [str(tool), "--dump-resource-usage", file.name]
            printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        function = printed.split(f"Function {self.name}:")[1].splitlines()[1]
        return {key: int(value) for key, value in re.findall(r"([A-Z]+):(\d+)", function)}


class _AbsentDevice:
    """What a launch asks of the driver before it compiles."""

    def __init__(self, capability: int) -> None:
        self._target = GPUTarget("cuda", capability, 32)

    def get_current_target(self) -> GPUTarget:
        return self._target

    def get_current_device(self) -> tuple[str, int]:
        # The key under which a kernel remembers what it compiled, and so one for each target.
        return ("absent", self._target.arch)

    def get_current_stream(self, device: object) -> int:
        del device
        return 0


@contextmanager
def compiling_for(capability: int) -> Iterator[list[CompiledLaunch]]:
    """Inside, every launch compiles for a CUDA compute capability (80, 90) and runs nothing; outputs stay unwritten.

    The launcher is called with CPU tensors of the sizes in question, so that its own choice of block sizes, warps and
    stages is what gets compiled. Yields the list that the compiled kernels are added to, each once.
    """
    launches: dict[int, CompiledLaunch] = {}
    found: list[CompiledLaunch] = []
    run = JITFunction.run

    def compile_only(kernel: Any, *args: Any, grid: Any, warmup: bool, **options: Any) -> Any:
        del warmup
        compiled = run(kernel, *args, grid=grid, warmup=True, **options)
        if id(compiled) not in launches:
            launch = CompiledLaunch(
                compiled.metadata.name,
                compiled.metadata.shared,
                compiled.metadata.num_warps,
                compiled.asm["ptx"],
                compiled.asm["cubin"],
            )
            launches[id(compiled)] = launch
            found.append(launch)
        return compiled

    # Neither `active` nor `reset_active` may be asked: both look for a device.
    before = driver._active
    driver.set_active(_AbsentDevice(capability))
    try:
        with patch.object(JITFunction, "run", compile_only):
            yield found
    finally:
        driver._active = before


def assert_fits(launches: list[CompiledLaunch], capability: int) -> None:
    """Every kernel's shared memory is within what a block of the capability may have, and there is a kernel at all."""
    assert launches, "the launcher launched nothing"
    for launch in launches:
        assert launch.shared_bytes <= SHARED_MEMORY[capability], (launch.name, launch.shared_bytes, capability)
