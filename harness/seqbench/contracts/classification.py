"""Where an architecture comes from, and what kind of memory it has: what lists of models are filtered by."""

import re
from dataclasses import dataclass

# What is carried from token to token, and how new tokens change it, after the view of sequence layers as regression at
# test time (Wang, Shi and Fox, arXiv 2501.12352).
MEMORY_KINDS = ("window", "vector", "matrix", "network", "slots", "growing")
WRITING_RULES = ("decay", "delta", "gradient", "solve", "route", "cache")

_ARXIV_ID = re.compile(r"(\d\d)(0[1-9]|1[0-2])\.\d{4,5}")


@dataclass(frozen=True)
class Classification:
    """What an author says of an architecture's kind; as it stands, nothing.

    Attributes:
        paper: arXiv id, such as "2412.06464"; None for one without.
        year: in which it was published first.
        memory: kinds of memory, of `MEMORY_KINDS`: the newest tokens (window), a number per channel (vector), products
            of keys and values (matrix), the weights of a network, a fixed number of slots, or all tokens (growing).
        written: how the memory is written, of `WRITING_RULES`: what is old fades (decay), what a key recalls is
            corrected (delta), a step down a loss (gradient), its minimum (solve), a choice of places (route), or by
            keeping tokens as they are (cache).

    Raises:
        ValueError: for what is not among them, or a year that is not that of the arXiv id.
    """

    paper: str | None = None
    year: int | None = None
    memory: tuple[str, ...] = ()
    written: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, known in (("memory", MEMORY_KINDS), ("written", WRITING_RULES)):
            said = getattr(self, name)
            if not isinstance(said, tuple) or not set(said) <= set(known) or len(set(said)) < len(said):
                raise ValueError(f"{name} is {said!r}, expected a tuple of {', '.join(known)}")
        if self.paper is None:
            return
        dated = _ARXIV_ID.fullmatch(self.paper)
        if dated is None:
            raise ValueError(f"paper is {self.paper!r}, expected an arXiv id such as 2412.06464")
        if self.year != 2000 + int(dated[1]):
            raise ValueError(f"year is {self.year}, but arXiv {self.paper} is of {2000 + int(dated[1])}")

    def words(self) -> str:
        """In a line: "Memory matrix; written by decay, delta; arXiv 2412.06464; of 2024". Empty if nothing is said."""
        parts = {
            "Memory": ", ".join(self.memory),
            "written by": ", ".join(self.written),
            "arXiv": self.paper,
            "of": self.year,
        }
        return "; ".join(f"{what} {said}" for what, said in parts.items() if said)
