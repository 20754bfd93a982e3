"""Mamba-2: state spaces with one decay per head (Dao and Gu, arXiv 2405.21060)."""
