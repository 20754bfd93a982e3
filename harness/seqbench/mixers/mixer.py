"""What an author writes: a module that mixes tokens, and the settings that are its own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

from torch import Tensor, nn

from seqbench.mixers.chunk import Chunk
from seqbench.mixers.state import Tree


@dataclass(frozen=True)
class NoSettings:
    """Of a mixer that has no settings of its own."""


Settings = TypeVar("Settings")


class Mixer(nn.Module, Generic[Settings]):
    """One layer's mixer of tokens.

    A subclass makes its modules in `__init__`, which begins with that of this class, and gives `forward`. Everything
    around it is the kit's: embedding, norms, residual stream, feed-forward layers, head, loss, generation, saving,
    padding, beams, counting.

    Attributes:
        hidden_size: size of what comes in and goes out.
        settings: the settings of the whole model, in which those of `settings_class` stand beside the decoder's.
    """

    # A frozen dataclass of `seqbench.contracts.setting` fields; each can be changed with --set model.FIELD=VALUE.
    settings_class: ClassVar[type] = NoSettings
    # Settings of the decoder that begin otherwise than they do for every mixer.
    defaults: ClassVar[Mapping[str, Any]] = {}
    # Position encodings that the mixer can apply by itself, besides "none".
    positions: ClassVar[Sequence[str]] = ()
    # Whether the mixer applies settings.short_convolution inside; otherwise the kit does, before it.
    short_convolution_inside: ClassVar[bool] = False
    # Prefix of a parameter's name inside the mixer -> its group in counts; "mixer" for what none fits.
    parameter_groups: ClassVar[Mapping[str, str]] = {}

    def __init__(self, hidden_size: int, settings: Settings) -> None:
        super().__init__()
        self.hidden_size, self.settings = hidden_size, settings

    def forward(
        self, hidden: Tensor, state: Tree, chunk: Chunk
    ) -> tuple[Tensor, Tree] | tuple[Tensor, Tree, Tree] | tuple[Tensor, Tree, Tree, Tensor | None]:
        """What the layer adds to the residual stream, and what is carried on.

        Args:
            hidden: (batch, length, hidden_size), normalised; real tokens at the front of each row.
            state: what the last call returned; None before the first token.
            chunk: which places are real; see `Chunk.fill` and `Chunk.last`.

        Returns:
            (batch, length, hidden_size), of which what stands at padding is not read, and a tree of tensors with the
            batch first: the state after each row's last real token. A third tree of tensors, if there is one, is what
            the next layer finds as `chunk.stream`; without it that stays as it was. A fourth value, (batch,), is an
            auxiliary loss of each row by itself, weighted: its mean over the rows of a batch is trained on beside the
            loss of the next token, and told apart from it.
        """
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def initialise(self) -> None:
        """Give parameters that are no weights of linear maps, convolutions or embeddings their first values.

        Those have theirs from the kit, or, where the mixer writes over them here, from the mixer. Only through
        transformers.initialization, whose functions leave alone what a checkpoint has filled. Nothing, as it stands.
        """

    @classmethod
    def check(cls, settings: Any) -> None:
        """Raise RequestError for settings that do not go together. Nothing, as it stands."""
        del settings

    @classmethod
    def with_training_length(cls, settings: Any, longest: int) -> Any:
        """As `ModelPlugin.with_training_length`."""
        del longest
        return settings

    @classmethod
    def reach(cls, settings: Any) -> int | None:
        """How many tokens back one layer looks; None, as it stands, when that is unbounded."""
        del settings
        return None

    @classmethod
    def attention_reach(cls, settings: Any) -> int | None:
        """How many tokens back the attention of one layer looks; None, as it stands, for all or no attention."""
        del settings
        return None

    @classmethod
    def flops(cls, settings: Any, length: int) -> int | None:
        """Forward FLOPs of one layer for one sequence: 2 per multiply-accumulate of products, inside masks.

        None, as it stands: the products are counted as they run, which serves where their number is a polynomial of at
        most second degree in the length.
        """
        del settings, length
        return None

    @classmethod
    def state_bytes(cls, settings: Any, length: int) -> int | None:
        """Bytes that one layer carries of one sequence after that many tokens, in fp32.

        None, as it stands: they are counted as they are, which serves where they grow in proportion or not at all.
        """
        del settings, length
        return None

    @classmethod
    def matrix_parts(cls, settings: Any, parameter_name: str) -> Sequence[int] | None:
        """As `ModelPlugin.matrix_parts`, of a parameter by its name inside the mixer."""
        del settings, parameter_name
        return None

    @classmethod
    def confounds(cls, settings: Any) -> dict[str, str]:
        """What decides rankings besides the mixer and what the kit tells. Nothing, as it stands."""
        del settings
        return {}
