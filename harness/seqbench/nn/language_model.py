"""Bases of models built on the kit: what transformers needs to know of them, and a language-modelling head."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from seqbench.nn.calls import BackboneOutput, CausalOutput, kept_positions, state_of, transformers_call
from seqbench.nn.generation import CarriedStateGeneration
from seqbench.nn.loading import StrictLoading
from seqbench.nn.state import CarriedState

ATTENTION_IMPLEMENTATIONS = ("sdpa", "eager", "flash_attention_2", "flex_attention")


class DecoderPreTrainedModel(StrictLoading, PreTrainedModel):
    """A model with `seqbench.nn.Attention`, whose implementation the user of transformers may choose.

    `attn_implementation` in `from_pretrained`, and `set_attn_implementation`, take "sdpa" (default, which goes by the
    device), "eager", "flash_attention_2" or "flex_attention"; the model hands config._attn_implementation to
    `plan_chunk`.
    """

    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__(config)
        if config._attn_implementation not in ATTENTION_IMPLEMENTATIONS:
            raise ValueError(
                f"attn_implementation {config._attn_implementation!r} is not supported by {type(self).__name__}; choose"
                f" {', '.join(ATTENTION_IMPLEMENTATIONS)}"
            )


class CausalCall(CarriedStateGeneration):
    """The causal-LM call of a model with a head, `lm_head`, and the loss of transformers.

    Name it before the model class among the bases, and give `run_backbone` and `empty_state`.
    """

    # What the model class has. transformers would take an annotation of `config` for the config class of subclasses.
    if TYPE_CHECKING:
        config: Any
    lm_head: nn.Linear
    loss_function: Callable[..., Tensor]

    # For the Trainer of transformers: the loss is the mean over the labels of the call, not of several calls.
    accepts_loss_kwargs = False

    def run_backbone(
        self, input_ids: Tensor, attention_mask: Tensor | None, past_key_values: Any, use_cache: bool
    ) -> BackboneOutput:
        """Normalised hidden states (batch, length, hidden_size) and the state; arguments as `forward`."""
        raise NotImplementedError(f"{type(self).__name__} must say how its backbone is run")

    @transformers_call
    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        past_key_values: Any = None,
        use_cache: bool = False,
        labels: Tensor | None = None,
        logits_to_keep: int | Tensor = 0,
    ) -> CausalOutput:
        """Logits (batch, length, vocab_size), or of the last `logits_to_keep` positions when that is not zero.

        Args:
            input_ids: (batch, length) int64, at least one token.
            attention_mask: (batch, at least length), zero for padding, which influences nothing.
            past_key_values: the state after earlier chunks, which may be named `cache` too; it is continued and updated
                in place.
            use_cache: return a state that continues this chunk.
            labels: (batch, length) equal to input_ids, -100 where there is no loss; shifted inside. The loss is the
                mean over the labelled tokens, whatever positions are kept.
            logits_to_keep: number of positions at the end of the row, 0 for all, or the positions, (kept,) int64.
        """
        output = self.run_backbone(input_ids, attention_mask, past_key_values, use_cache)
        return self.predict(output, labels, logits_to_keep)

    def predict(self, output: BackboneOutput, labels: Tensor | None, logits_to_keep: int | Tensor) -> CausalOutput:
        """Logits of the positions to keep and the mean loss over the labelled tokens of all positions."""
        hidden = output.last_hidden_state
        assert hidden is not None
        loss = None
        if labels is None:
            logits = self.lm_head(kept_positions(hidden, logits_to_keep))
        else:
            logits = self.lm_head(hidden)
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size)
            logits = kept_positions(logits, logits_to_keep)
        auxiliary = getattr(output, "auxiliary_loss", None)
        return CausalOutput(loss=loss, logits=logits, past_key_values=state_of(output), auxiliary_loss=auxiliary)


class CausalLanguageModel(CausalCall, DecoderPreTrainedModel):
    """A backbone, called by `base_model_prefix`, under a (tied) head, `lm_head`.

    A subclass names its `backbone_class`: made from the config, with `embed_tokens`, an `empty_state()`, and the call
    (input_ids, attention_mask, past_key_values, use_cache) that returns the output of normalised hidden states, (batch,
    length, hidden_size), and state.
    """

    base_model_prefix = "model"
    backbone_class: ClassVar[type[nn.Module]]
    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}  # noqa: RUF012 (transformers' own protocol)

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.add_module(self.base_model_prefix, self.backbone_class(config))
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def empty_state(self) -> CarriedState:
        """The state before the first token."""
        return self._backbone.empty_state()

    def run_backbone(
        self, input_ids: Tensor, attention_mask: Tensor | None, past_key_values: Any, use_cache: bool
    ) -> BackboneOutput:
        """What the backbone returns."""
        return self._backbone(input_ids, attention_mask, past_key_values, use_cache)

    @property
    def _backbone(self) -> Any:
        return self._modules[self.base_model_prefix]


def refuse_state_with_checkpointing(layers: Iterable[nn.Module]) -> None:
    """Raise ValueError when a layer is checkpointed: it runs twice, and would store its tokens twice."""
    if any(getattr(layer, "gradient_checkpointing", False) for layer in layers):
        raise ValueError(
            "gradient checkpointing in training mode cannot go with a cache: call the model without past_key_values and"
            " use_cache, or switch gradient checkpointing off"
        )
