"""The contract of a task plugin, clause by clause."""
