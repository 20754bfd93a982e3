"""Phase-Associative Memory in complex numbers, and its counterpart in real ones."""
