"""Training time of models over that of the first one, all matched to one size, at several shapes of a batch.

One step of every model after the other, round by round: a busy machine then slows all of them, and the ratio of a round
is one of the same minute. Forward and backward passes with the loss, without the optimizer.

    python benchmarks/zoo_speed.py transformer gated-deltanet kda
    python benchmarks/zoo_speed.py transformer mamba2 --shapes 64x40,4x512 --rounds 15 --clock cpu
"""

import argparse
import statistics
import time
from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

from seqbench.accounting.matching import match_parameters
from seqbench.accounting.size_budget import ParameterBudget
from seqbench.plugins.registry import find_model

# Wall-clock time, and the processor's time of this process alone: less disturbed by others on the same cores.
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def matched(name: str, parameters: int, vocabulary: int) -> tuple[PreTrainedModel, int]:
    """A model in training mode, and how many parameters it has outside the vocabulary."""
    plugin = find_model(name)
    config = plugin.with_vocabulary(plugin.presets[plugin.default_preset], vocabulary)
    match = match_parameters(plugin, config, ParameterBudget(parameters))
    return plugin.build(match.config).train(), match.achieved


def seconds_of_step(model: PreTrainedModel, tokens: torch.Tensor, clock: str) -> float:
    """Of a forward and a backward pass."""
    model.zero_grad(set_to_none=True)
    start = CLOCKS[clock]()
    model(tokens, labels=tokens).loss.backward()
    return CLOCKS[clock]() - start


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """The lower one, the median, the upper one."""
    lower, median, upper = statistics.quantiles(values, n=4, method="inclusive")
    return lower, median, upper


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help="names of models; the others are compared with the first")
    parser.add_argument("--shapes", default="64x40,4x512", help="rows x tokens of a step (default %(default)s)")
    parser.add_argument("--params", type=int, default=200_000, help="outside the vocabulary (default %(default)s)")
    parser.add_argument("--vocabulary", type=int, default=64, help="token ids (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=9, help="timed steps of each model (default %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="torch's threads (default %(default)s)")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="which time is taken (default %(default)s)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    models = {name: matched(name, options.params, options.vocabulary) for name in options.models}
    first = options.models[0]
    for shape in options.shapes.split(","):
        rows, length = (int(part) for part in shape.split("x"))
        tokens = torch.randint(0, options.vocabulary, (rows, length))
        seconds: dict[str, list[float]] = {name: [] for name in models}
        # The first round allocates and is not timed.
        for turn in range(options.rounds + 1):
            for name, (model, _) in models.items():
                taken = seconds_of_step(model, tokens, options.clock)
                if turn:
                    seconds[name].append(taken)
        print(f"\n{rows} x {length} tokens, {options.rounds} rounds, {options.threads} thread(s), {options.clock} time")
        print(f"{'model':28}{'parameters':>12}{'ms a step':>12}   times {first} [quartiles]")
        for name, (_, parameters) in models.items():
            ratios = [own / other for own, other in zip(seconds[name], seconds[first], strict=True)]
            lower, median, upper = quartiles(ratios)
            milliseconds = 1000 * statistics.median(seconds[name])
            print(f"{name:28}{parameters:>12,}{milliseconds:>12.1f}   {median:.2f} [{lower:.2f}, {upper:.2f}]")


if __name__ == "__main__":
    main()
