"""The settings of a PMNet and the values that are allowed for them: of the plugin and of config.json alike."""

from dataclasses import dataclass

from seqbench.contracts import setting
from seqbench.errors import RequestError
from seqbench.nn import DecoderSettings

# A tree of this many groups holds more state than any published model by a factor of a thousand.
_MOST_GROUPS = 4**9


@dataclass(frozen=True)
class PMNetSettings(DecoderSettings):
    """A sliding-window decoder with a routed tree of phase-valued memory."""

    sliding_window: int = setting(4, "tokens that attention sees, the query's own included, in every layer", minimum=2)
    memory_write_period: int = setting(1, "layers i with i mod period = 0 write to the memory", minimum=1)
    num_memory: int = setting(4, "slots per group, and branching factor of the tree", minimum=2)
    memory_size: int = setting(16, "phase angles per slot", minimum=1)
    num_memory_read_heads: int = setting(2, "read heads", minimum=1)
    use_memory: bool = setting(True, "false: no write and no read (ablation no-memory)")
    memory_cumsum: bool = setting(True, "false: nothing is summed over earlier tokens (ablation no-recurrence)")
    memory_tree: str = setting(
        "routed",
        "routed sends each token down a tree of groups, as published; flat has one group per level",
        choices=("routed", "flat"),
    )
    memory_dynamics: str = setting(
        "unitary",
        "unitary adds phases, as published; relaxed adds complex numbers, whose magnitude is free and weighs the read",
        choices=("unitary", "relaxed"),
    )
    zeroed_anchors: str = setting(
        "none",
        "levels whose learned anchors are replaced by zero: none, the root's, the leaves' (the last level), or all",
        choices=("none", "root", "leaf", "all"),
    )
    gradient_scale: str = setting(
        "sqrt-count",
        "sqrt-count divides the gradient of an increment by the root of its group's token count, as published",
        choices=("sqrt-count", "none"),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        levels = self.hierarchy_depth
        # 64 levels pass the limit whatever the branching, and a mistyped number of layers makes no endless number.
        if self.use_memory and self.branching ** min(levels - 1, 64) > _MOST_GROUPS:
            raise RequestError(
                f"num_hidden_layers {self.num_hidden_layers} with memory_write_period {self.memory_write_period} makes"
                f" {levels} levels, and num_memory {self.num_memory} to the power of {levels - 1} leaf groups; at most"
                f" {_MOST_GROUPS:,} are allowed: raise memory_write_period or lower num_memory"
            )

    @property
    def hierarchy_depth(self) -> int:
        """H, the number of levels of the memory tree: ceil(layers / write period)."""
        return -(-self.num_hidden_layers // self.memory_write_period)

    @property
    def branching(self) -> int:
        """Groups at a level for each group of the level before it: num_memory, or 1 in a flat memory."""
        return self.num_memory if self.memory_tree == "routed" else 1

    def groups_at(self, level: int) -> int:
        """Number of groups at a level of the tree."""
        return self.branching**level
