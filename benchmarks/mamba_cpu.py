"""Training throughput of this project's Mamba beside transformers' own CPU path, and whether they learn the same.

Both models start from the same weights and take the same batches; steps alternate, so that a busy machine slows both.
Transformers' path is a loop over tokens whose backward pass grows with the square of the length: keep the sizes small.

    python benchmarks/mamba_cpu.py --length 128 --steps 3
"""

import argparse
import dataclasses
import statistics
import time

import torch
import torch.nn.functional as F
from transformers import MambaConfig, PreTrainedModel
from transformers import MambaForCausalLM as TransformersMamba

from seqbench_baselines.mamba.plugin import MambaPlugin


def training_step(model: PreTrainedModel, optimizer: torch.optim.Optimizer, input_ids: torch.Tensor) -> float:
    """One step of AdamW; the loss before it."""
    optimizer.zero_grad()
    logits = model(input_ids).logits
    loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), input_ids[:, 1:].flatten())
    loss.backward()
    optimizer.step()
    return loss.item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=4, help="sequences a step (default %(default)s)")
    parser.add_argument("--length", type=int, default=128, help="tokens a sequence (default %(default)s)")
    parser.add_argument("--hidden-size", type=int, default=64, help="width (default %(default)s)")
    parser.add_argument("--blocks", type=int, default=4, help="Mamba blocks (default %(default)s)")
    parser.add_argument("--steps", type=int, default=5, help="timed steps of each model (default %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="torch's threads (default %(default)s)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    tiny = MambaPlugin.presets["tiny"]
    config = dataclasses.replace(tiny, hidden_size=options.hidden_size, num_hidden_layers=options.blocks)
    ours = MambaPlugin().build(config).train()
    theirs = TransformersMamba(MambaConfig(**MambaPlugin().native_fields(config))).train()
    theirs.load_state_dict(ours.state_dict())
    models = {"seqbench": ours, "transformers": theirs}
    optimizers = {name: torch.optim.AdamW(model.parameters(), lr=1e-3) for name, model in models.items()}
    seconds: dict[str, list[float]] = {name: [] for name in models}
    losses: dict[str, list[float]] = {name: [] for name in models}
    # The first step of each allocates and is not timed.
    for step in range(options.steps + 1):
        input_ids = torch.randint(0, config.vocab_size, (options.batch_size, options.length))
        for name, model in models.items():
            start = time.perf_counter()
            losses[name].append(training_step(model, optimizers[name], input_ids))
            if step:
                seconds[name].append(time.perf_counter() - start)
    tokens = options.batch_size * options.length
    parameters = sum(parameter.numel() for parameter in ours.parameters())
    size = f"{options.batch_size} x {options.length}"
    print(f"{parameters:,} parameters, {size} tokens a step, {options.threads} thread(s)")
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    for name, median in medians.items():
        print(f"{name:12}  {tokens / median:10,.0f} tokens/s  (median step {median:.3f} s of {options.steps})")
    print(f"ratio         {medians['transformers'] / medians['seqbench']:10.1f}")
    difference = max(abs(a - b) for a, b in zip(losses["seqbench"], losses["transformers"], strict=True))
    print(f"largest difference of the loss over {options.steps + 1} steps: {difference:.1e}")


if __name__ == "__main__":
    main()
