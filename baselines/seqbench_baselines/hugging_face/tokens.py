"""The tokenizer of a checkpoint."""

from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from seqbench.errors import RequestError, first_line

# One of them is in every folder that holds a tokenizer.
_FILES = ("tokenizer.json", "tokenizer_config.json")


def load_tokenizer(folder: Path, label: str) -> PreTrainedTokenizerBase | None:
    """The tokenizer beside a checkpoint's weights; None where there is none. `label` is the model's name in messages.

    Raises RequestError for files that cannot be used. Code that comes with a tokenizer is never run.
    """
    if not any((folder / name).is_file() for name in _FILES):
        return None
    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    # transformers raises errors of many kinds for files that are damaged, foreign or beyond its version.
    except Exception as error:
        raise RequestError(f"{label}: its tokenizer cannot be used: {first_line(error)}") from error
