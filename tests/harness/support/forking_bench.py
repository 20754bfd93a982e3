"""Runs `bench` commands one after the other, each in a process of its own that is forked after torch is imported.

Standard input: a line of JSON for each command, {"folder": ..., "arguments": [...], "environment": {...}}. Standard
output: a line for each, [exit code (negative for a signal), standard output, standard error]. The variable
TOY_KILL_AFTER is the time in seconds after which a command is killed with kill -9.
"""

import contextlib
import json
import os
import resource
import signal
import sys
import tempfile
import threading
import traceback
from pathlib import Path

# As the command does before it imports anything.
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

from seqbench.cli import app, compare, listing, main, run, show  # noqa: F401
from seqbench.report import plot, table, training_figure  # noqa: F401
from seqbench.running import preview, runner  # noqa: F401 (imported once, before any fork)


def in_child(folder, arguments, environment, streams):
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, path in streams.items():
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    os.chdir(folder)
    os.environ.update(environment)
    if largest := int(environment.get("TOY_LARGEST_FILE", 0)):
        # As a full disk: every write beyond it fails.
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
    sys.argv = ["bench", *arguments]
    try:
        main()
    except SystemExit as leave:
        return leave.code if isinstance(leave.code, int) else int(leave.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def run_command(folder, arguments, environment):
    with tempfile.TemporaryDirectory() as temporary:
        streams = {1: Path(temporary) / "out", 2: Path(temporary) / "err"}
        # Before the fork: a child may be killed before it comes to that.
        for path in streams.values():
            path.touch()
        child = os.fork()
        if child == 0:
            code = 70
            with contextlib.suppress(BaseException):
                code = in_child(folder, arguments, environment, streams)
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)
        killer = threading.Timer(float(environment.get("TOY_KILL_AFTER", "inf")), os.kill, (child, signal.SIGKILL))
        if "TOY_KILL_AFTER" in environment:
            killer.start()
        # Looked at without being buried, so that its id belongs to nobody else when the killer comes.
        os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
        killer.cancel()
        _, status = os.waitpid(child, 0)
        return [os.waitstatus_to_exitcode(status), *(path.read_text() for path in streams.values())]


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(run_command(**json.loads(line))), flush=True)
