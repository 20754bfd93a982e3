"""Text as a benchmark: corpora, the windows that train on them, tokens, and scores in bits per byte."""
