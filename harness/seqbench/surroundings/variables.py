"""Variables of the environment that would decide numbers behind a command's back. Imports nothing heavy.

Three kinds. Instructions to libraries about training are hidden from them: what they say, the command line says.
Those that change the precision of products, which nothing here can overrule, are refused. Those that decide rounding
are recorded with a run, like its threads. All go by prefix: libraries add names with every release.
"""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from seqbench.errors import RequestError

# Accelerate's, and those of what it starts. Its configuration file is read by `accelerate launch` alone, which turns it
# into these.
_HIDDEN = (
    "ACCELERATE_",
    "DEEPSPEED_",
    "FP8_",
    "FSDP_",
    "MEGATRON_LM_",
    "PARALLELISM_CONFIG_",
    "XLA_",
)
# Name -> values that change nothing. They make libraries compute fp32 products in TF32 or bf16.
_REFUSED = {
    "DNNL_DEFAULT_FPMATH_MODE": ("STRICT",),
    "NVIDIA_TF32_OVERRIDE": ("0",),
    "ONEDNN_DEFAULT_FPMATH_MODE": ("STRICT",),
    "TRITON_F32_DEFAULT": ("ieee",),
}
_ROUNDING = re.compile(
    r"(ATEN|BLIS|CUBLAS|CUBLASLT|CUDNN|DNNL|KMP|MKL|MKLDNN|NPY|NVIDIA_TF32|OMP|ONEDNN|OPENBLAS|PYTORCH|TORCH|TORCHDYNAMO"
    r"|TORCHINDUCTOR|TRITON|GLIBC)_\w+|LD_PRELOAD|PYTHONHASHSEED"
)
# Places, versions and messages of libraries, their use of memory; threads are recorded as torch has them.
_HARMLESS = re.compile(
    r"\w*(_DIR|_PATH|_HOME|_FILE|_CACHE|_CONF|_VERSION|_NUMBER|_LIST|_LOGS|_LOG_LEVEL|_LOGLEVEL|_VERBOSE|_DEBUG)"
    r"|TORCH_LOGS|OMP_NUM_THREADS|OMP_DISPLAY_\w+"
)

# More than any machine has cores; libraries that are asked for ten times as many end the process.
LARGEST_THREADS = 1024

# What is hidden at present.
_IGNORED: dict[str, str] = {}


@contextmanager
def hidden_variables() -> Iterator[None]:
    """Inside, libraries find none of the variables that instruct them about training."""
    found = hidden_names()
    kept = {name: os.environ.pop(name) for name in found}
    _IGNORED.update(kept)
    try:
        yield
    finally:
        for name in kept:
            del _IGNORED[name]
        for name in hidden_names():
            del os.environ[name]
        os.environ.update(kept)


def hidden_names() -> list[str]:
    """The variables here that `hidden_variables` hides."""
    return sorted(name for name in os.environ if name.startswith(_HIDDEN))


def ignored_variables() -> dict[str, str]:
    """The variables that are hidden at present, with their values."""
    return dict(_IGNORED)


def refuse_variables() -> None:
    """Raise RequestError for a variable that changes the precision of products and cannot be overruled, or is none."""
    asked_threads()
    for name, harmless in _REFUSED.items():
        value = os.environ.get(name, "")
        if value.lower() not in ("", *map(str.lower, harmless)):
            raise RequestError(
                f"{name}={value} in the environment changes the precision of products, which --precision is to decide;"
                f" type: unset {name}"
            )


def asked_threads() -> int | None:
    """The threads that OMP_NUM_THREADS asks for, None where it does not.

    Raises RequestError unless it is one number of threads that a machine may have: libraries make different things of
    anything else.
    """
    text = os.environ.get("OMP_NUM_THREADS", "").strip()
    if not text:
        return None
    count = int(text) if re.fullmatch(r"\d{1,9}", text) else 0
    if not 1 <= count <= LARGEST_THREADS:
        raise RequestError(
            f"OMP_NUM_THREADS={text} in the environment is no number of threads from 1 to {LARGEST_THREADS:,}; type:"
            " unset OMP_NUM_THREADS, or one number"
        )
    return count


def rounding_variables() -> dict[str, str]:
    """The variables here that can decide rounding, with their values."""
    return {
        name: value
        for name, value in sorted(os.environ.items())
        if _ROUNDING.fullmatch(name) and not _HARMLESS.fullmatch(name)
    }


def differing_variables(one: Mapping[str, str], other: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """Name and both values of the variables that are not the same in both; one that is not set is "unset"."""
    pairs = [(name, one.get(name, "unset"), other.get(name, "unset")) for name in sorted({*one, *other})]
    return [pair for pair in pairs if pair[1] != pair[2]]
