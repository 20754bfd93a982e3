"""Mamba: selective state spaces (Gu and Dao, arXiv 2312.00752)."""
