"""What tables say of models that read what they must not, or of which that is not known."""

from collections.abc import Sequence

from seqbench.report.document import Line
from seqbench.report.results import Result, by_model, complete, soundness_state

_UNCHECKED = (
    "unchecked: stored before models were examined; whether it reads the future is not known. Remove the run"
    " (`bench runs --remove`) and type its command again"
)


def soundness_notes(results: Sequence[Result]) -> list[Line]:
    """For each model what failed, what its plugin declares not to fulfil, and that it was never examined."""
    lines = []
    for label, group in by_model(complete(results)).items():
        texts: dict[str, str] = {}
        for result in group:
            if soundness_state(result) == "unchecked":
                texts[_UNCHECKED] = "bold red"
            for when, clauses in _found(result):
                for clause, finding in clauses.items():
                    if finding["state"] == "failed":
                        texts[f"UNSOUND, its figures say nothing: {clause}{when}: {finding['message']}"] = "bold red"
                    if finding["state"] == "declared":
                        texts[f"does not fulfil {clause}, as its plugin declares: {finding['message']}"] = "yellow"
        lines += [Line(f"{label}: {text}", style) for text, style in texts.items()]
    return lines


def exemptions_of(result: Result) -> str:
    """Clauses that the plugin declares not to fulfil, separated by blanks."""
    clauses = result.get("soundness", {}).get("clauses", {})
    return " ".join(clause for clause, finding in clauses.items() if finding["state"] == "declared")


def _found(result: Result) -> list[tuple[str, dict[str, dict[str, str]]]]:
    soundness = result.get("soundness", {})
    return [("", soundness.get("clauses", {})), (" (trained)", soundness.get("trained") or {})]
