"""Whether a folder that is not there yet could be made and written."""

from contextlib import suppress
from pathlib import Path

from seqbench.errors import RequestError


def require_place(folder: Path) -> None:
    """Raise RequestError unless a file can be written into the folder; what is made to find out is taken back."""
    made: list[Path] = []
    try:
        missing = [path for path in (folder, *folder.parents) if not path.exists()]
        for path in reversed(missing):
            path.mkdir()
            made.append(path)
        trial = folder / ".writable"
        trial.touch()
        made.append(trial)
    except OSError as error:
        raise RequestError(
            f"cannot write to {folder}: {error.strerror}\ngive a folder that you can write to with --output or --runs"
        ) from error
    finally:
        for path in reversed(made):
            with suppress(OSError):
                path.rmdir() if path.is_dir() else path.unlink()
