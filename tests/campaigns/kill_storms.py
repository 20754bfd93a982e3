"""Kill storms: commands are ended by signals at random instants, over and over, until one is left alone.

    python tests/campaigns/kill_storms.py [--storms 88] [--seed 0]

Each storm takes a command of its own (one run, an ablation at evaluation, a comparison of two models) and sends KILL,
TERM, INT or HUP to it, or to all its processes at once, a random number of times. What is there in the end must be, to
the bit, what the same command leaves undisturbed; no command may show a traceback, and the last one must end with 0.
Prints one line a storm and the counts; exit code 1 when anything is not as it must be.
"""

import argparse
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from warm_bench import Command, contents, differences

_TASK = ("--task", "toy_task:Recall", "--threads", "1", "--device", "cpu", "--set", "checkpoint_interval=2")
COMMANDS = {
    "run": ("run", "--model", "toy_model:Neighbour", *_TASK),
    "padded": ("run", "--model", "toy_model:Neighbour", *_TASK, "--set", "optimizer=muon", "--set", "task.padded=true"),
    "ablation": ("run", "--model", "toy_model:Neighbour", *_TASK, "--ablate", "deaf@eval"),
    "comparison": (
        *("compare", "--models", "toy_model:Neighbour,toy_model:ShortSighted", *_TASK, "--seeds", "1"),
        *("--jobs", "2"),
    ),
}
_SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_MOST_KILLS = 6


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--storms", type=int, default=88)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(f"{options.storms} kill storms, seed {options.seed}", flush=True)
    counts: Counter[str] = Counter()
    wrong = 0
    with tempfile.TemporaryDirectory() as place:
        alone = {name: left_alone(Path(place) / f"alone-{name}", name) for name in COMMANDS}
        for number in range(options.storms):
            generator = random.Random(f"{options.seed} {number}")
            name = generator.choice(list(COMMANDS))
            found = _storm(Path(place) / f"storm-{number}", name, *alone[name], generator, counts)
            wrong += bool(found)
            print(f"storm {number + 1} ({name}): {'; '.join(found) or 'the same bits'}", flush=True)
    print(f"{options.storms} storms, {wrong} wrong; " + ", ".join(f"{count} {what}" for what, count in counts.items()))
    return int(wrong > 0)


def left_alone(place: Path, name: str) -> tuple[dict, float]:
    """What the command leaves, and the seconds that it takes."""
    started = time.monotonic()
    command = Command(place, COMMANDS[name])
    code = command.wait()
    assert code == 0, command.said()
    return contents(place / "runs"), time.monotonic() - started


def _storm(
    place: Path, name: str, expected: dict, seconds: float, generator: random.Random, counts: Counter[str]
) -> list[str]:
    """What is wrong after one storm."""
    wrong = []
    for _ in range(generator.randint(1, _MOST_KILLS)):
        command = Command(place, COMMANDS[name])
        number, to_group = generator.choice(_SIGNALS), generator.random() < 0.5
        time.sleep(generator.uniform(0, 0.8 * seconds))
        command.send(number, to_group)
        code = command.wait()
        counts[f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"] += 1
        wrong += _unsound(command, code)
        if generator.random() < 0.3:
            # A process group that is alive no more leaves nobody behind; without this a comparison's runs go on.
            command.send(signal.SIGKILL, True)
    command = Command(place, COMMANDS[name])
    code = command.wait()
    wrong += _unsound(command, code)
    if code != 0:
        wrong.append(f"left alone it ended with {code}: {command.said()[-2000:]}")
    else:
        wrong += differences(expected, contents(place / "runs"))
        shutil.rmtree(place)
    return wrong


def _unsound(command: Command, code: int) -> list[str]:
    said = command.said()
    found = [f"a traceback: {said[-2000:]}"] if "Traceback" in said else []
    if code not in (0, 1, 129, 130, 143) and code >= 0:
        found.append(f"exit code {code}: {said[-500:]}")
    if "is damaged" in said:
        found.append(f"damage: {said[-500:]}")
    return found


if __name__ == "__main__":
    sys.exit(main())
