"""Scores that papers report on the test books of PG-19, as far as they are given per byte."""

from seqbench.contracts import PublishedScore

# The SpaceByte rows were not checked against the paper: the table was not at hand when this was written.
_SPACEBYTE = "arXiv 2404.14408, PG-19, trained on PG-19, context of 8,192 bytes"
_PMNET = "arXiv 2605.13370, zero-shot, first 128 KiB of 30 books"

PUBLISHED = (
    *(
        PublishedScore("bits_per_byte", value, model, _SPACEBYTE, {"context": 8192})
        for model, value in (
            ("Transformer, 320M", 1.057),
            ("PerceiverAR", 1.104),
            ("MegaByte", 1.000),
            ("MambaByte, 353M", 0.930),
            ("SpaceByte", 0.918),
        )
    ),
    PublishedScore("bits_per_byte", 1.5051, "PMNet", _PMNET, {"context": 131_072}),
    PublishedScore("bits_per_byte", 1.5056, "PMNet without memory anchors", _PMNET, {"context": 131_072}),
)
