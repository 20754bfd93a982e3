"""What seeds and items allow to say: summaries, paired comparisons, correction for many of them, smallest effects.

Claims about architectures rest on seeds: each seed is a whole training, paired between models because both saw the same
data. Comparisons by item speak of these trained models only. scipy is imported where it is used: it takes a second,
which a single run has no use for.
"""
