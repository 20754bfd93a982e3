"""Verdicts for people: the figure of every run, a table of pairs, and what both rest on."""

from collections.abc import Sequence

from seqbench.report.document import Line, Row, Sheet
from seqbench.report.results import Result, by_model, label_of, shown_names, words
from seqbench.report.verdicts import Judgement, Pair
from seqbench.statistics.summary import summarise
from seqbench.statistics.verdict import SEEDS_FOR_A_CLAIM

# Among four equal models that each learn in half of their runs, a false claim is made in 15 % of 600 simulated
# comparisons of 3 seeds, and in 3.3, 1.0, 4.7 and 4.3 % of those of 4, 5, 6 and 10, as tests/harness/test_statistics.py
# simulates them.
_SEEDS_FOR_ALL_OR_NOTHING = 4


def verdict_parts(results: Sequence[Result], judgement: Judgement | None) -> list[Sheet | Line]:
    """The end of a comparison."""
    if judgement is None:
        metric = words(results[0]["task"]["primary_metric"])
        return [Line(f"no verdicts: {metric} over the whole test set is measured in no run")]
    parts: list[Sheet | Line] = [_figures_sheet(results, judgement)]
    if judgement.pairs:
        parts.append(_pairs_sheet(results, judgement))
    parts += [Line(remark, "yellow") for remark in judgement.remarks]
    if judgement.pairs:
        parts += [Line(text, "dim") for text in _assumptions(judgement)]
    return parts


def _figures_sheet(results: Sequence[Result], judgement: Judgement) -> Sheet:
    """The figure of every model and seed, with mean and interval per model."""
    groups = by_model(results)
    rows = []
    for seed in sorted({result["seed"] for result in results}):
        rows.append(Row((f"seed {seed}", *(_figure(group, seed, judgement) for group in groups.values()))))
    rows[-1] = Row(rows[-1].cells, ends_section=True)
    summaries = [summarise(list(values.values())) if values else None for values in judgement.values.values()]
    rows.append(Row(("mean", *("-" if each is None else f"{each.mean:.4f}" for each in summaries)), style="bold"))
    intervals = [
        "-"
        if each is None or each.interval is None
        else f"{each.mean - each.interval:.4f} to {each.mean + each.interval:.4f}"
        for each in summaries
    ]
    rows.append(Row(("95 % interval", *intervals)))
    return Sheet(f"{_described(results, judgement)}, by seed", ("", *shown_names(results).values()), rows)


def _figure(group: Sequence[Result], seed: int, judgement: Judgement) -> str:
    result = next((result for result in group if result["seed"] == seed), None)
    if result is None:
        return "-"
    if result["status"] != "complete":
        return f"{result['status']}: {result['failure']['reason']}"
    value = judgement.values[label_of(result)].get(seed)
    return "not finite" if value is None else f"{value:.4f}"


def _described(results: Sequence[Result], judgement: Judgement) -> str:
    figure = judgement.figure
    direction = "higher" if figure.higher_is_better else "lower"
    task = results[0]["task"]["name"]
    return f"{task}: {words(figure.metric)} over the whole test set ({figure.unit}, {direction} is better)"


def _pairs_sheet(results: Sequence[Result], judgement: Judgement) -> Sheet:
    headings = (
        *("first", "second", "verdict on first", "difference [95 %]", "p", "effect size", "smallest detectable"),
        *("items: difference [95 %]", "items: p"),
    )
    names = shown_names(results)
    rows = [
        Row(
            (names[pair.first], names[pair.second], pair.word, *_by_seed(pair), *_by_item(pair)),
            style="bold" if pair.word in ("ahead", "behind") else "",
        )
        for pair in judgement.pairs
    ]
    return Sheet("verdicts: first minus second", headings, rows, names=2, prose=(0, 1, 2))


def _by_seed(pair: Pair) -> tuple[str, str, str, str]:
    verdict = pair.verdict
    if verdict is None:
        return "-", "-", "-", "-"
    comparison = verdict.comparison
    effect = comparison.effect_size if verdict.adjusted_p_value is not None else None
    return (
        difference(comparison.difference, comparison.interval),
        _p_value(verdict.adjusted_p_value),
        "-" if effect is None else f"{effect:+.1f}",
        "-" if verdict.detectable is None else f"{verdict.detectable:.4f}",
    )


def _by_item(pair: Pair) -> tuple[str, str]:
    if pair.items is None:
        return "-", "-"
    return difference(pair.items.difference, pair.items.interval), _p_value(pair.items_p_value)


def difference(value: float, interval: tuple[float, float] | None) -> str:
    """A signed difference, with its interval where it has one."""
    shown = f"{value:+z.4f}"
    return shown if interval is None else f"{shown} [{interval[0]:+z.4f}, {interval[1]:+z.4f}]"


def _p_value(p_value: float | None) -> str:
    if p_value is None:
        return "-"
    return "< 0.001" if p_value < 0.001 else f"{p_value:.3f}"


def _assumptions(judgement: Judgement) -> list[str]:
    """What the words rest on, and the known limit."""
    most = max(len(pair.seeds) for pair in judgement.pairs)
    claims = sum(pair.verdict is not None and pair.verdict.adjusted_p_value is not None for pair in judgement.pairs)
    items = (
        "items: the same test items, each averaged over the common seeds (bootstrap; sign flips, p after Holm);"
        " they speak of these trained models, not of the architectures"
    )
    if claims == 0:
        return [f"a verdict takes {SEEDS_FOR_A_CLAIM} seeds or more that both models have; see --seeds", items]
    normal = "the test takes the differences over seeds to be roughly normal"
    if most < _SEEDS_FOR_ALL_OR_NOTHING:
        normal += (
            "; three seeds cannot show that a model learns only sometimes: among four equal models that each learn in"
            " half of their runs, one simulated comparison in seven named a winner"
            f" (with {_SEEDS_FOR_ALL_OR_NOTHING} seeds and more one in twenty or fewer)"
        )
    return [
        "a verdict is a paired t-test over seeds: one seed is one whole training, and both models saw its data in the"
        f" same order; p after Holm over {claims} pair{'s' * (claims > 1)}, so that among all of them together a claim"
        " is wrong at most once in twenty; the interval is that of the pair alone",
        "effect size: Hedges' g of the paired differences; smallest detectable: the true difference that this number"
        " of seeds, with this spread, would have shown four times in five; not distinguishable does not mean equal",
        normal,
        items,
    ]
