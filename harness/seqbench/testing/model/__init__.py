"""The contract of a model plugin, clause by clause."""
