"""`python -m seqbench.cli` is `bench`."""

from seqbench.cli.app import main

main()
