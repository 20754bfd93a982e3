"""The published configuration of PMNet, as Hugging Face stores it."""

from typing import Any

from transformers import PreTrainedConfig

from seqbench.errors import RequestError


class PMNetConfig(PreTrainedConfig):
    """Configuration of a PMNet model; every published field is declared, so that config.json survives load and save.

    Beyond the usual decoder fields:
        sliding_window: tokens seen by attention, the query's own included, in every layer.
        memory_write_period: layers i with i mod period = 0 write to the memory.
        num_memory: slots per group, and branching factor of the tree.
        memory_size: phase angles per slot.
        num_memory_read_heads: read heads.
        memory_cumsum: false is the ablation "no-recurrence": nothing is summed over earlier tokens.
        use_memory: false is the ablation "no-memory": neither write nor read modules exist (not a published field).
        gradient_scale: "sqrt-count" (published) or "none" (not a published field).
    """

    model_type = "PMNet"
    keys_to_ignore_at_inference = ("past_key_values",)

    vocab_size: int = 384
    hidden_size: int = 512
    intermediate_size: int = 1024
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    num_key_value_heads: int = 12
    head_dim: int = 64
    hidden_act: str = "silu"
    max_position_embeddings: int = 40960
    initializer_range: float = 0.02
    rms_norm_eps: float = 1e-6
    use_cache: bool = True
    tie_word_embeddings: bool = True
    rope_theta: float = 1e6
    rope_scaling: dict[str, Any] | None = None
    attention_bias: bool = False
    attention_dropout: float = 0.0
    use_sliding_window: bool = True
    sliding_window: int = 128
    max_window_layers: int = 0
    layer_types: list[str] | None = None
    memory_write_period: int = 3
    num_memory: int = 4
    memory_size: int = 512
    num_memory_read_heads: int = 4
    memory_cumsum: bool = True
    use_memory: bool = True
    gradient_scale: str = "sqrt-count"
    pad_token_id: int | None = None
    bos_token_id: int | None = 254
    eos_token_id: int | None = 255

    def __post_init__(self, **kwargs: Any) -> None:
        if self.layer_types is None:
            self.layer_types = ["sliding_attention"] * self.num_hidden_layers
        super().__post_init__(**kwargs)
        self._refuse_unsupported()

    def _refuse_unsupported(self) -> None:
        """Raise RequestError for a value that this implementation would otherwise silently ignore."""
        required: dict[str, Any] = {
            "hidden_act": "silu",
            "attention_bias": False,
            "rope_scaling": None,
            "use_sliding_window": True,
            "max_window_layers": 0,
        }
        for name, value in required.items():
            if getattr(self, name) != value:
                raise RequestError(f"PMNet supports {name} = {value!r} only, not {getattr(self, name)!r}")
        if set(self.layer_types or ()) - {"sliding_attention"}:
            raise RequestError("PMNet supports layer_types 'sliding_attention' only")
        if self.gradient_scale not in ("sqrt-count", "none"):
            raise RequestError(f"gradient_scale must be sqrt-count or none, not {self.gradient_scale!r}")
        if self.num_attention_heads % self.num_key_value_heads:
            raise RequestError(
                f"num_attention_heads ({self.num_attention_heads}) must be a multiple of num_key_value_heads"
                f" ({self.num_key_value_heads})"
            )

    @property
    def hierarchy_depth(self) -> int:
        """H, the number of levels of the memory tree: ceil(layers / write period)."""
        return -(-self.num_hidden_layers // self.memory_write_period)

    def groups_at(self, level: int) -> int:
        """Number of groups at a level of the tree: num_memory^level."""
        return self.num_memory**level
