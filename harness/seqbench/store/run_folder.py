"""One folder per run: what was asked, on what, what happened, and the result."""

import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any, TextIO

from seqbench.circumstances import circumstance_of
from seqbench.errors import Circumstance, RequestError
from seqbench.store.checksums import CHECKSUMS, checksums, damaged_files
from seqbench.store.damage import DamagedFile
from seqbench.store.files import (
    flush,
    is_temporary,
    json_line,
    json_text,
    sort_json_lines,
    write_json,
    write_json_lines,
    write_text,
)
from seqbench.store.lock import LOCK, acquire, holds, is_locked

SCHEMA = 1

_RESULT, _ITEMS, _METRICS = "result.json", "items.jsonl", "metrics.jsonl"
# What a run at work writes after its request.
_WRITTEN = (_RESULT, _ITEMS, _METRICS, CHECKSUMS, "checkpoints", "model", "environment.json", "evaluation.jsonl")


class RunFolder:
    """Access to the files of one run.

    run.json: the resolved request; environment.json; metrics.jsonl: one line per log step or evaluation; checkpoints/;
    model/: final weights; items.jsonl: one line per evaluated item of the final test; result.json; SHA256SUMS: of the
    files that the result rests on. result.json is written last: where it is, everything is complete.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.model = path / "model"
        self.items = path / _ITEMS
        self.metrics = path / _METRICS
        self.attempts = path / "attempts.jsonl"
        self.plot = path / "plot.png"
        self.training_plot = path / "training.png"
        self._log: int | None = None
        self._lock: TextIO | None = None

    def read_run(self) -> dict[str, Any] | None:
        """Content of run.json, or None when there is none. Raises DamagedFile when it cannot be read."""
        return self._read("run.json", ("hash", "identity"))

    def read_result(self) -> dict[str, Any] | None:
        """Content of result.json, or None when the run is not finished. Raises DamagedFile when it cannot be read."""
        return self._read(_RESULT, ("status", "model", "task"))

    def read_environment(self) -> dict[str, Any]:
        """Content of environment.json; empty when there is none. Raises DamagedFile when it cannot be read."""
        return self._read("environment.json", ()) or {}

    def finished_result(self, run_hash: str) -> dict[str, Any] | None:
        """The result of the run with this hash; None when there is none that can be relied on.

        Nothing is mended here: `seqbench.store.repair` does that, and refuses what it must, for whoever has the lock.
        """
        try:
            run = self.read_run()
            if run is None or run["hash"] != run_hash or any(self.damages_to_result()):
                return None
            return self.read_result()
        except RequestError:
            return None

    def damages_to_result(self) -> Iterator[DamagedFile]:
        """What is damaged of the figures and the items behind them; the weights, which take time, are not looked at."""
        yield from self.damages(only=(_RESULT, _ITEMS))

    def damages(self, only: tuple[str, ...] | None = None) -> Iterator[DamagedFile]:
        """Files that are not as they were when the result was written; nothing for a run from before checksums.

        Files and folders that somebody has removed to make room are not damaged.
        """
        if not (self.path / _RESULT).exists() or not (self.path / CHECKSUMS).exists():
            return
        for damage in damaged_files(self.path, (_RESULT,), only):
            if (self.path / damage.path.relative_to(self.path).parts[0]).exists():
                yield damage

    def is_locked(self) -> bool:
        """Whether a process is at work in the folder."""
        return is_locked(self.path)

    def takes_writing(self) -> bool:
        """Whether a process may enter an existing folder; True where there is none yet."""
        lock = self.path / LOCK
        return not self.path.is_dir() or (
            os.access(self.path, os.W_OK | os.X_OK) and (not lock.exists() or os.access(lock, os.W_OK))
        )

    def write_result(self, result: dict[str, Any]) -> None:
        """Store the result, once everything that it rests on is on the disk; the run is finished from here on."""
        self.require_held()
        self.remove_result()
        if self.metrics.exists():
            flush(self.metrics)
        text = json_text(result)
        files = self._tested_files() if result["status"] == "complete" else []
        write_text(self.path / CHECKSUMS, checksums(self.path, files, {_RESULT: text}))
        write_text(self.path / _RESULT, text)

    def remove_result(self) -> None:
        """Forget a result, so that the run can be tried again."""
        (self.path / _RESULT).unlink(missing_ok=True)

    def open(self, run: dict[str, Any], environment: dict[str, Any]) -> None:
        """Create the folder, or enter the one that holds this very run.

        Raises RequestError when it cannot be written or holds something else.
        """
        self.require_held()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            existing = self.read_run()
            if existing is None and not self.is_vacant():
                raise RequestError(
                    f"{self.path} is not empty and holds no run; choose another folder with --output, or empty it"
                )
            if existing is not None and existing["hash"] != run["hash"]:
                raise RequestError(
                    f"{self.path} holds another run ({describe_run(existing)}), not {describe_run(run)}\n"
                    "choose another folder with --output, or leave --output out"
                )
            if existing is None:
                write_json(self.path / "run.json", run)
            # The hash is told twice: should run.json be damaged, it is still known whose folder this is.
            write_json(self.path / "environment.json", {"run": run["hash"], **environment})
        except OSError as error:
            raise self._cannot_write(error) from error

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder against other `bench` processes. Raises Busy when one is at work in it."""
        try:
            new = [path for path in (self.path / LOCK, self.path) if not path.exists()]
            lock = acquire(self.path)
        except OSError as error:
            raise self._cannot_write(error) from error
        with lock:
            self._lock = lock
            try:
                yield
            finally:
                self._lock = None
                if not holds(self.path, lock):
                    self._clear_remains()
                elif not (self.path / "run.json").exists():
                    _take_back(new)

    def require_held(self) -> None:
        """To be asked before anything is written: raises Circumstance when the locked folder is not there any more."""
        if self._lock is not None and not holds(self.path, self._lock):
            raise Circumstance("removed", f"{self.path} was removed or moved while a process was at work on it")

    def rewind_metrics(self, step: int) -> None:
        """Drop what was logged after checkpoint `step`, from which the run goes on; evaluations at `step` come after
        it. What was logged of the circumstances stays.
        """
        if self.metrics.exists():
            rows, _ = sort_json_lines(self.metrics, is_log_line)
            at_step = ("train", "continued", "kernels")
            kept = [row for row in rows if row["step"] < step or (row["step"] == step and row["kind"] in at_step)]
            write_json_lines(self.metrics, kept)

    def log(self, record: dict[str, Any]) -> None:
        """Append a line to metrics.jsonl and hand it to the system at once: the whole line, or nothing of it."""
        self.require_held()
        if self._log is None:
            self._log = os.open(self.metrics, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        before = os.fstat(self._log).st_size
        rest = json_line(record).encode()
        try:
            while rest:
                rest = rest[os.write(self._log, rest) :]
        except OSError:
            os.ftruncate(self._log, before)
            raise

    def flush_log(self) -> None:
        """Return when the disk has the log: it must not be behind a checkpoint."""
        self.require_held()
        if self._log is not None:
            os.fsync(self._log)

    def close(self) -> None:
        """Close the log."""
        if self._log is not None:
            os.close(self._log)
            self._log = None

    def is_vacant(self) -> bool:
        """Whether there is nothing but what a refused or killed request may leave."""
        return not self.path.exists() or all(entry.name == LOCK or is_temporary(entry) for entry in self.path.iterdir())

    def _clear_remains(self) -> None:
        """Of a folder that was removed under a run at work, what the run has written since: it belongs to no run."""
        with suppress(OSError, RequestError):
            if self.path.is_dir() and not (self.path / LOCK).exists() and not (self.path / "run.json").exists():
                with acquire(self.path):
                    for entry in self.path.iterdir():
                        if entry.name in _WRITTEN or is_temporary(entry):
                            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
                    _take_back([self.path / LOCK, self.path])

    def _tested_files(self) -> list[str]:
        """What the result of a test rests on. A model's README.md is text for people, who may change it."""
        files = [self.items, *sorted(self.model.rglob("*"))]
        names = [PurePosixPath(file.relative_to(self.path)) for file in files if file.is_file()]
        return [str(name) for name in names if name.name != "README.md"]

    def _cannot_write(self, error: OSError) -> RequestError | Circumstance:
        # What cannot be written from the beginning on is another folder's matter; a full disk is not.
        if error.errno != errno.EROFS and (circumstance := circumstance_of(error)) is not None:
            return circumstance
        return RequestError(
            f"cannot write to {self.path}: {error.strerror}\ngive a folder that you can write to with --output"
        )

    def _read(self, name: str, required: tuple[str, ...]) -> dict[str, Any] | None:
        path = self.path / name
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except ValueError as error:
            raise DamagedFile(path, str(error)) from error
        except OSError as error:
            if error.errno == errno.EIO:
                raise DamagedFile(path, str(error)) from error
            raise RequestError(f"{path} cannot be read: {error.strerror}") from error
        if not isinstance(content, dict) or any(key not in content for key in required):
            raise RequestError(f"{path} was not written by bench; choose another folder with --output, or move it away")
        if content.get("schema", SCHEMA) != SCHEMA:
            raise RequestError(
                f"{path} has schema {content['schema']} and this version of seqbench knows {SCHEMA}; install the"
                " version that wrote it"
            )
        return content


def describe_run(run: dict[str, Any]) -> str:
    """A run in a few words."""
    identity = run["identity"]
    return f"{identity['model']['name']} on {identity['task']['name']}, seed {identity['seed']}, {run['hash'][:8]}"


def _take_back(new: list[Path]) -> None:
    """Remove what a refused request made: the lock, and the folder when that is new too."""
    with suppress(OSError):
        for path in new:
            path.rmdir() if path.is_dir() else path.unlink()


def is_log_line(row: Any) -> bool:
    """Whether a row has what every line of metrics.jsonl has."""
    return isinstance(row, dict) and isinstance(row.get("step"), int) and isinstance(row.get("kind"), str)
