"""What a search tried, found and cost."""

from collections.abc import Sequence

from seqbench.comparing.search import Choice, Trial
from seqbench.report.document import Line, Row, Sheet
from seqbench.report.results import words
from seqbench.training.progress import duration


def search_parts(choices: Sequence[Choice], metric: str) -> list[Sheet | Line]:
    """All trials of all models with the chosen points, and the sum for each model."""
    fields = [field for field, _ in choices[0].point]
    rows = []
    for choice in choices:
        for trial in choice.trials:
            chosen = _is_chosen(choice, trial)
            cells = (choice.model, *(value for _, value in trial.point), *_cells(trial), "chosen" if chosen else "")
            rows.append(Row(cells, "bold" if chosen else ""))
    headings = ("model", *map(words, fields), "share", metric, "tokens", "time", "")
    title = f"search: {metric} on the validation set; share: of a full training"
    return [Sheet(title, headings, rows, left=(0, len(headings) - 1), names=1 + len(fields)), *search_lines(choices)]


def search_lines(choices: Sequence[Choice]) -> list[Line]:
    """What was chosen for each model and what it cost."""
    return [Line(_sum(choice)) for choice in choices]


def _is_chosen(choice: Choice, trial: Trial) -> bool:
    return trial.point == choice.point and trial.share == max(entry.share for entry in choice.trials)


def _cells(trial: Trial) -> tuple[str, ...]:
    figure = trial.failure or ("not finite" if trial.figure is None else f"{trial.figure:.4f}")
    return f"{trial.share:g}", figure, f"{trial.tokens:,}", duration(trial.seconds)


def _sum(choice: Choice) -> str:
    tokens, seconds = sum(trial.tokens for trial in choice.trials), sum(trial.seconds for trial in choice.trials)
    point = ", ".join(f"{words(field)} {value}" for field, value in choice.point)
    cost = f"{len(choice.trials)} trials, {tokens:,} tokens, {duration(seconds)} of training"
    text = f"{choice.model}: {point} chosen of {cost}"
    if choice.extended:
        text += f"; {', '.join(map(words, choice.extended))} tried beyond its range, at whose edge the best lay"
    if choice.at_edge:
        text += f"; {', '.join(map(words, choice.at_edge))} still at the edge of what was tried"
    return text
