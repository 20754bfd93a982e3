"""my-model: a gated linear recurrence, a starting point for an architecture of your own.

Each channel keeps a running mean h_t = f_t h_{t-1} + (1 - f_t) x_t of its inputs x_t; the token at hand chooses f_t,
how much of the past is kept. Replace `GatedRecurrence`: what surrounds it is what any architecture needs.
"""

import dataclasses
import math
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from seqbench.contracts import Ablation, Flops, ModelPlugin, WidthAxis, check_settings, setting
from seqbench.nn import BackboneOutput, CarriedState, CausalCall, RMSNorm, SwiGLU


@dataclass(frozen=True)
class MyModelSettings:
    """Shape of the model; every field can be changed with --set model.FIELD=VALUE."""

    vocab_size: int = setting(384, "token ids; follows from the task in a run", minimum=1)
    hidden_size: int = setting(64, "size of the residual stream, and channels of the recurrence", minimum=1)
    intermediate_size: int = setting(128, "width of the feed-forward layers", minimum=1)
    num_hidden_layers: int = setting(4, "layers", minimum=1)
    longest_memory: float = setting(64.0, "tokens that the slowest channel averages over at first", minimum=2)
    recurrent: bool = setting(True, "whether channels keep anything of the past")
    initializer_range: float = setting(0.02, "standard deviation of initial weights", minimum=0)

    def __post_init__(self) -> None:
        check_settings(self)


class MyModelConfig(PreTrainedConfig):
    """The settings as they are saved beside the weights."""

    model_type = "my-model"
    tie_word_embeddings: bool = True


@dataclass
class MyModelState(CarriedState):
    """What continues a sequence: per layer a (batch, hidden_size) memory, and how many tokens each row has seen."""

    memories: list[Tensor] = field(default_factory=list)
    seen: Tensor | None = None

    def reorder_cache(self, beam_index: Tensor) -> None:
        """Keep the rows `beam_index`, in that order (beam search)."""
        self.memories = [memory.index_select(0, beam_index) for memory in self.memories]
        if self.seen is not None:
            self.seen = self.seen.index_select(0, beam_index)


def linear_recurrence(keep: Tensor, added: Tensor, before: Tensor) -> Tensor:
    """h_t = keep_t h_{t-1} + added_t for all t at once, with h_{-1} = before.

    After round k a place holds what the last 2^k places left in it: log2(length) rounds reach back to the start.
    keep, added and the result are (batch, length, channels); before is (batch, channels).
    """
    memory = torch.cat((before.unsqueeze(1), added), dim=1)
    keep = F.pad(keep, (0, 0, 1, 0))
    shift = 1
    while shift < memory.shape[1]:
        memory = memory + keep * F.pad(memory, (0, 0, shift, -shift))
        keep = keep * F.pad(keep, (0, 0, shift, -shift))
        shift *= 2
    return memory[:, 1:]


class GatedRecurrence(nn.Module):
    """The part that looks back: a gated linear recurrence over time."""

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__()
        size = config.hidden_size
        self.in_proj = nn.Linear(size, 3 * size, bias=False)
        self.out_proj = nn.Linear(size, size, bias=False)
        # A mean over n tokens keeps 1 - 1/n, the sigmoid of log(n - 1): n from 2 to longest_memory over the channels.
        averaged = torch.logspace(1, math.log2(config.longest_memory), size, base=2)
        self.forget_bias = nn.Parameter((averaged - 1).log())
        self.recurrent = config.recurrent

    def forward(self, hidden: Tensor, real: Tensor | None, before: Tensor | None) -> tuple[Tensor, Tensor]:
        """The outputs (batch, length, hidden_size), and the memory (batch, hidden_size) after the last token."""
        forget, candidate, gate = self.in_proj(hidden).chunk(3, dim=-1)
        # The bias is kept in fp32 where products are computed in bfloat16, and so is all that comes of it.
        keep = torch.sigmoid(forget + self.forget_bias)
        added = (1 - keep) * candidate
        if not self.recurrent:
            keep = torch.zeros_like(keep)
        if real is not None:
            # Padding keeps everything and adds nothing.
            keep, added = keep.masked_fill(~real, 1.0), added.masked_fill(~real, 0.0)
        memory = linear_recurrence(keep, added, torch.zeros_like(added[:, 0]) if before is None else before)
        mixed = self.out_proj(memory * F.silu(gate))
        return mixed, memory[:, -1].detach().clone()


