"""PMNet, the Phasor Memory Network (Goo, Yun, Jung, arXiv 2605.13370).

Importing this package makes the Auto classes of transformers know PMNet: config, models and tokenizer.
"""

from pmnet_plugin.configuration import PMNetConfig
from pmnet_plugin.modeling import PMNetForCausalLM, PMNetModel
from pmnet_plugin.tokenizer import PMNetTokenizer

__all__ = ["PMNetConfig", "PMNetForCausalLM", "PMNetModel", "PMNetTokenizer"]
