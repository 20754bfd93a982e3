"""The decoder around a mixer: everything of a language model that is not the mixing of tokens."""

from collections.abc import Sequence
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer

from seqbench.errors import RequestError
from seqbench.mixers.chunk import Chunk, Handed
from seqbench.mixers.layout import Layout
from seqbench.mixers.mixer import Mixer
from seqbench.mixers.norms import norm_of
from seqbench.mixers.settings import LEARNED
from seqbench.mixers.state import MixerState, Tree, owned
from seqbench.mixers.taps import causal_taps
from seqbench.nn import (
    STATE_NAMES,
    BackboneOutput,
    CausalLanguageModel,
    SwiGLU,
    pack_rows,
    refuse_state_with_checkpointing,
    widen,
)


class Steps(Protocol):
    """A quicker way for one token a row, in models that have one."""

    def take(self, backbone: nn.Module, tokens: Tensor, cache: Any) -> Tensor | None:
        """Normalised hidden states (rows, 1, hidden_size), the state having moved on; None where it does not fit."""


@runtime_checkable
class Initialised(Protocol):
    """A module that gives its own parameters their first values, through transformers.initialization."""

    def initialise(self) -> None:
        """As `Mixer.initialise`."""


class Design(Protocol):
    """What a decoder asks its plugin."""

    layer_class: "type[MixerLayer]"

    def settings_from(self, native: PreTrainedConfig) -> Any:
        """The settings of a model with that config."""

    @classmethod
    def mixers(cls, settings: Any) -> Sequence[type[Mixer[Any]]]:
        """The mixer of each layer."""

    @classmethod
    def order(cls, settings: Any) -> Sequence[int]:
        """Which layer runs at each depth."""

    @classmethod
    def embedding_norm(cls, settings: Any) -> nn.Module | None:
        """What embeddings go through before the first layer."""

    @classmethod
    def final_norm(cls, settings: Any) -> nn.Module | None:
        """What the last layer's output goes through before the head; None for a norm as the settings say."""

    @classmethod
    def empty_state(cls, settings: Any) -> MixerState:
        """The state before the first token."""

    @classmethod
    def steps(cls, settings: Any, backbone: nn.Module) -> Steps | None:
        """The quicker way for one token a row; None where there is none."""


class MixerConfig(PreTrainedConfig):
    """The settings as they are saved beside the weights."""

    keys_to_ignore_at_inference = STATE_NAMES
    # Given by the plugin, whose settings and layers these are.
    design: ClassVar[type[Design]]

    @property
    def settings(self) -> Any:
        """The plugin's settings."""
        return self.design().settings_from(self)


class ShortConvolution(nn.Module):
    """A causal convolution per channel, added to its input: the canon layer of arXiv 2512.17351, section 3."""

    def __init__(self, channels: int, taps: int) -> None:
        super().__init__()
        self.taps = nn.Parameter(torch.empty(channels, taps))

    def forward(self, hidden: Tensor, before: Tensor | None, chunk: Chunk) -> tuple[Tensor, Tensor]:
        """(batch, length, channels), and the newest inputs, which the next chunk begins with."""
        count = self.taps.shape[1]
        after = chunk.newest(hidden, before, count - 1)
        return hidden + causal_taps(hidden, before, self.taps).to(hidden.dtype), after


def convolution_before(mixer: type[Mixer[Any]], settings: Any) -> ShortConvolution | None:
    """The short convolution that stands before a mixer; None where there is none, or the mixer has it inside."""
    if mixer.short_convolution_inside or not settings.short_convolution:
        return None
    return ShortConvolution(settings.hidden_size, settings.short_convolution)


def inputs_kept_before(mixer: type[Mixer[Any]], settings: Any) -> int:
    """How many tokens back that convolution reaches, whose inputs it carries on."""
    return 0 if mixer.short_convolution_inside else max(0, settings.short_convolution - 1)


