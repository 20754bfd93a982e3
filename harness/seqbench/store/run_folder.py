"""One folder per run: what was asked, on what, what happened, and the result."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from seqbench.errors import RequestError
from seqbench.store.files import json_line, read_json_lines, write_json, write_text

SCHEMA = 1


class RunFolder:
    """Access to the files of one run.

    run.json: the resolved request; environment.json; metrics.jsonl: one line per log step or evaluation; checkpoints/;
    result.json; items.jsonl: one line per evaluated item of the final test.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.items = path / "items.jsonl"
        self.plot = path / "plot.png"
        self._metrics: TextIO | None = None

    def read_run(self) -> dict[str, Any] | None:
        """Content of run.json, or None when there is none."""
        return self._read("run.json", ("hash", "identity"))

    def read_result(self) -> dict[str, Any] | None:
        """Content of result.json, or None when the run is not finished."""
        return self._read("result.json", ("status", "model", "task"))

    def read_environment(self) -> dict[str, Any]:
        """Content of environment.json; empty when there is none."""
        return self._read("environment.json", ()) or {}

    def write_result(self, result: dict[str, Any]) -> None:
        """Store the result; the run is finished from here on."""
        write_json(self.path / "result.json", result)

    def remove_result(self) -> None:
        """Forget a result, so that the run can be tried again."""
        (self.path / "result.json").unlink(missing_ok=True)

    def open(self, run: dict[str, Any], environment: dict[str, Any]) -> None:
        """Create the folder, or enter the one that holds this very run.

        Raises RequestError when it cannot be written or holds something else.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            existing = self.read_run()
            if existing is None and any(entry.name != ".lock" for entry in self.path.iterdir()):
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
            write_json(self.path / "environment.json", environment)
        except OSError as error:
            raise RequestError(
                f"cannot write to {self.path}: {error.strerror}\ngive a folder that you can write to with --output"
            ) from error

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder against other `bench` processes. Raises RequestError when one is at work in it."""
        try:
            fresh = not self.path.exists()
            self.path.mkdir(parents=True, exist_ok=True)
            lock = (self.path / ".lock").open("a")
        except OSError as error:
            raise RequestError(
                f"cannot write to {self.path}: {error.strerror}\ngive a folder that you can write to with --output"
            ) from error
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RequestError(f"another bench process is at work on {self.path}; wait for it to end") from None
            try:
                yield
            finally:
                if not (self.path / "run.json").exists():
                    self._leave(fresh)

    def rewind_metrics(self, step: int) -> None:
        """Drop what was logged after checkpoint `step`, from which the run goes on; evaluations at `step` come after
        it.
        """
        path = self.path / "metrics.jsonl"
        if path.exists():
            kept = [
                row
                for row in read_json_lines(path)
                if row["step"] < step or (row["step"] == step and row["kind"] == "train")
            ]
            write_text(path, "".join(map(json_line, kept)))

    def log(self, record: dict[str, Any]) -> None:
        """Append a line to metrics.jsonl and hand it to the system at once."""
        if self._metrics is None:
            self._metrics = (self.path / "metrics.jsonl").open("a", encoding="utf-8")
        self._metrics.write(json_line(record))
        self._metrics.flush()

    def close(self) -> None:
        """Flush the log to the disk and close it."""
        if self._metrics is not None:
            os.fsync(self._metrics.fileno())
            self._metrics.close()
            self._metrics = None

    def _leave(self, fresh: bool) -> None:
        """Take back what a refused request made: the lock, and the folder when it is new."""
        with suppress(OSError):
            (self.path / ".lock").unlink()
            if fresh:
                self.path.rmdir()

    def _read(self, name: str, required: tuple[str, ...]) -> dict[str, Any] | None:
        path = self.path / name
        try:
            if not path.exists():
                return None
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise RequestError(f"{path} cannot be read: {error}\nmove it away to start this run again") from error
        if not isinstance(content, dict) or any(key not in content for key in required):
            raise RequestError(f"{path} was not written by bench; choose another folder with --output, or move it away")
        return content


def describe_run(run: dict[str, Any]) -> str:
    """A run in a few words."""
    identity = run["identity"]
    return f"{identity['model']['name']} on {identity['task']['name']}, seed {identity['seed']}, {run['hash'][:8]}"
