"""What `bench speed` measured, as tables."""

from collections.abc import Mapping, Sequence
from typing import Any

from seqbench.report.document import Document, Line, Row, Sheet
from seqbench.speed.records import MEASURED, NOT_RUN

Figures = Mapping[str, Any]

_NONE = "-"
_MEBI, _GIGA = 2**20, 1e9
# Seconds, by the largest unit in which they are at least one.
_UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))


def speed_report(content: Figures) -> Document:
    """Tables of the content of speed.json: of models, or of operations."""
    return _models_report(content) if content["kind"] == "models" else _operations_report(content)


def seconds(value: float) -> str:
    """A time with three figures that count and its unit."""
    factor, unit = next(((factor, unit) for factor, unit in _UNITS if value >= factor), _UNITS[-1])
    return f"{_three(value / factor)} {unit}"


def _models_report(content: Figures) -> Document:
    cells = content["cells"]
    first = cells[0]["name"] if cells else ""
    several = len({cell["name"] for cell in cells}) > 1
    columns = {
        "mode": [cell["place"]["mode"] for cell in cells],
        "length": [f"{cell['place']['length']:,}" for cell in cells],
        "model": [cell["name"] for cell in cells],
        "tokens/s": [_rate(cell) for cell in cells],
        "time per token": [_time(cell) for cell in cells],
        "quartiles": [_quartiles(cell) for cell in cells],
        f"rate over {first}": [_ratio(cell["ratio"]) for cell in cells] if several else [],
        "growth": [_ratio(cell["growth"]) for cell in cells] if len(content["lengths"]) > 1 else [],
        "peak MiB": [_mebibytes(cell["peak_bytes"]) for cell in cells],
        "activations MiB": [_mebibytes(cell["activation_bytes"]) for cell in cells],
        "GFLOP/s": [_giga(cell["flops_per_second"]) for cell in cells],
        "of matrix peak": [_share(cell["matrix_share"]) for cell in cells],
        "of copy rate": [_share(cell["copy_share"]) for cell in cells],
        "first call": [_first_call(cell) for cell in cells],
    }
    parts: list[Sheet | Line] = [_sheet(_title(content), columns, cells, ("mode", "length"), names=3)]
    lines = [line for line in content["growth"] if line["time_exponent"] is not None]
    parts += [_exponents(lines)] if lines else []
    parts += _absences(cells)
    parts += [Line(text) for text in _peak_lines(content["peaks"])]
    return Document([*parts, *_notes(content)])


def _operations_report(content: Figures) -> Document:
    absent = _absent_paths(content["cells"])
    # A line says it better than rows.
    cells = [cell for cell in content["cells"] if (cell["place"]["operation"], cell["name"]) not in absent]
    columns = {
        "operation": [cell["place"]["operation"] for cell in cells],
        "case": [cell["place"]["case"] for cell in cells],
        "direction": [cell["place"]["direction"] for cell in cells],
        "path": [cell["name"] for cell in cells],
        "time": [_time(cell) for cell in cells],
        "quartiles": [_quartiles(cell) for cell in cells],
        "rate over reference": [_ratio(cell["ratio"]) for cell in cells],
        "peak MiB": [_mebibytes(cell["peak_bytes"]) for cell in cells],
        "first call": [_first_call(cell) for cell in cells],
    }
    sheet = _sheet(_title(content), columns, cells, ("operation", "case", "direction"), names=4)
    return Document([sheet, *_absences([*absent.values(), *cells]), *_notes(content)])


def _absent_paths(cells: Sequence[Figures]) -> dict[tuple[str, str], Figures]:
    """(operation, path) -> one cell for all, where a path was run in no case of an operation, for one reason."""
    own: dict[tuple[str, str], list[Figures]] = {}
    for cell in cells:
        own.setdefault((cell["place"]["operation"], cell["name"]), []).append(cell)
    return {
        (operation, path): {**found[0], "place": {"operation": operation}}
        for (operation, path), found in own.items()
        if {(cell["state"], cell["reason"]) for cell in found} == {(NOT_RUN, found[0]["reason"])}
    }


def _sheet(
    title: str, columns: Mapping[str, Sequence[str]], cells: Sequence[Figures], places: Sequence[str], names: int
) -> Sheet:
    """The columns that say something, a rule after each place."""
    shown = {name: column for name, column in columns.items() if any(entry not in ("", _NONE) for entry in column)}
    rows = []
    for number, cell in enumerate(cells):
        following = cells[number + 1] if number + 1 < len(cells) else None
        ends = following is not None and any(following["place"][key] != cell["place"][key] for key in places)
        style = "" if cell["state"] == MEASURED else "dim"
        rows.append(Row(tuple(column[number] for column in shown.values()), style, ends))
    headings = list(shown)
    left = tuple(index for index, name in enumerate(headings) if index < names and name != "length")
    return Sheet(title, headings, rows, left=left, names=min(names, len(headings)))


