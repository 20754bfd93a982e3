"""Any causal language model of transformers as a baseline: `--model hf:<model type, folder or hub id>`."""

from seqbench_baselines.hugging_face.plugin import HuggingFacePlugin
from seqbench_baselines.hugging_face.settings import HuggingFaceSettings

__all__ = ["HuggingFacePlugin", "HuggingFaceSettings"]
