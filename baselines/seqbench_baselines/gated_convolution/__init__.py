"""A decoder whose tokens meet in gated long convolutions instead of attention."""
