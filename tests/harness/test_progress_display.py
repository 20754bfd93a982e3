"""Progress is a bar on a terminal, and elsewhere lines that are rare enough to read."""

import pytest

from seqbench import progress_display
from seqbench.training.progress import TrainingProgress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time in seconds, to be set."""
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    return now


def test_without_a_terminal_there_is_a_line_every_ten_seconds_and_at_the_end(
    clock: list[float], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    with TrainingProgress("model on task", 0.0) as progress:
        for seconds in range(1, 26):
            clock[0] = float(seconds)
            progress.advance(seconds, seconds / 25, 1.5, 1000.0)
        clock[0] = 40.0
        progress.evaluated(1, 4, "validation")
        progress.note("kept [as it is]")
    assert capsys.readouterr().err.splitlines() == [
        "model on task: step 10, 40%  loss 1.500  1,000 tokens/s  left 0:15",
        "model on task: step 20, 80%  loss 1.500  1,000 tokens/s  left 0:05",
        "model on task: step 25, 100%  loss 1.500  1,000 tokens/s  left 0:00",
        "model on task: validation, 25%",
        "model on task: kept [as it is]",
    ]


def test_on_a_terminal_there_is_a_bar_and_no_line_of_steps(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    console = progress_display.Console
    monkeypatch.setattr(
        progress_display, "Console", lambda **options: console(**options, force_terminal=True, width=99)
    )
    with TrainingProgress("model on task", 0.5) as progress:
        progress.advance(7, 1.0, 1.5, 1000.0)
        progress.note("a word")
    shown = capsys.readouterr().err
    assert "100%  step 7 loss 1.500  1,000 tokens/s  left" in shown
    assert "model on task: a word" in shown and "model on task: step" not in shown
