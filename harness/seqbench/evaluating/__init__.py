"""A trained model as a task asks it, and what is said of the answers."""
