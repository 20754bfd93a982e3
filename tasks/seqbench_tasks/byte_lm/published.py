"""Scores that papers report for enwik8."""

from pathlib import PurePath

from seqbench.contracts import PublishedScore
from seqbench_tasks.byte_lm.config import ByteLmConfig
from seqbench_tasks.text.config import HUB_PREFIX

_TRANSFORMER_XL = "arXiv 1901.02860, table 2"

# Bits per character of papers on enwik8 are bits per byte. Test on the last 5 MB. The two rows of Transformer-XL were
# checked against the listing of its results at Papers with Code. Of the rows before them only the 1.06, the best figure
# until then, was found elsewhere (in the README of its code); 1.11 and the sizes were not checked.
_ENWIK8 = tuple(
    PublishedScore("bits_per_byte", value, model, source)
    for value, model, source in (
        (1.11, "Transformer, 12 layers, 44M", "arXiv 1808.04444, in arXiv 1901.02860, table 2"),
        (1.06, "Transformer, 64 layers, 235M", "arXiv 1808.04444, in arXiv 1901.02860, table 2"),
        (1.06, "Transformer-XL, 12 layers, 41M", _TRANSFORMER_XL),
        (0.99, "Transformer-XL, 24 layers, 277M", _TRANSFORMER_XL),
    )
)


def published_scores(config: ByteLmConfig) -> tuple[PublishedScore, ...]:
    """Scores on the text and the division that the config names."""
    is_enwik8 = config.data == f"{HUB_PREFIX}enwik8" or PurePath(config.data).name.split(".")[0] == "enwik8"
    usual = config.held_out != "documents" and (config.validation_fraction, config.test_fraction) == (0.05, 0.05)
    return _ENWIK8 if is_enwik8 and usual else ()
