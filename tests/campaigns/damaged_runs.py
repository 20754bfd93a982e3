"""Hundreds of damages to the files of stored runs, and what every command says of them.

    python tests/campaigns/damaged_runs.py [--flips 24] [--misfits all]

Prints, by file and kind of damage, how many were noticed, harmless (the same output), unnoticed, or ended in an error
that nobody foresaw or in a hang; exit code 1 when any of the last three happened. What runs again after a damage must
end in the figures of the run that was left alone. Made for the toy plugins: minutes on one core.
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

SUPPORT = Path(__file__).parent.parent / "harness" / "support"
sys.path.insert(0, str(SUPPORT))
os.environ["PYTHONPATH"] = os.pathsep.join([str(SUPPORT), os.environ.get("PYTHONPATH", "")])
os.environ["OMP_NUM_THREADS"] = "1"

from damages import TOY, Damage, Said, command, copied, figures, flips, misfits, structures, surroundings  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

NOTICED, HARMLESS, UNNOTICED, DIED = "noticed", "harmless", "unnoticed", "died"
JSON = (".json", ".jsonl")
# Words of every message that names a damage.
TELLING = (
    "damaged",
    "cannot be read",
    "was not written by bench",
    "cannot be loaded",
    "holds no",
    "is missing",
    "was removed",
    "unfinished",
    "NO ",
)


@dataclass(frozen=True)
class Store:
    """A store to be damaged: its folder, the run in it, and what the commands say while it is whole."""

    name: str
    place: Path
    run: Path
    says: dict[str, Said]

    def files(self) -> list[Path]:
        """All that any command reads, relative to the run."""
        found = sorted(path.relative_to(self.run) for path in self.run.rglob("*") if path.is_file())
        return [path for path in found if path.suffix != ".png" and path.name not in (".lock", "README.md")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flips", type=int, default=24, help="single bits a file")
    parser.add_argument("--misfits", type=int, default=2, help="every how many-th field of another type")
    options = parser.parse_args()
    # Drawing takes longer than everything else, and nothing is read from plots.
    Figure.savefig = lambda figure, path, **_: Path(path).write_bytes(b"")  # type: ignore[method-assign,assignment]
    started, counts = time.monotonic(), Counter[tuple[str, str, str, str]]()
    with tempfile.TemporaryDirectory() as temporary:
        os.chdir(temporary)
        for store in stores():
            for damage in surroundings():
                outcome, why = judge(store, Path(), damage)
                counts[store.name, "the folder", "around", outcome] += 1
                if outcome in (UNNOTICED, DIED):
                    print(f"{outcome}: {store.name} {damage.what}: {why}", flush=True)
            for file in store.files():
                for kind, damage in damages(store.run / file, options.flips, options.misfits):
                    outcome, why = judge(store, file, damage)
                    counts[store.name, str(file), kind, outcome] += 1
                    if outcome in (UNNOTICED, DIED):
                        print(f"{outcome}: {store.name} {file} {damage.what}: {why}", flush=True)
    report(counts, time.monotonic() - started)
    sys.exit(any(outcome in (UNNOTICED, DIED) for *_, outcome in counts))


def stores() -> Iterator[Store]:
    """A finished run, and the same one as it was after two thirds of its training."""
    for name in ("finished", "unfinished"):
        whole = Path(name)
        said = command("run", *TOY, "--runs", whole, "--json")
        assert said.code == 0, said
        [run] = whole.glob("*/*")
        if name == "unfinished":
            for left in ("result.json", "SHA256SUMS", "items.jsonl"):
                (run / left).unlink()
            shutil.rmtree(run / "model")
        yield Store(name, whole, run, {key: command(*words) for key, words in asked(copied(whole, Path("asked")), run)})


def asked(store: Path, run: Path) -> list[tuple[str, tuple[str, ...]]]:
    """The commands that look at a run, the one that mends it last."""
    folder = str(store / run.relative_to(run.parents[1]))
    return [
        ("show", ("show", folder, "--json")),
        ("runs", ("runs", "--runs", str(store), "--json")),
        ("verify", ("verify", folder, "--runs", str(store), "--json")),
        ("run", ("run", *TOY, "--runs", str(store), "--json")),
    ]


def damages(path: Path, bits: int, every: int) -> Iterator[tuple[str, Damage]]:
    """Kind and damage, all that are tried on a file."""
    yield from (("bit flips", damage) for damage in flips(path.stat().st_size, bits))
    yield from (("structure", damage) for damage in structures(path.suffix in JSON))
    if path.suffix in JSON:
        yield from (("misfits", damage) for damage in list(misfits(path))[::every])


def judge(store: Store, file: Path, damage: Damage) -> tuple[str, str]:
    """What the commands make of a damage, and which of them did what where it is wrong."""
    place = copied(store.place, Path("asked"))
    damage.apply(place / store.run.relative_to(store.place) / file)
    noticed = False
    for name, words in asked(place, store.run):
        said, whole = command(*words), store.says[name]
        if said.died:
            return DIED, f"{name}: {said.died}"
        same = (said.code, figures(said.out)) == (whole.code, figures(whole.out))
        told = messages(said.err) != messages(whole.err)
        told = told or any(word in said.out and word not in whole.out for word in TELLING)
        if not same and not told and not damage.consistent:
            return UNNOTICED, f"{name}: {said}"
        if name == "run" and said.code == 0 and not same and not damage.consistent:
            return UNNOTICED, f"{name} ends with other figures: {said}"
        noticed = noticed or told
    return (NOTICED if noticed else HARMLESS), ""


def messages(text: str) -> list[str]:
    """What `bench` itself says on standard error: bars and clocks say something else every time."""
    return [part for part in text.splitlines() if part.startswith("bench:")]


def report(counts: Counter[tuple[str, str, str, str]], seconds: float) -> None:
    """One line a file and kind, and the sums."""
    for row in sorted({key[:3] for key in counts}):
        line(row, {key[3]: count for key, count in counts.items() if key[:3] == row})
    for kind in sorted({key[2] for key in counts}):
        sums = Counter[str]()
        for key, count in counts.items():
            sums[key[3]] += count * (key[2] == kind)
        line(("", "all", kind), sums)
    print(f"{sum(counts.values())} damages in {seconds:.0f} s")


def line(row: tuple[str, str, str], sums: Mapping[str, int]) -> None:
    told = "".join(f"{sums.get(outcome, 0):7} {outcome}" for outcome in (NOTICED, HARMLESS, UNNOTICED, DIED))
    print(f"{row[0]:11} {row[1]:48} {row[2]:10}{told}")


if __name__ == "__main__":
    main()
