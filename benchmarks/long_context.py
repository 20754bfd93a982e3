"""Books read from their first byte to 512 KiB with the state carried: what the last tenth costs beside the first.

Trains each model on windows of the training books for the same tokens, then reads every test book once and prints, for
its first and its last tenth, processor time per byte and resident memory, their ratios, and bits per byte by position.
Training goes on where an interrupted run of the same command stopped.

    python benchmarks/long_context.py --data books/ --steps 2500
    python benchmarks/long_context.py --data books/ --steps 20 --context 65536 --books 2
"""

import argparse
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from seqbench.environment import tune_allocator
from seqbench.planning.plan import RunPlan, resolve
from seqbench.planning.request import RunRequest
from seqbench.running.runner import build_model, predictor_of
from seqbench.training.progress import TrainingProgress
from seqbench.training.trainer import Trainer
from seqbench_tasks.pg19.books import BookScore, read_book
from seqbench_tasks.pg19.summary import measure
from seqbench_tasks.text.protocol import parse_protocol
from seqbench_tasks.text.tokens import read_tokens

# The last tenth of a book may cost this much more or less than the first.
TOLERANCE = 0.05
MIB = 2**20


def train(plan: RunPlan, folder: Path) -> torch.nn.Module:
    """The model after the plan's steps; continues from the checkpoints in `folder`."""
    model = build_model(plan)
    trainer = Trainer(
        model,
        plan.task,
        plan.trainer,
        plan.seed,
        plan.device,
        plan.precision,
        folder,
        lambda record: None,
        plan.budget,
    )
    with TrainingProgress(plan.label, plan.budget.progress(trainer.state)) as progress:
        if not trainer.finished:
            trainer.train(progress, lambda step: None)
            trainer.save_final()
    print(f"{plan.label}: trained on {trainer.state.tokens:,} tokens in {trainer.state.seconds:.0f} s", flush=True)
    return model


def read_books(plan: RunPlan, model: torch.nn.Module) -> list[BookScore]:
    """All test books of the plan, after a first call that counts for nothing."""
    predictor, config = predictor_of(plan, model), plan.task.config
    protocol, ends = parse_protocol(config.protocol), config.bucket_ends("test")
    documents = plan.task.corpus.documents("test")
    found = []
    for number in range(-1, min(len(documents), config.test_books or len(documents))):
        document = documents[max(number, 0)]
        limit = config.context_bytes if number >= 0 else config.first_bucket_bytes
        tokens = read_tokens(document.read, document.size, limit, None)
        score = read_book(predictor, document.name, tokens, protocol, ends)
        if number >= 0:
            print_book(score)
            found.append(score)
    return found


def print_book(score: BookScore) -> None:
    cost = score.cost
    print(
        f"  {score.name:24} {score.bytes:>9,} bytes  {score.total_bits / score.bytes:.4f} bits/byte "
        f" {1e6 * cost.first_seconds_per_byte:7.2f} -> {1e6 * cost.last_seconds_per_byte:7.2f} us/byte"
        f" ({time_ratio(score):.3f}) "
        f" {cost.first_memory_bytes / MIB:7.1f} -> {cost.last_memory_bytes / MIB:7.1f} MiB ({memory_ratio(score):.3f})",
        flush=True,
    )


def time_ratio(score: BookScore) -> float:
    return score.cost.last_seconds_per_byte / score.cost.first_seconds_per_byte


def memory_ratio(score: BookScore) -> float:
    return score.cost.last_memory_bytes / score.cost.first_memory_bytes


def print_summary(plan: RunPlan, scores: Sequence[BookScore]) -> None:
    config = plan.task.config
    held = [
        plan.model.state_bytes(plan.model_config, length)
        for length in (config.context_bytes // 10, config.context_bytes)
    ]
    print(f"  carried state after a tenth and after all: {held[0]:,} and {held[1]:,} bytes")
    found = measure(scores, config.bucket_ends("test"), "test")
    known = {(each.metric, *each.coordinates.values()): each.value for each in found}
    for each in found:
        places = tuple(each.coordinates.values())
        if not each.metric.endswith(("_low", "_high")):
            bounds = [known.get((f"{each.metric}{end}", *places)) for end in ("_low", "_high")]
            interval = "" if None in bounds else f" [{bounds[0]:.4f}, {bounds[1]:.4f}]"
            where = "".join(f" to {place:,}" for place in places)
            print(f"  {each.metric}{where}: {each.value:.4f}{interval} {each.unit}, {each.n} books")
    for what, ratios in (("time per byte", map(time_ratio, scores)), ("memory", map(memory_ratio, scores))):
        of_books = list(ratios)
        middle = statistics.median(of_books)
        verdict = "within" if abs(middle - 1) <= TOLERANCE else "NOT within"
        print(
            f"  {what}, last tenth over first: median {middle:.3f} of {len(of_books)} books ({min(of_books):.3f} to"
            f" {max(of_books):.3f}): {verdict} {TOLERANCE:.0%}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of books with train and test")
    parser.add_argument("--models", default="pmnet,sliding-window,mamba", help="(default %(default)s)")
    parser.add_argument("--steps", type=int, default=2500, help="training steps (default %(default)s)")
    parser.add_argument("--batch-size", type=int, default=16, help="windows a step (default %(default)s)")
    parser.add_argument("--window", type=int, default=512, help="bytes of a training window (default %(default)s)")
    parser.add_argument("--context", type=int, default=524_288, help="bytes read of a book (default %(default)s)")
    parser.add_argument("--books", type=int, help="test books (default all)")
    parser.add_argument("--threads", type=int, default=1, help="torch's threads (default %(default)s)")
    parser.add_argument("--checkpoints", help="folder that keeps the training (default: forgotten)")
    options = parser.parse_args()
    tune_allocator()
    torch.set_num_threads(options.threads)
    changes = {
        "steps": str(options.steps),
        "warmup_steps": str(min(50, max(0, options.steps - 1))),
        "batch_size": str(options.batch_size),
        "evaluation_interval": "0",
        "task.data": options.data,
        "task.window_bytes": str(options.window),
        "task.context_bytes": str(options.context),
        "task.test_books": str(options.books or "none"),
    }
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(options.checkpoints or temporary)
        for name in options.models.split(","):
            plan = resolve(RunRequest(name, "pg19", changes=changes))
            print_summary(plan, read_books(plan, train(plan, folder / f"{name}-{plan.run_hash[:8]}")))


if __name__ == "__main__":
    main()
