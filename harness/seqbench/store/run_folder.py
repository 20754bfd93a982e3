"""One folder per run: what was asked, on what, what happened, and the result."""

import errno
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from seqbench.errors import Circumstance, RequestError
from seqbench.store import coverage, names
from seqbench.store.checksums import CHECKSUMS, checksum_lines, checksums, read_checksums
from seqbench.store.damage import DamagedFile, ForeignFile, set_aside, tell
from seqbench.store.files import flush, is_temporary, json_text, write_json, write_text
from seqbench.store.forms import ENVIRONMENT, RESULT, RUN
from seqbench.store.identity import hash_of
from seqbench.store.lock import LOCK, acquire, holds, is_lockable, is_locked
from seqbench.store.log import missing_steps, read_log, read_rows
from seqbench.store.reader import digest_of, kind_of, parse, read_bytes
from seqbench.store.schema import Check, Misfit
from seqbench.store.sealed import is_as_sealed, sealed_document, sealed_line, without_seal
from seqbench.surroundings.circumstances import circumstance_of

SCHEMA = 1

# What a run at work writes after its request.
_WRITTEN = (
    *(names.RESULT, names.ITEMS, names.LOG, names.CHECKPOINTS, names.MODEL, names.ENVIRONMENT, names.EVALUATION),
    CHECKSUMS,
)
# Kinds of lines that belong to the state in a checkpoint of the same step, and not to what came after it.
_BEFORE_CHECKPOINT = ("train", "continued", "kernels", "damage")


