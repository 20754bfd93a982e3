"""The README is true: its commands exist and mean what they say."""

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from seqbench.cli.app import bench
from seqbench.testing import examine_model_plugin

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def _commands() -> list[str]:
    lines = [line.strip() for line in README.splitlines() if line.startswith("    bench ")]
    commands = [part.strip() for line in lines for part in re.split(r"\s{3,}", line.partition(" #")[0].strip())]
    # A folder's name is not known here.
    return [command for command in dict.fromkeys(commands) if "<" not in command]


@pytest.mark.parametrize("command", _commands())
def test_every_command_of_the_readme_is_accepted(command: str, tmp_path: Path) -> None:
    arguments = shlex.split(command)[1:]
    if arguments[0] in ("check", "runs", "speed"):
        # Minutes of work, and a store that is not here; that the options exist is what a README can get wrong.
        arguments += ["--help"]
    if arguments[0] in ("run", "compare"):
        arguments += ["--runs", str(tmp_path)]
        arguments += [] if "--dry-run" in arguments else ["--dry-run"]
    outcome = CliRunner().invoke(bench, arguments)
    assert outcome.exit_code == 0, outcome.output
    assert list(tmp_path.iterdir()) == [], "a dry run leaves nothing behind"


# The clauses that a mixer can miss; the kit's others are tried with its own tests.
MIXER_CLAUSES = ["causal", "rows-independent", "chunked", "padding-state", "flops", "state-bytes", "training-step"]


def test_the_model_of_the_readme_is_a_whole_one_that_keeps_the_contract(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [shown] = re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    mixer = shown[shown.index("class RunningMean(Mixer)") : shown.index("class RunningMeanPlugin")]
    assert len(mixer.strip().splitlines()) <= 10
    (tmp_path / "running_mean.py").write_text(shown)
    monkeypatch.syspath_prepend(str(tmp_path))
    report = examine_model_plugin("running_mean:RunningMeanPlugin", clauses=MIXER_CLAUSES)
    assert not report.failures and not report.not_reached, report.text()
    assert {outcome.clause for outcome in report.outcomes} >= set(MIXER_CLAUSES)


def test_the_two_commands_at_the_top_are_make_targets() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"`?make (\w+)", README):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_files_of_a_run_are_described_as_they_are_written() -> None:
    described = re.findall(r"^        (\w+\.?\w*)/?  ", README, re.MULTILINE)
    for name in ("run.json", "environment.json", "metrics.jsonl", "result.json", "items.jsonl", "checkpoints", "model"):
        assert name in described
