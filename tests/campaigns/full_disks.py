"""Limits: commands find no room, or no file handles, and are typed again when there is some.

    python tests/campaigns/full_disks.py [--limits 64] [--seed 0]

Each limit is drawn anew: the largest size of a file (as `ulimit -f`), a file system of a few KiB (as root, where one
can be mounted), the number of open files (`ulimit -n`). Under it a command is typed up to three times; it may
end with 0, 1 or 2, with one message and no traceback. Then the limit is lifted and the same command typed once more:
what is there then must be, to the bit, what it leaves where there was always room. Prints one line a limit and the
counts; exit code 1 when anything is not as it must be.
"""

import argparse
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from kill_storms import COMMANDS, left_alone
from warm_bench import Command, contents, differences

_KINDS = ("file size", "file system", "open files")
_ROOM = "64m"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limits", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(f"{options.limits} limits, seed {options.seed}", flush=True)
    counts: Counter[str] = Counter()
    wrong = 0
    with tempfile.TemporaryDirectory() as place:
        kinds = _KINDS if _can_mount(Path(place) / "mount") else ("file size", "open files")
        alone = {name: left_alone(Path(place) / f"alone-{name}", name)[0] for name in COMMANDS}
        for number in range(options.limits):
            generator = random.Random(f"{options.seed} {number}")
            name, kind = generator.choice(list(COMMANDS)), kinds[number % len(kinds)]
            size = _size(kind, generator)
            found = _limited(Path(place) / f"limit-{number}", name, kind, size, alone[name], counts)
            wrong += bool(found)
            print(f"limit {number + 1} ({name}, {kind} {size:,}): {'; '.join(found) or 'the same bits'}", flush=True)
    print(f"{options.limits} limits, {wrong} wrong; " + ", ".join(f"{count} {what}" for what, count in counts.items()))
    return int(wrong > 0)


def _size(kind: str, generator: random.Random) -> int:
    if kind == "open files":
        return generator.randint(3, 24)
    smallest, largest = (64, 200_000) if kind == "file size" else (8 * 1024, 400 * 1024)
    # As many among the small ones as among the large ones.
    return round(smallest * (largest / smallest) ** generator.random())


def _limited(place: Path, name: str, kind: str, size: int, expected: Mapping, counts: Counter[str]) -> list[str]:
    """What is wrong with a command under one limit, and when it is lifted."""
    place.mkdir()
    number = {"file size": resource.RLIMIT_FSIZE, "open files": resource.RLIMIT_NOFILE}.get(kind)
    with _file_system(place, size if kind == "file system" else None) as lift:
        wrong = []
        for _ in range(3):
            command = Command(place, COMMANDS[name], {} if number is None else {number: size})
            code = command.wait()
            counts[f"ended with {code}"] += 1
            said = command.said()
            if code not in (0, 1, 2) or "Traceback" in said or "Error:" in said:
                wrong.append(f"ended with {code}: {said[-2000:]}")
            if code == 0:
                break
        lift()
        command = Command(place, COMMANDS[name])
        code = command.wait()
        if code != 0:
            return [*wrong, f"with room it ended with {code}: {command.said()[-2000:]}"]
        wrong += differences(expected, contents(place / "runs"))
    if not wrong:
        shutil.rmtree(place)
    return wrong


@contextmanager
def _file_system(place: Path, size: int | None) -> Iterator:
    """A file system of `size` bytes at `place`, and a function that gives it room; with None nothing is mounted."""
    if size is None:
        yield lambda: None
        return
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)], check=True)
    try:
        yield lambda: subprocess.run(["mount", "-o", f"remount,size={_ROOM}", str(place)], check=True)
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def _can_mount(place: Path) -> bool:
    if os.geteuid() != 0:
        return False
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(place)], capture_output=True)
    if mounted.returncode == 0:
        subprocess.run(["umount", str(place)], check=True)
    return mounted.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
