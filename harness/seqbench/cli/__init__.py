"""The command line: `bench`."""


def main() -> None:
    """Entry point of the console script."""
    from seqbench.surroundings.stopping import install

    # Before the rest of the command line is imported, which a signal may interrupt.
    install()
    from seqbench.cli.app import main as carry_out

    carry_out()
