"""Bases of models built on the kit: what transformers needs to know of them, and a language-modelling head."""

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.utils import can_return_tuple

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
    ) -> BaseModelOutputWithPast:
        """Normalised hidden states (batch, length, hidden_size) and the state; arguments as `forward`."""
        raise NotImplementedError(f"{type(self).__name__} must say how its backbone is run")

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        past_key_values: Any = None,
        use_cache: bool = False,
        labels: Tensor | None = None,
        logits_to_keep: int = 0,
        **options: Any,
    ) -> CausalLMOutputWithPast:
        """Logits (batch, length, vocab_size), or of the last `logits_to_keep` positions when that is not zero.

        Args:
            input_ids: (batch, length) int64, at least one token.
            attention_mask: (batch, at least length), zero for padding, which influences nothing.
            past_key_values: the state after earlier chunks; it is continued and updated in place.
            use_cache: return a state that continues this chunk.
            labels: (batch, length) equal to input_ids, -100 where there is no loss; shifted inside.
            logits_to_keep: number of positions at the end of the row, or 0 for all.
            options: arguments that other models of transformers have; none is supported.
        """
        refuse_options(options)
        output = self.run_backbone(input_ids, attention_mask, past_key_values, use_cache)
        return self.predict(output, labels, logits_to_keep)

    def predict(
        self, output: BaseModelOutputWithPast, labels: Tensor | None, logits_to_keep: int
    ) -> CausalLMOutputWithPast:
        """Logits and loss, the mean over the predicted tokens, from the backbone's output."""
        assert output.last_hidden_state is not None
        logits = self.lm_head(output.last_hidden_state[:, -logits_to_keep:])
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size)
        return CausalLMOutputWithPast(loss=loss, logits=logits, past_key_values=output.past_key_values)


class CausalLanguageModel(CausalCall, DecoderPreTrainedModel):
    """A backbone, `model`, under a (tied) head, `lm_head`.

    A subclass names its `backbone_class`: made from the config, with `embed_tokens`, an `empty_state()`, and the call
    (input_ids, attention_mask, past_key_values, use_cache) that returns the output of normalised hidden states, (batch,
    length, hidden_size), and state.
    """

    base_model_prefix = "model"
    backbone_class: ClassVar[type[nn.Module]]
    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}  # noqa: RUF012 (transformers' own protocol)

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.model = self.backbone_class(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def empty_state(self) -> CarriedState:
        """The state before the first token."""
        return self.model.empty_state()

    def run_backbone(
        self, input_ids: Tensor, attention_mask: Tensor | None, past_key_values: Any, use_cache: bool
    ) -> BaseModelOutputWithPast:
        """What `model` returns."""
        return self.model(input_ids, attention_mask, past_key_values, use_cache)


def refuse_options(options: Mapping[str, Any]) -> None:
    """Raise TypeError for an argument that says something; wrappers pass all that they know, most of it as None."""
    for name, value in options.items():
        if value is not None and value is not False:
            raise TypeError(f"the model has no argument {name!r}")


def refuse_state_with_checkpointing(layers: Iterable[nn.Module]) -> None:
    """Raise ValueError when a layer is checkpointed: it runs twice, and would store its tokens twice."""
    if any(getattr(layer, "gradient_checkpointing", False) for layer in layers):
        raise ValueError(
            "gradient checkpointing in training mode cannot go with a cache: call the model without past_key_values and"
            " use_cache, or switch gradient checkpointing off"
        )
