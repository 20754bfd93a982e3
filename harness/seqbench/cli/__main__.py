"""`python -m seqbench.cli` is `bench`."""

from seqbench.cli import main

main()
