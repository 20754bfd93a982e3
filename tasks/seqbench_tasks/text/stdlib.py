"""The corpus that every machine has: the source text of the running Python's standard library."""

import os
import platform
import sysconfig
from pathlib import Path

from seqbench.errors import RequestError
from seqbench_tasks.text.bad_records import BadRecords
from seqbench_tasks.text.complete import CompleteCorpus
from seqbench_tasks.text.config import CorpusConfig
from seqbench_tasks.text.documents import DocumentTable
from seqbench_tasks.text.held_out import HeldOutRule
from seqbench_tasks.text.local import text_file
from seqbench_tasks.text.scan_memory import ScanMemory

# Not the library: what users install, tests (some of which are no UTF-8 on purpose) and what distributions leave out.
_LEFT_OUT = {"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3", "turtledemo", "ensurepip"}


def open_stdlib(config: CorpusConfig) -> CompleteCorpus:
    """Every module of the standard library that has source text, one document each.

    Raises RequestError where Python comes without sources.
    """
    folder = Path(sysconfig.get_path("stdlib"))
    bad, memory = BadRecords("refuse"), ScanMemory(folder)
    files = [
        file for path in _sources(folder) for file in text_file(path, path.relative_to(folder).as_posix(), memory, bad)
    ]
    if not files:
        raise RequestError(f"this Python comes without its source text ({folder}); name a file or folder with --data")
    version = platform.python_version()
    splits = HeldOutRule.of(config).divide(DocumentTable.of(files, True, bad))
    return CompleteCorpus(splits, f"source of the standard library of Python {version}", {}, [])


def _sources(folder: Path) -> list[Path]:
    found: list[Path] = []
    for parent, folders, names in os.walk(folder):
        # Before it goes down: users install thousands of files there.
        folders[:] = [name for name in folders if name not in _LEFT_OUT]
        found += [Path(parent) / name for name in names if name.endswith(".py")]
    # Distributions put links there to settings that a machine may lack.
    return sorted(path for path in found if path.is_file() and path.stat().st_size)