class LearnedPositions(nn.Module):
    """A row of a table for each position, added to the embeddings."""

    def __init__(self, settings: Any) -> None:
        super().__init__()
        self.table = nn.Embedding(settings.learned_positions, settings.hidden_size)

    def forward(self, chunk: Chunk) -> Tensor:
        """(batch, length, hidden_size). Raises RequestError for a row that is longer than the table."""
        rows = self.table.num_embeddings
        if not torch.compiler.is_compiling() and not chunk.before.is_meta:
            longest = int((chunk.before + chunk.added).max())
            if longest > rows:
                raise RequestError(
                    f"position_encoding learned has {rows:,} positions, and a sequence has {longest:,} tokens; type"
                    f" --set model.learned_positions={longest} or more"
                )
        # Padding stands behind the real tokens, whose positions are all in the table.
        return self.table(chunk.positions.clamp(max=rows - 1))


class MixerLayer(GradientCheckpointingLayer):
    """A mixer and a feed-forward layer, each with its own norm and residual connection."""

    # What the parts are called, here and in the backbone; a subclass names them as a published format does.
    layout: ClassVar[Layout] = Layout()
    # Whether the residual stream is kept in at least fp32 where the weights are narrower; what mixers and feed-forward
    # layers take in has the dtype of the weights all the same.
    wide_residual: ClassVar[bool] = False

    def __init__(self, mixer: Mixer[Any], settings: Any) -> None:
        super().__init__()
        size, names = settings.hidden_size, self.layout
        self.add_module(names.mixer_norm, norm_of(settings, self.wide_residual))
        self.short_convolution = convolution_before(type(mixer), settings)
        self.add_module(names.mixer, mixer)
        has_feed_forward = settings.feed_forward == "swiglu"
        feed_forward_norm = norm_of(settings, self.wide_residual) if has_feed_forward else None
        self.add_module(names.feed_forward_norm, feed_forward_norm)
        self.add_module(names.feed_forward, SwiGLU(size, settings.intermediate_size) if has_feed_forward else None)

    def forward(self, hidden: Tensor, state: Tree, chunk: Chunk) -> tuple[Tensor, Tree, Handed]:
        """The residual stream after this layer, (batch, length, hidden_size), what the layer carries on to the next
        call, and what it hands to the next layer (`Chunk.handed`).
        """
        added, state, handed = self.mix(self._part(self.layout.mixer_norm)(hidden), state, chunk)
        hidden = hidden + added
        feed_forward = self._part(self.layout.feed_forward)
        if feed_forward is not None:
            hidden = hidden + feed_forward(self._part(self.layout.feed_forward_norm)(hidden))
        return hidden, state, handed

    def mix(self, inputs: Tensor, state: Tree, chunk: Chunk) -> tuple[Tensor, Tree, Handed]:
        """The mixer's output behind the short convolution, if there is one: added, carried, handed on."""
        return mix_convolved(self._part(self.layout.mixer), self.short_convolution, inputs, state, chunk)

    def _part(self, name: str) -> Any:
        return self._modules[name]