def _title(content: Figures) -> str:
    environment = content["environment"]
    what = f"{content['repeats']} repeats in turns; {environment['device_name']}, {content['precision']}"
    threads = f", {environment['threads']} thread{'s' * (environment['threads'] != 1)}"
    batch = f", batch {content['batch_size']}" if content["kind"] == "models" else ""
    compiled = ", torch.compile" if content.get("compiled") else ""
    stopped = "" if content["state"] == "complete" else f"; {content['state']}"
    return f"speed: median of {what}{threads}{batch}{compiled}{stopped}"


def _exponents(lines: Sequence[Figures]) -> Sheet:
    rows = [
        Row(
            (
                line["mode"],
                line["name"],
                f"{min(line['lengths']):,} to {max(line['lengths']):,}",
                *(_exponent(line[key]) for key in ("time_exponent", "memory_exponent", "activation_exponent")),
            )
        )
        for line in lines
    ]
    title = "growth: b in length^b, of a pass (decode: of a token, against its position)"
    headings = ("mode", "model", "lengths", "time", "peak memory", "activations")
    return Sheet(title, headings, rows, left=(0, 1), names=2)


def _peak_lines(peaks: Figures) -> list[str]:
    rates = {int(size): rate for size, rate in peaks["matrix_flops_per_second"].items()}
    sizes = ", ".join(f"{size:,}: {_three(rate / _GIGA)}" for size, rate in rates.items())
    product = f"matrix product in {peaks['dtype']}, GFLOP/s by side before the rounds: {sizes}"
    copy = f"copy, read and write together: {_three(peaks['copy_bytes_per_second'] / _GIGA)} GB/s before the rounds"
    best = f"; {peaks['matrix_best_size']:,} once a round"
    return [
        product + _drift(peaks["matrix_samples"], peaks["matrix_averages"], best, "GFLOP/s"),
        copy + _drift(peaks["copy_samples"], peaks["copy_averages"], "; once a round", "GB/s"),
    ]


def _drift(samples: Sequence[float], averages: Sequence[float], what: str, unit: str) -> str:
    """The fastest tries of the rounds, and all tries: far apart where something else uses the machine."""
    if not samples:
        return ""
    return f"{what}: {_range(samples)} {unit}, on average over its tries {_range(averages)}"


def _range(rates: Sequence[float]) -> str:
    return f"{_three(min(rates) / _GIGA)} to {_three(max(rates) / _GIGA)}"


def _notes(content: Figures) -> list[Line]:
    lines = [f"memory: {content['memory_method']}"]
    for model in content["models"]:
        taken = {name: ", ".join(paths) for name, paths in model.get("paths_taken", {}).items()}
        if taken:
            lines.append(f"{model['label']} took " + "; ".join(f"{name}: {paths}" for name, paths in taken.items()))
        if model.get("counts_masked_products"):
            lines.append(f"{model['label']} declares FLOPs with the products that its mask hides")
    return [Line(line, "dim") for line in lines]


def _rate(cell: Figures) -> str:
    rate = cell["units_per_second"]
    return f"{rate['median']:,.0f}" if rate and rate["median"] >= 100 else _three(rate["median"]) if rate else _NONE


def _time(cell: Figures) -> str:
    """The median; what has none says its state instead, and a line below says why."""
    return seconds(cell["seconds_per_unit"]["median"]) if cell["seconds_per_unit"] else cell["state"]


def _quartiles(cell: Figures) -> str:
    """In the unit of the median, which stands beside them."""
    found = cell["seconds_per_unit"]
    if found is None:
        return _NONE
    factor = next((factor for factor, _ in _UNITS if found["median"] >= factor), _UNITS[-1][0])
    return f"{_three(found['lower'] / factor)} - {_three(found['upper'] / factor)}"


def _ratio(found: Figures | None) -> str:
    """With its quartiles; what is set in relation to itself has none."""
    if found is None:
        return _NONE
    if found["lower"] == found["upper"] == 1:
        return "1"
    return f"{found['median']:.3g} [{found['lower']:.3g}, {found['upper']:.3g}]"


def _mebibytes(count: int | None) -> str:
    return _NONE if count is None else _three(count / _MEBI)


def _giga(found: Figures | None) -> str:
    return _NONE if found is None else _three(found["median"] / _GIGA)


def _share(found: Figures | None) -> str:
    return _NONE if found is None else f"{100 * found['median']:.3g} %"


def _exponent(value: float | None) -> str:
    return _NONE if value is None else f"{value:.2f}"


def _first_call(cell: Figures) -> str:
    return _NONE if cell["first_call_seconds"] is None else seconds(cell["first_call_seconds"])


def _absences(cells: Sequence[Figures]) -> list[Line]:
    """Why rows have no figures, or fewer repeats: each reason once, with the places where it holds."""
    places: dict[str, list[str]] = {}
    for cell in cells:
        if cell["reason"]:
            values = (f"{value:,}" if isinstance(value, int) else value for value in cell["place"].values())
            places.setdefault(f"{cell['name']}: {cell['state']}: {cell['reason']}", []).append(" ".join(values))
    return [Line(f"{reason}  ({'; '.join(where)})", "yellow") for reason, where in places.items()]


def _three(value: float) -> str:
    """Three figures that count, without an exponent."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
