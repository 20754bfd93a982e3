"""What the parts of a decoder are called in its checkpoints."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Layout:
    """The names of a decoder's parts, by what they are: the kit's own, or those of a published format.

    A mixer's own parameters keep the names that it gives them; the head is always `lm_head`.
    """

    backbone: str = "model"
    embedding: str = "embed_tokens"
    final_norm: str = "norm"
    mixer: str = "mixer"
    mixer_norm: str = "mixer_norm"
    feed_forward: str = "mlp"
    feed_forward_norm: str = "mlp_norm"

    def inside_mixer(self, parameter_name: str) -> str | None:
        """A parameter's name inside its mixer; None for one outside."""
        _, found, inner = parameter_name.partition(f".{self.mixer}.")
        return inner if found else None
