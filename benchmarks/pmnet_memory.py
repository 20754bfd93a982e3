"""PMNet's fast paths against a plain implementation of its equations ("direct"), in one run and on the same weights.

A training step is loss and gradients without an optimizer. "direct" takes the reference paths of memory_read and
memory_write: every slot's keys and values are projected, and autograd stores what it likes; scan, attention and norms
are the same for all. Steps of the paths take turns, so that a machine that drifts drifts for all; a ratio is one of the
same round. FLOPs are the exact multiply-accumulates that the plugin declares, two each, whatever the path computes.

    python benchmarks/pmnet_memory.py --preset 119m --tokens 512 --threads 2
    python benchmarks/pmnet_memory.py --preset 119m --tokens 2048 --rounds 3
    python benchmarks/pmnet_memory.py --preset tiny --batch-size 64 --tokens 40
    python benchmarks/pmnet_memory.py --preset tiny --decode 500000
"""

import argparse
import copy
import os
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch

from pmnet_plugin.plugin import PMNetPlugin
from seqbench.environment import tune_allocator
from seqbench.evaluating.streaming import stream
from seqbench.nn import evaluation_mode
from seqbench.speed.high_water import rise
from seqbench.speed.passes import TrainingPass
from seqbench.speed.peaks import Peaks
from seqbench.speed.spread import paired_ratios, spread
from seqbench_kernels.dispatch import ENVIRONMENT_VARIABLE, request_paths

DIRECT = "memory_read=reference,memory_write=reference"
MIB = 2**20
# Steps of one timed call, where the state stays at its position but for these.
DECODE_STEPS = 64


def main() -> None:
    options = parse()
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.allocator == "tuned":
        tune_allocator()
    plugin = PMNetPlugin()
    config = plugin.presets[options.preset]
    torch.manual_seed(0)
    model: Any = plugin.build(config).to(options.device)
    device = torch.device(options.device)
    print(
        f"pmnet {options.preset}, {sum(p.numel() for p in model.parameters()):,} parameters, {options.precision},"
        f" {device.type}, {torch.get_num_threads()} threads, allocator {options.allocator}"
    )
    if options.decode:
        decode(model, options.decode, options.rounds)
        return
    tokens = torch.randint(0, config.vocab_size, (options.batch_size, options.tokens), device=device)
    autocast = nullcontext if options.precision == "fp32" else lambda: torch.autocast(device.type, torch.bfloat16)
    step = TrainingPass(model, model, tokens, autocast)
    paths = {"direct": DIRECT, "fast": ""}
    if device.type == "cpu":
        paths["recompute"] = "memory_read=cpu-recompute"
    flops = options.batch_size * sum(plugin.flops(config, options.tokens).forward.values()) * 3
    train(step, paths, flops, options, device)
    memory(step, paths, model, device)


def train(
    step: TrainingPass, paths: dict[str, str], flops: int, options: argparse.Namespace, device: torch.device
) -> None:
    """Time of a step by path, paths in turn; with the matrix peak of the same rounds."""
    peaks = Peaks(device, torch.float32 if options.precision == "fp32" else torch.bfloat16)
    peaks.measure()
    seconds: dict[str, list[float]] = {name: [] for name in paths}
    for path in paths.values():
        timed(step, path, device)
    for _ in range(options.rounds):
        peaks.sample()
        for name, path in paths.items():
            seconds[name].append(timed(step, path, device))
    peak = torch.tensor(peaks.matrix_samples).median().item()
    print(f"matrix product of {peaks.best_size}: {peak / 1e9:,.1f} GFLOP/s (median of the rounds)")
    for name, times in seconds.items():
        found, shares = spread(times), [flops / t / rate for t, rate in zip(times, peaks.matrix_samples, strict=True)]
        gain, share = spread(paired_ratios(seconds["direct"], times)), spread(shares)
        assert found and gain and share
        print(
            f"  {name:10} {found.median * 1e3:10,.1f} ms a step  {step.units / found.median:10,.0f} tokens/s"
            f"  {gain.median:5.2f} times direct ({gain.lower:.2f} to {gain.upper:.2f})"
            f"  {share.median:5.1%} of the matrix peak ({share.lower:.1%} to {share.upper:.1%})"
        )


def timed(step: TrainingPass, path: str, device: torch.device) -> float:
    """Seconds of one step by a path."""
    return with_paths(path, lambda: seconds_of(step, device))


def seconds_of(step: TrainingPass, device: torch.device) -> float:
    step.prepare()
    if device.type == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    step.call()
    if device.type == "cuda":
        torch.cuda.synchronize()
    elapsed = time.perf_counter() - started
    step.clear()
    return elapsed


def with_paths(path: str, run: Callable[[], Any]) -> Any:
    request_paths(path or None)
    try:
        return run()
    finally:
        request_paths(None)


def memory(step: TrainingPass, paths: dict[str, str], model: torch.nn.Module, device: torch.device) -> None:
    """The highest level of tensor memory in a step, weights included."""
    weights = sum(parameter.nbytes for parameter in model.parameters())
    levels = {}
    for name, path in paths.items():
        step.prepare()
        levels[name] = weights + with_paths(path, lambda: rise(step.call, device))
        step.clear()
    for name, level in levels.items():
        print(f"  {name:10} {level / MIB:10,.0f} MiB at most  {level / levels['direct']:5.2f} of direct")


def decode(model: Any, far: int, rounds: int) -> None:
    """Time of single tokens behind 1,000 tokens and behind `far`, in turn; both states made by reading."""
    generator = torch.Generator().manual_seed(0)
    states: dict[int, Any] = {}
    with evaluation_mode(model), torch.no_grad():
        state, read = None, 0
        for position in (1000, far):
            tokens = torch.randint(0, model.config.vocab_size, (1, position - read), generator=generator)
            for step in stream(model, tokens, chunk_length=4096, state=state):
                state = step.state
            read, states[position] = position, copy.deepcopy(state)
        times: dict[int, list[float]] = {position: [] for position in states}
        single = torch.zeros(1, 1, dtype=torch.int64)
        for _ in range(rounds + 1):
            for position, kept in states.items():
                moving = copy.deepcopy(kept)
                moving = model(single, past_key_values=moving, use_cache=True).past_key_values
                started = time.perf_counter()
                for _ in range(DECODE_STEPS):
                    moving = model(single, past_key_values=moving, use_cache=True).past_key_values
                times[position].append((time.perf_counter() - started) / DECODE_STEPS)
    # The first round warms up.
    times = {position: values[1:] for position, values in times.items()}
    for position, values in times.items():
        found = spread(values)
        assert found
        quartiles = f"({found.lower * 1e3:.3f} to {found.upper * 1e3:.3f})"
        print(f"  at {position:>9,}: {found.median * 1e3:8.3f} ms a token {quartiles}")
    ratio = spread(paired_ratios(times[far], times[1000]))
    assert ratio
    print(f"  far over near: {ratio.median:.3f} ({ratio.lower:.3f} to {ratio.upper:.3f})")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="tiny", choices=sorted(PMNetPlugin.presets))
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, help="default: what torch takes")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    parser.add_argument("--allocator", default="tuned", choices=("tuned", "default"))
    parser.add_argument("--decode", type=int, metavar="POSITION", help="time single tokens there and at 1,000 instead")
    options = parser.parse_args()
    if os.environ.get(ENVIRONMENT_VARIABLE):
        parser.error(f"unset {ENVIRONMENT_VARIABLE}: this script chooses the paths itself")
    return options


if __name__ == "__main__":
    main()
