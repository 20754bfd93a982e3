"""What a run ran on: recorded with every run, and the process set up for computing."""

import ctypes
import importlib.metadata
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import psutil
import torch

import seqbench
from seqbench.surroundings.torch_settings import fresh_torch_settings
from seqbench.surroundings.variables import hidden_variables, ignored_variables, rounding_variables

# Instructions that multiply bfloat16 numbers, as torch calls them.
_BF16_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")


def describe_environment(device: torch.device, kernels: str = "") -> dict[str, Any]:
    """Versions, hardware, threads and settings that can change numbers or speed, as plain data.

    `kernels` is the request for paths of kernels, "" for none.
    """
    return {
        "seqbench": seqbench.__version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_bytes": psutil.virtual_memory().total,
        "device": device.type,
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        "bf16_in_hardware": bf16_in_hardware(device),
        "allocator": "tuned" if tune_allocator() else "default",
        "kernels": kernels,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "variables": rounding_variables(),
        "ignored_variables": ignored_variables(),
        "packages": installed_packages(),
    }


@contextmanager
def fixed_surroundings() -> Iterator[None]:
    """Inside, no variable instructs libraries about training, and torch's settings are those of a fresh process."""
    with hidden_variables(), fresh_torch_settings():
        yield


def bf16_in_hardware(device: torch.device) -> bool | None:
    """Whether the device multiplies bfloat16 numbers itself; None where torch cannot tell.

    Elsewhere a processor widens them first: matrix products in bfloat16 took twice the time of fp32 without such
    instructions and between a half and a fifth of it with them (AMD EPYC with AVX-512, one thread).
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # Not every version of torch that runs this has it.
    capabilities: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(capabilities.get(name, False) for name in _BF16_INSTRUCTIONS) if capabilities else None


def use_threads(count: int | None) -> None:
    """Compute with that many threads on the CPU; None leaves torch's choice."""
    if count is not None:
        torch.set_num_threads(count)


@cache
def tune_allocator() -> bool:
    """Keep freed memory in the process instead of returning it to the system after every operation.

    glibc gives large blocks back at once and the next operation pays for fresh zeroed pages. The same for every model;
    takes effect for blocks allocated later, so call it first. Returns whether the C library took the settings.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    # From malloc.h: M_TRIM_THRESHOLD -1, M_TOP_PAD -2, M_MMAP_THRESHOLD -3; values in bytes.
    settings = ((-3, 1 << 30), (-1, 2**31 - 1), (-2, 256 << 20))
    return all(mallopt(parameter, value) == 1 for parameter, value in settings)


def available_bytes(device: torch.device) -> int:
    """Memory that a run may still take on the device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


@cache
def _commit() -> str | None:
    """Commit of the source tree that this package runs from, with "+changes" when files differ; None outside one."""
    root = Path(seqbench.__file__).parent
    try:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, timeout=10)
        changes = subprocess.run(
            ["git", "status", "--porcelain", "--untracked-files=no"],
            cwd=root,
            capture_output=True,
            text=True,
            timeout=10,
        )
    # Without git, or without the right to start it. That no process is to be had says nothing about the tree.
    except (FileNotFoundError, PermissionError, subprocess.TimeoutExpired):
        return None
    # A site-packages folder inside somebody else's repository is not ours.
    if commit.returncode != 0 or "site-packages" in root.parts:
        return None
    return commit.stdout.strip() + ("+changes" if changes.stdout.strip() else "")


@cache
def installed_packages() -> dict[str, str]:
    """Versions of all declared dependencies, optional ones included, that are installed."""
    versions = {}
    for requirement in importlib.metadata.requires("seqbench") or []:
        name = re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0]
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


@cache
def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except (FileNotFoundError, PermissionError):
        pass
    return platform.processor() or platform.machine()