class Layer(nn.Module):
    """The recurrence, then a feed-forward layer; each with its own norm and residual connection."""

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__()
        self.mixer_norm = RMSNorm(config.hidden_size, 1e-6)
        self.mixer = GatedRecurrence(config)
        self.mlp_norm = RMSNorm(config.hidden_size, 1e-6)
        self.mlp = SwiGLU(config.hidden_size, config.intermediate_size)

    def forward(self, hidden: Tensor, real: Tensor | None, before: Tensor | None) -> tuple[Tensor, Tensor]:
        """The residual stream after this layer, and the layer's memory."""
        mixed, after = self.mixer(self.mixer_norm(hidden), real, before)
        hidden = hidden + mixed
        return hidden + self.mlp(self.mlp_norm(hidden)), after


class MyModelForCausalLM(CausalCall, PreTrainedModel):
    """The language model: embedding, layers, norm, and a head that shares the embedding's weights."""

    config_class = MyModelConfig
    _tied_weights_keys = {"lm_head.weight": "embed_tokens.weight"}

    def __init__(self, config: MyModelConfig) -> None:
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, 1e-6)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def empty_state(self) -> MyModelState:
        """The state before the first token."""
        return MyModelState()

    def run_backbone(
        self, input_ids: Tensor, attention_mask: Tensor | None, past_key_values: MyModelState | None, use_cache: bool
    ) -> BackboneOutput:
        """What the head is put on, (batch, length, hidden_size), and the state that continues it."""
        batch, length = input_ids.shape
        before = past_key_values or self.empty_state()
        # While generating, the mask may cover the tokens before these too.
        real = None if attention_mask is None else attention_mask[:, -length:].bool().unsqueeze(-1)
        hidden, memories = self.embed_tokens(input_ids), []
        for index, layer in enumerate(self.layers):
            hidden, after = layer(hidden, real, before.memories[index] if before.memories else None)
            memories.append(after)
        added = torch.full((batch,), length, device=hidden.device) if real is None else real.sum(dim=(1, 2))
        state = MyModelState(memories, added if before.seen is None else before.seen + added)
        return BackboneOutput(self.norm(hidden), past_key_values=state if use_cache else None)


class MyModelPlugin(ModelPlugin[MyModelSettings]):
    """A gated linear recurrence: a running mean per channel that forgets as fast as each token says."""

    name = "my-model"
    summary = "gated linear recurrence: a running mean per channel that each token may reset"
    version = "1"
    config_class = MyModelSettings
    presets = {"tiny": MyModelSettings(), "small": MyModelSettings(hidden_size=256, intermediate_size=512)}
    width_axis = WidthAxis("hidden_size", 8)
    fine_axis = WidthAxis("intermediate_size", 1)
    ablations = {"no-recurrence": Ablation("every token sees itself alone", {"recurrent": False}, at_evaluation=True)}

    def build(self, config: MyModelSettings) -> MyModelForCausalLM:
        """A freshly initialised model."""
        return MyModelForCausalLM(MyModelConfig(**dataclasses.asdict(config)))

    def with_vocabulary(self, config: MyModelSettings, vocab_size: int) -> MyModelSettings:
        """`config` with the task's vocabulary size."""
        return dataclasses.replace(config, vocab_size=vocab_size)

    def parameter_group(self, parameter_name: str) -> str:
        """One of "embedding", "norm", "recurrence" or "mlp"."""
        if "embed_tokens" in parameter_name:
            return "embedding"
        if "norm" in parameter_name:
            return "norm"
        return "recurrence" if ".mixer." in parameter_name else "mlp"

    def flops(self, config: MyModelSettings, sequence_length: int) -> Flops:
        """The linear maps, which are all the matrix products there are; the recurrence is elementwise work."""
        hidden, layers = config.hidden_size, config.num_hidden_layers
        per_product = 2 * sequence_length
        return Flops(
            {
                "recurrence": per_product * layers * 4 * hidden * hidden,
                "mlp": per_product * layers * 3 * hidden * config.intermediate_size,
                "head": per_product * hidden * config.vocab_size,
            }
        )

    def state_bytes(self, config: MyModelSettings, sequence_length: int) -> int:
        """4 bytes per channel and layer, however many tokens came before, and 8 for their number."""
        del sequence_length
        return 4 * config.num_hidden_layers * config.hidden_size + 8

    def attention_reach(self, config: MyModelSettings) -> int | None:
        """None: no attention."""
        del config
        return None

    def receptive_field(self, config: MyModelSettings) -> int | None:
        """None: a recurrence is unbounded; without it a prediction depends on one token."""
        return None if config.recurrent else 1

    def confounds(self, config: MyModelSettings) -> dict[str, str]:
        """What decides rankings besides the recurrence; printed with every result."""
        return {
            "short convolution": "none",
            "position encoding": "none",
            "depth": f"{config.num_hidden_layers} layers",
            "initialisation": f"normal, deviation {config.initializer_range:g}; memories of 2 to"
            f" {config.longest_memory:g} tokens",
            "kernel path": "torch operations, log2(length) passes over the sequence",
        }
