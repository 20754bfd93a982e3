"""One run: from its plan to its result, and whether a stored result still stands."""
