"""Small PMNets whose memory matters to every token."""

from typing import Any

import torch

from pmnet_plugin.configuration import PMNetConfig
from pmnet_plugin.modeling import PMNetForCausalLM

VOCABULARY = 37
SMALL: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 24,
    "intermediate_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "sliding_window": 5,
    "memory_write_period": 2,
    "num_memory": 3,
    "memory_size": 6,
    "num_memory_read_heads": 2,
    "rope_theta": 1e4,
}
DEEP = {"memory_write_period": 1, "num_hidden_layers": 3, "num_memory": 2}


@torch.no_grad()
def lively_pmnet(seed: int = 0, gain: float = 1.0, **changes: Any) -> PMNetForCausalLM:
    """In evaluation mode, with weights far larger than initial ones: routing and phases differ from token to token.

    `gain` is the factor by which a linear map enlarges what goes in. At 1, ten layers and more enlarge fp32's rounding
    over hundreds of tokens to 1e-3 on logits.
    """
    torch.manual_seed(seed)
    model = PMNetForCausalLM(PMNetConfig(**{**SMALL, **changes}))
    for name, parameter in model.named_parameters():
        if "norm" in name:
            parameter.add_(0.2 * torch.randn_like(parameter))
        elif parameter.dim() == 1:
            parameter.normal_(std=0.3)
        elif "memory_embeddings" in name or "embed_tokens" in name:
            parameter.normal_(std=0.7)
        else:
            parameter.normal_(std=gain / parameter.shape[1] ** 0.5)
    return model.eval()