class MixerBackbone(nn.Module):
    """Embedding, layers and final norm."""

    def __init__(self, config: MixerConfig) -> None:
        super().__init__()
        self.config, design = config, config.design
        self._settings = settings = config.settings
        self._names = names = design.layer_class.layout
        self.add_module(names.embedding, nn.Embedding(settings.vocab_size, settings.hidden_size))
        self.layers = nn.ModuleList(
            design.layer_class(mixer(settings.hidden_size, settings), settings) for mixer in design.mixers(settings)
        )
        self._order = tuple(design.order(settings))
        self.embedding_norm = design.embedding_norm(settings)
        final_norm = design.final_norm(settings) or norm_of(settings, design.layer_class.wide_residual)
        self.add_module(names.final_norm, final_norm)
        learned = settings.position_encoding == LEARNED
        self.learned_positions = LearnedPositions(settings) if learned else None
        # The quicker way knows nothing of the table.
        self._steps = None if learned else design.steps(settings, self)

    def empty_state(self) -> MixerState:
        """The state before the first token."""
        return self.config.design.empty_state(self._settings)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None, past_key_values: MixerState | None, use_cache: bool
    ) -> BackboneOutput:
        """Hidden states (batch, length, hidden_size) of a chunk; arguments as `CausalLanguageModel.forward`."""
        state = past_key_values
        if state is None and use_cache:
            state = self.empty_state()
        if self.training and state is not None:
            refuse_state_with_checkpointing(self.layers)
        packing = pack_rows(attention_mask, input_ids.shape[1])
        if self._steps is not None and packing is None and state is not None:
            stepped = self._steps.take(self, input_ids, state)
            if stepped is not None:
                return BackboneOutput(last_hidden_state=stepped, past_key_values=state)
        if packing is not None:
            input_ids = packing.pack(input_ids)
        hidden, auxiliary = self._run_layers(input_ids, None if packing is None else packing.lengths, state)
        if packing is not None:
            hidden = packing.unpack(hidden)
        return BackboneOutput(last_hidden_state=hidden, past_key_values=state, auxiliary_loss=auxiliary)

    def _run_layers(
        self, input_ids: Tensor, lengths: Tensor | None, state: MixerState | None
    ) -> tuple[Tensor, Tensor | None]:
        """Normalised hidden states of packed tokens and the rows' auxiliary losses; the state, if any, moves on."""
        seen = None if state is None else state.seen
        before = input_ids.new_zeros(input_ids.shape[0]) if seen is None else seen
        attention = self.config._attn_implementation or "sdpa"
        chunk = Chunk(input_ids, before, lengths, first=seen is None, attention=attention)
        hidden, carried = self._modules[self._names.embedding](input_ids), []  # type: ignore[misc]
        if self.learned_positions is not None:
            hidden = hidden + self.learned_positions(chunk)
        if self.embedding_norm is not None:
            hidden = self.embedding_norm(hidden)
        if self.config.design.layer_class.wide_residual:
            hidden = widen(hidden)
        earlier = [None] * len(self._order) if state is None else state.open(len(self._order))
        for depth, index in enumerate(self._order):
            hidden, after, handed = self.layers[index](hidden, earlier[depth], chunk)
            chunk = chunk.after(handed)
            # At once: what is carried may be a part of what the layer has computed, and keep all of it in memory.
            carried.append(None if state is None else owned(after))
        if state is not None:
            state.store(carried, chunk.added)
        return self._modules[self._names.final_norm](hidden), chunk.handed.auxiliary  # type: ignore[misc]


class MixerForCausalLM(CausalLanguageModel):
    """The decoder with a (tied) language-modelling head."""

    config: MixerConfig
    backbone_class = MixerBackbone
    supports_gradient_checkpointing = True
    _no_split_modules = ["MixerLayer"]  # noqa: RUF012 (transformers' own protocol)

    def get_input_embeddings(self) -> nn.Module:
        """The embedding; transformers would look for it in a backbone named `model` alone."""
        return self._backbone.get_submodule(self._embedding)

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Put another in its place."""
        self._backbone.add_module(self._embedding, value)

    @property
    def _embedding(self) -> str:
        return self.config.design.layer_class.layout.embedding

    def _initialize_weights(self, module: nn.Module, *_: Any, **__: Any) -> None:
        # Of code that is not its own, transformers passes over modules that have no parameters but their children's: a
        # mixer made of linear maps would never be asked for first values. Its reason does not hold here, where first
        # values are given through transformers.initialization.
        super()._initialize_weights(module)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, ShortConvolution):
            # As torch initialises a convolution per channel of so many taps: uniform, of variance 1 / (3 x taps).
            bound = module.taps.shape[1] ** -0.5
            init.uniform_(module.taps, -bound, bound)
        elif isinstance(module, Initialised):
            module.initialise()


def mix_convolved(
    mixer: Mixer[Any], convolution: ShortConvolution | None, inputs: Tensor, state: Tree, chunk: Chunk
) -> tuple[Tensor, Tree, Handed]:
    """A mixer's output behind a short convolution, if there is one: added, carried, handed on."""
    if convolution is None:
        return _handed_on(mixer(inputs, state, chunk), chunk)
    before, state = (None, None) if state is None else state
    inputs, after = convolution(inputs, before, chunk)
    added, state, handed = _handed_on(mixer(inputs, state, chunk), chunk)
    return added, (after, state), handed


def _handed_on(mixed: tuple[Any, ...], chunk: Chunk) -> tuple[Tensor, Tree, Handed]:
    """What a mixer returned; its stream as it came where the mixer does not speak of it, its loss with those before."""
    added, state, *more = mixed
    if not more:
        return added, state, chunk.handed
    stream, auxiliary = more if len(more) == 2 else (more[0], None)
    before = chunk.handed.auxiliary
    if auxiliary is None or before is None:
        auxiliary = before if auxiliary is None else auxiliary
    else:
        auxiliary = before + auxiliary
    return added, state, Handed(stream, auxiliary)
