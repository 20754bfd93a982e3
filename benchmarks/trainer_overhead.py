"""Throughput of the trainer over that of a bare PyTorch loop, in interleaved pairs.

Both train the same model from the same seed on the same batches with the same optimizers, clipping and logging; the
bare loop is what a researcher would write by hand. Prints the ratio of each pair and their median.

    python benchmarks/trainer_overhead.py --model pmnet --steps 60 --pairs 7
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from short_training import short_training, time_training

from seqbench.contracts import IGNORED_LABEL
from seqbench.environment import tune_allocator
from seqbench.planning.plan import RunPlan, resolve
from seqbench.planning.request import RunRequest
from seqbench.running.runner import build_model
from seqbench.training.optimizer import build_optimizers
from seqbench.training.schedule import learning_rate_at


def time_bare_loop(plan: RunPlan, log: Path) -> float:
    model = build_model(plan).to(plan.device).train()
    optimizers = build_optimizers(model, plan.trainer)
    parameters = list(model.parameters())
    losses, norms = 0.0, 0.0
    with log.open("w") as file:
        started = time.perf_counter()
        for step in range(plan.trainer.steps):
            batch = plan.task.training_batch(plan.seed, step, plan.trainer.batch_size).to(plan.device)
            for optimizer in optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = learning_rate_at(step, plan.trainer)
            logits = model(batch.input_ids, attention_mask=batch.attention_mask).logits
            loss = F.cross_entropy(logits.flatten(0, 1), batch.labels.flatten(), ignore_index=IGNORED_LABEL)
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(parameters, plan.trainer.gradient_clip_norm or float("inf"))
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
            losses, norms = losses + loss.detach(), norms + norm
            if (step + 1) % plan.trainer.log_interval == 0:
                file.write(json.dumps({"step": step + 1, "loss": float(losses), "norm": float(norms)}) + "\n")
                file.flush()
                losses, norms = 0.0, 0.0
        return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="pmnet")
    parser.add_argument("--task", default="copy-paste")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--pairs", type=int, default=7)
    arguments = parser.parse_args()
    tune_allocator()
    plan = resolve(RunRequest(arguments.model, arguments.task, changes=short_training(arguments.steps)))
    ratios = []
    with tempfile.TemporaryDirectory() as name:
        for pair in range(-1, arguments.pairs):
            folder = Path(name) / str(pair)
            folder.mkdir()
            # The order alternates, so that a machine that drifts favours neither.
            if pair % 2:
                bare, ours = time_bare_loop(plan, folder / "bare.jsonl"), time_training(plan, folder)
            else:
                ours, bare = time_training(plan, folder), time_bare_loop(plan, folder / "bare.jsonl")
            if pair >= 0:  # the first pair warms up
                ratios.append(bare / ours)
                print(f"pair {pair}: bare {bare:.2f} s, trainer {ours:.2f} s, throughput ratio {ratios[-1]:.3f}")
    print(
        f"{arguments.model}: the trainer's throughput is {statistics.median(ratios):.3f} of the bare loop's"
        f" (median of {len(ratios)} pairs, {min(ratios):.3f} to {max(ratios):.3f}; {torch.get_num_threads()} threads)"
    )


if __name__ == "__main__":
    main()