class RunFolder:
    """Access to the files of one run.

    run.json: the resolved request; environment.json; metrics.jsonl: one line per log step or evaluation; checkpoints/;
    model/: final weights; items.jsonl: one line per evaluated item of the final test; result.json; SHA256SUMS: of all
    of these but checkpoints, which have their own. result.json is written last: where it is, everything is complete,
    and it names the files that SHA256SUMS must speak of.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / names.CHECKPOINTS
        self.model = path / names.MODEL
        self.items = path / names.ITEMS
        self.metrics = path / names.LOG
        self.attempts = path / names.ATTEMPTS
        self.plot = path / names.PLOT
        self.training_plot = path / names.TRAINING_PLOT
        self._log: int | None = None
        self._lock: TextIO | None = None

    def read_run(self, hash_fits: bool = True) -> dict[str, Any] | None:
        """Content of run.json, or None when there is none.

        Raises DamagedFile when it cannot be read, or its hash is not that of its content; with `hash_fits` unset, for
        whoever compares both himself, that is not looked at.
        """
        run = self._read(names.RUN, RUN)
        if run is not None and hash_fits and hash_of(run["identity"]) != run["hash"]:
            raise DamagedFile(self.path / names.RUN, "it was changed: its hash is not that of its content")
        return run

    def read_result(self) -> dict[str, Any] | None:
        """Content of result.json, or None when the run is not finished. Raises DamagedFile when it cannot be read."""
        return self._read(names.RESULT, RESULT)

    def read_environment(self) -> dict[str, Any]:
        """Content of environment.json; empty when there is none. Raises DamagedFile when it cannot be read."""
        content = self._read(names.ENVIRONMENT, ENVIRONMENT) or {}
        # An earlier version wrote it without a checksum of its own.
        if "sha256" in content and not is_as_sealed(content):
            raise DamagedFile(self.path / names.ENVIRONMENT, "it differs from its checksum")
        return without_seal(content)

    def read_log(self) -> list[dict[str, Any]]:
        """The rows of metrics.jsonl, none without a log. Raises DamagedFile when one is not as it was written."""
        return read_rows(self.metrics)

    def whole_result(self) -> dict[str, Any] | None:
        """The result after a look at everything but the weights; None when the run is not finished.

        Raises DamagedFile for the first file that is not as it was written.
        """
        if self.read_run() is None and os.path.lexists(self.path / names.RESULT):
            raise DamagedFile(self.path / names.RUN, "it is missing")
        damage = next(self.damages_to_result(), None)
        if damage is not None:
            raise damage
        return self.read_result()

    def finished_result(self, run_hash: str) -> dict[str, Any] | None:
        """The result of the run with this hash; None when there is none that can be relied on.

        Nothing is mended here: `seqbench.store.repair` does that, and refuses what it must, for whoever has the lock.
        """
        try:
            run = self.read_run()
            return None if run is None or run["hash"] != run_hash else self.whole_result()
        except RequestError:
            return None

    def damages_to_result(self) -> Iterator[DamagedFile]:
        """`damages` without those to the weights, a look at which takes time."""
        yield from self.damages(weights=False)

    def damages(self, weights: bool = True) -> Iterator[DamagedFile]:
        """Files that are not as they were when the result was written; none while there is no result.

        The folder model/ is not damaged when it has been removed as a whole, to make room. Without `weights` nothing in
        it is looked at.
        """
        if not os.path.lexists(self.path / names.RESULT):
            return
        try:
            damage = coverage.damaged_result(self.path)
            result = self.read_result() if damage is None else None
            owner = self.named_by()
            if result is not None and owner is not None and result.get("hash", owner) != owner:
                damage = DamagedFile(self.path / names.RESULT, "it is the result of another run")
        except DamagedFile as error:
            damage = error
        if damage is not None:
            yield damage
        elif result is not None:
            yield from coverage.damaged_beside(self.path, result, weights)

    def remarks(self) -> list[str]:
        """What a reader of the result has to know of its files: which nobody can vouch for, and which were removed."""
        with suppress(RequestError):
            result = self.read_result()
            return [] if result is None else coverage.remarks(self.path, result)
        return []

    def is_locked(self) -> bool:
        """Whether a process is at work in the folder."""
        return is_locked(self.path)

    def takes_writing(self) -> bool:
        """Whether a process may enter an existing folder; True where there is none yet."""
        lock = self.path / LOCK
        return not self.path.is_dir() or (
            os.access(self.path, os.W_OK | os.X_OK) and (not lock.exists() or os.access(lock, os.W_OK))
        )

    def write_result(self, result: dict[str, Any]) -> dict[str, Any]:
        """Store the result, once everything that it rests on is on the disk; the run is finished from here on.

        Returns what is stored: the result, with the names of all files that have a checksum.
        """
        self.require_held()
        self.remove_result()
        if self.metrics.exists():
            flush(self.metrics)
        files = coverage.covered_files(self.path, result["status"] == "complete")
        stored = {**result, "files": files}
        text = json_text(stored)
        write_text(self.path / CHECKSUMS, checksums(self.path, files, {names.RESULT: text}))
        write_text(self.path / names.RESULT, text)
        return stored

    def vouch_for(self, files: Iterable[str]) -> None:
        """Take the present content of these files, as far as the result has covered them, for what was written."""
        digests, result = read_checksums(self.path), self.read_result() or {}
        known = [name for name in files if name in digests or name in result.get("files", ())]
        digests |= {name: digest_of(self.path / name) for name in known}
        write_text(self.path / CHECKSUMS, checksum_lines(digests))

    def remove_result(self) -> None:
        """Forget a result, so that the run can be tried again."""
        (self.path / names.RESULT).unlink(missing_ok=True)

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
                write_json(self.path / names.RUN, run)
            # Whoever enters to work has no result yet, and what follows is covered by an older one's checksums.
            self.remove_result()
            # The hash is told twice: should run.json be damaged, it is still known whose folder this is.
            self.write_environment({"run": run["hash"], **environment})
        except OSError as error:
            raise self._cannot_write(error) from error

    def write_environment(self, content: dict[str, Any]) -> None:
        """Write environment.json with a checksum of its own, which it has before there is a result."""
        write_json(self.path / names.ENVIRONMENT, sealed_document(content))

    def named_by(self) -> str | None:
        """The hash of the run that the folder provably is of: run.json says so, or environment.json where that is
        damaged or missing. None for everything else.
        """
        with suppress(RequestError):
            run = self.read_run()
            if run is not None:
                return str(run["hash"])
        with suppress(RequestError):
            return self.read_environment().get("run")
        return None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder against other `bench` processes. Raises Busy when one is at work in it."""
        try:
            self._make_lockable()
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
                elif not (self.path / names.RUN).exists():
                    _take_back(new)

    def require_held(self) -> None:
        """To be asked before anything is written: raises Circumstance when the locked folder is not there any more."""
        if self._lock is not None and not holds(self.path, self._lock):
            raise Circumstance("removed", f"{self.path} was removed or moved while a process was at work on it")

    def rewind_metrics(self, step: int) -> None:
        """Drop what was logged after checkpoint `step`, from which the run goes on; evaluations at `step` come after
        it. What was logged of the circumstances stays.

        Steps before it that the log lacks are named, here and in the log.
        """
        rows = read_log(self.metrics).rows
        kept = [
            row for row in rows if row["step"] < step or (row["step"] == step and row["kind"] in _BEFORE_CHECKPOINT)
        ]
        missing = missing_steps(kept, step)
        if missing:
            what = f"lines of {missing} of {step} steps are missing"
            tell(f"{self.metrics} is damaged ({what}); training goes on")
            kept.append(damage_line(what, step))
        if rows or kept or self.metrics.exists():
            self.write_log(kept)

    def write_log(self, rows: list[dict[str, Any]]) -> None:
        """Write metrics.jsonl anew."""
        write_text(self.metrics, "".join(map(sealed_line, rows)))

    def log(self, record: dict[str, Any]) -> None:
        """Append a line to metrics.jsonl and hand it to the system at once: the whole line, or nothing of it."""
        self.require_held()
        if self._log is None:
            self._log = os.open(self.metrics, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        before = os.fstat(self._log).st_size
        rest = sealed_line(record).encode()
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
            if self.path.is_dir() and not (self.path / LOCK).exists() and not (self.path / names.RUN).exists():
                with acquire(self.path):
                    for entry in self.path.iterdir():
                        if entry.name in _WRITTEN or is_temporary(entry):
                            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
                    _take_back([self.path / LOCK, self.path])

    def _make_lockable(self) -> None:
        """Set aside what lies under the lock's name and is none, in a folder that is bench's."""
        path = self.path / LOCK
        if is_lockable(self.path):
            return
        why = f"it is {kind_of(path) or 'a link'}, not a lock"
        if self.named_by() is None:
            raise RequestError(f"{path} is in the way ({why}); choose another folder with --output, or move it away")
        set_aside(path, path, why)

    def _cannot_write(self, error: OSError) -> RequestError | Circumstance:
        # What cannot be written from the beginning on is another folder's matter; a full disk is not.
        if error.errno != errno.EROFS and (circumstance := circumstance_of(error)) is not None:
            return circumstance
        return RequestError(
            f"cannot write to {self.path}: {error.strerror}\ngive a folder that you can write to with --output"
        )

    def _read(self, name: str, form: Check) -> dict[str, Any] | None:
        """A JSON file of the folder. Raises DamagedFile when it cannot be read, RequestError for one that another
        program or version wrote.
        """
        path = self.path / name
        try:
            content = parse(read_bytes(path))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise DamagedFile(path, str(error)) from error
        schema = content.get("schema", SCHEMA) if isinstance(content, dict) else SCHEMA
        if schema != SCHEMA:
            raise RequestError(
                f"{path} has schema {schema} and this version of seqbench knows {SCHEMA}; install the version that"
                " wrote it"
            )
        try:
            form(content)
        except Misfit as error:
            raise ForeignFile(path, str(error)) from error
        return content


def describe_run(run: dict[str, Any]) -> str:
    """A run in a few words."""
    identity = run["identity"]
    return f"{identity['model']['name']} on {identity['task']['name']}, seed {identity['seed']}, {run['hash'][:8]}"


def damage_line(what: str, step: int = 0) -> dict[str, Any]:
    """A row of the log that says what the log has lost."""
    return {"kind": "damage", "step": step, "what": what}


def _take_back(new: list[Path]) -> None:
    """Remove what a refused request made: the lock, and the folder when that is new too."""
    with suppress(OSError):
        for path in new:
            path.rmdir() if path.is_dir() else path.unlink()
