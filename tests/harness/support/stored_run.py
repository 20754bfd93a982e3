"""A run's folder without a run: what is written there, and what can happen to it."""

import json

from seqbench.store.checksums import CHECKSUMS, checksum_lines, read_checksums
from seqbench.store.files import write_text
from seqbench.store.identity import hash_of
from seqbench.store.reader import digest_of
from seqbench.store.run_folder import RunFolder
from seqbench.store.sealed import sealed_document

# Larger than any process id of Linux (2^22) or macOS (99998).
NO_PROCESS = 2**22 + 1


def run_of(seed):
    """What run.json says of the run with this seed."""
    identity = {"model": {"name": "toy"}, "task": {"name": "recall"}, "seed": seed}
    return {"hash": hash_of(identity), "identity": identity}


RUN, OTHER_RUN = run_of(0), run_of(7)
DIGITS = RUN["hash"][:8]

DAMAGES = {
    "truncated": lambda content: content[:-9],
    "empty": lambda content: b"",
    "garbage": lambda content: b"\xff" * 99,
    "one bit": lambda content: content[:-20] + bytes([content[-20] ^ 1]) + content[-19:],
}


def opened(path):
    """The folder of that run, made and entered."""
    folder = RunFolder(path)
    folder.open(RUN, {"threads": 1})
    return folder


def train(step, **changes):
    """A line of training in the log."""
    told = {"loss": 1.5, "progress": 0.5, "data_order_sha256": "", "losses": [1.5]}
    return {"kind": "train", "step": step, **told, **changes}


def evaluation(step):
    """A line of an evaluation in the log."""
    return {"kind": "evaluation", "step": step, "split": "validation", "measurements": []}


def edit(path, **changes):
    """Change a stored JSON file by hand, as if it had been written so."""
    content = {**json.loads(path.read_text()), **changes}
    if content.pop("sha256", None) is not None:
        content = sealed_document(content)
    path.write_text(json.dumps(content))
    if (path.parent / CHECKSUMS).exists():
        cover(path)


def cover(path):
    """Make the checksum of a file that was changed by hand the right one."""
    digests = read_checksums(path.parent)
    write_text(path.parent / CHECKSUMS, checksum_lines({**digests, path.name: digest_of(path)}))


def log_lines(folder, *rows):
    for row in rows:
        folder.log(row)
    folder.close()
