"""The contract of a model plugin: one class per architecture."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from seqbench.contracts.classification import Classification
from seqbench.contracts.measurement import Measurement
from seqbench.contracts.settings import describe_settings
from seqbench.contracts.task import Batch

# It takes seconds to import, and what is only listed does not need it.
if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

ModelConfig = TypeVar("ModelConfig")


@dataclass(frozen=True)
class WidthAxis:
    """The config field that budget matching may change, and the step in which it may change."""

    field: str
    step: int


@dataclass(frozen=True)
class Flops:
    """Floating-point operations of one sequence: matrix multiplications, 2 per multiply-accumulate.

    Attributes:
        forward: by component ("attention", "mlp", ...), in FLOPs for the whole sequence.
        backward_factor: backward FLOPs over forward FLOPs; 2 for matrix multiplications, whose two gradients cost as
            much as the product itself each.
    """

    forward: Mapping[str, int]
    backward_factor: float = 2.0

    @property
    def forward_total(self) -> int:
        """Sum over the components."""
        return sum(self.forward.values())

    @property
    def training_total(self) -> int:
        """Forward and backward together."""
        return round(self.forward_total * (1 + self.backward_factor))


@dataclass(frozen=True)
class Ablation:
    """A named switch that takes a part of an architecture away, to see what the part is worth.

    Attributes:
        summary: what it does, in one line.
        changes: config field -> value.
        in_training: whether it makes sense to train the changed model; asked for as "name".
        at_evaluation: whether a model that was trained whole can be tested changed; asked for as "name@eval". The
            changed config must then have the same parameters.
    """

    summary: str
    changes: Mapping[str, Any]
    in_training: bool = True
    at_evaluation: bool = False


class ModelPlugin(ABC, Generic[ModelConfig]):
    """An architecture. Instances hold no state; every method is a function of the config.

    `build` returns a `transformers.PreTrainedModel` that follows the causal-LM call: `model(input_ids,
    attention_mask=None, past_key_values=None, use_cache=False, labels=None, logits_to_keep=0)` returns an object with
    `logits` of shape (batch, length, vocabulary), where logits[:, t] predict token t + 1, and, with use_cache,
    `past_key_values`: the carried state, which continues the sequence when it is passed back. `cache`, its name from
    transformers 5.24 on, means the same. Padding is marked by zeros in `attention_mask` (batch, length) and must not
    influence anything. `labels` (batch, length), -100 for none, add `loss`, their mean cross-entropy, shifted inside;
    `logits_to_keep` leaves so many logits at the end, or those of a tensor of positions. `auxiliary_loss`, where an
    output has it, holds a weighted loss of each row by itself, (batch,): the trainer adds its mean over the rows of the
    batch to the loss of the next token, and tells the two apart. An argument that the model
    does not have is refused. `seqbench.nn.CausalCall` makes this call, and `generate`, of a backbone.

    The model's vocabulary size belongs to the task: `with_vocabulary` returns a config for it.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    # Raise it whenever the same config and seed would give other numbers: it is part of a run's identity.
    version: ClassVar[str]
    # Paper, year and kind of memory, which lists are filtered by.
    classification: ClassVar[Classification] = Classification()
    config_class: ClassVar[type]
    presets: ClassVar[Mapping[str, Any]]
    default_preset: ClassVar[str] = "tiny"
    width_axis: ClassVar[WidthAxis]
    # A finer axis than the width, for matching to within a fraction of a percent; None when there is none.
    fine_axis: ClassVar[WidthAxis | None] = None
    ablations: ClassVar[Mapping[str, Ablation]] = {}
    # Whether `flops` counts products that a mask hides too, as torch's counter does; false: those inside the mask.
    counts_masked_products: bool = False
    # Config classes, besides that of the default preset's model, of which `settings_from` takes checkpoints too.
    other_formats: ClassVar[Sequence[type[PreTrainedConfig]]] = ()
    # Clause of `bench check` -> why this plugin cannot fulfil it.
    exemptions: Mapping[str, str] = {}

    @abstractmethod
    def build(self, config: ModelConfig) -> PreTrainedModel:
        """A freshly initialised model; draws from torch's global generator only."""

    @abstractmethod
    def with_vocabulary(self, config: ModelConfig, vocab_size: int) -> ModelConfig:
        """`config` with the task's vocabulary size."""

    @abstractmethod
    def parameter_group(self, parameter_name: str) -> str:
        """The accounting group of a parameter of the built model: "embedding" for vocabulary matrices, else a name of
        the plugin's choice ("attention", "mlp", "memory", ...).
        """

    @abstractmethod
    def flops(self, config: ModelConfig, sequence_length: int) -> Flops:
        """Matrix-multiplication FLOPs of one sequence of that many tokens, by component."""

    @abstractmethod
    def state_bytes(self, config: ModelConfig, sequence_length: int) -> int:
        """Bytes of carried state (caches included) that one sequence holds after that many tokens, in fp32."""

    @abstractmethod
    def attention_reach(self, config: ModelConfig) -> int | None:
        """The largest distance in tokens that the attention stack can bridge: layers x (window - 1) for windows, None
        for full attention and for models without attention.
        """

    @abstractmethod
    def receptive_field(self, config: ModelConfig) -> int | None:
        """How many tokens, the current one included, can influence a prediction; None when unbounded."""

    def longest_sequence(self, config: ModelConfig) -> int | None:
        """The most tokens that a sequence may have, such as the rows of a table of positions; None, as it stands, for
        any number. Longer ones are refused before anything is trained.
        """
        del config
        return None

    @abstractmethod
    def confounds(self, config: ModelConfig) -> dict[str, str]:
        """What decides rankings besides the sequence mixer: short convolution, position encoding, depth,
        initialisation, kernel path. Printed with every result.
        """

    def matrix_parts(self, config: ModelConfig, parameter_name: str) -> Sequence[int] | None:
        """Rows of each linear map that a parameter of the built model holds, one below the other; () when it is none.

        Matrices get weight decay and, with `optimizer=muon`, Muon, each part by itself. None, as it stands, leaves it
        to the parameter's module and shape (`seqbench.training.matrices`): say () for a table of two or three
        dimensions that is not an nn.Embedding (state matrices, anchors, learned filters), and name the parts of a
        fused projection.
        """
        del config, parameter_name
        return None

    def checkpoint_sha256(self) -> str | None:
        """Hash of the checkpoint whose weights a built model comes with: of its config, its tokenizer and its weights.

        None, as it stands, for random weights. Part of a run's identity.
        """
        return None

    def resolved_config(self, config: ModelConfig) -> Mapping[str, Any]:
        """What another library's defaults make of settings, as plain data; nothing, as it stands, for a model whose
        settings and version say all. Part of a run's identity.
        """
        del config
        return {}

    def tokenizer(self) -> PreTrainedTokenizerBase | None:
        """The tokenizer that the model was made for; None, as it stands, for models that take the ids of the task.

        Tasks that read text then give the model its own tokens, and measure per byte.
        """
        return None

    def with_training_length(self, config: ModelConfig, longest: int) -> ModelConfig:
        """`config` for a task whose training sequences have at most `longest` tokens: a preset's, before the user's own
        changes. As it stands, the same; a model with a parameter for each place back can leave those out that would
        never be trained.
        """
        del longest
        return config

    def with_width(self, config: ModelConfig, width: int) -> ModelConfig:
        """`config` at another width of `width_axis`; what else should grow with it is the plugin's to say."""
        return dataclasses.replace(config, **{self.width_axis.field: width})  # type: ignore[type-var]

    def settings_from(self, native: PreTrainedConfig) -> ModelConfig:
        """The settings of a checkpoint with that config, for `--init`.

        As it stands, every setting takes the value of the native field that bears its name. Raises RequestError for a
        value that the settings refuse.
        """
        known = [name for name in describe_settings(self.config_class) if hasattr(native, name)]
        values = {name: getattr(native, name) for name in known}
        # A saved config has lists for tuples.
        return self.config_class(
            **{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
        )

    def diagnose(self, model: PreTrainedModel, batch: Batch) -> Sequence[Measurement]:
        """What only this architecture can tell of its inside (routing, gates, ...) on a batch of training data.

        Called at every evaluation and after the last step, in evaluation mode, with autograd on and under the run's
        precision, on rows of one training batch that stays the same for the run. Logged and plotted: over steps, or
        over a coordinate "distance" where there is one. None as it stands. It draws no random numbers, and leaves
        weights and gradients as they are.
        """
        del model, batch
        return ()
