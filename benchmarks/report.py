"""The report of a run, as Markdown and as JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from .acceptance import Verdict, verdicts
from .case import BASELINE
from .channels_cases import CHANNELS, CHANNELS_TITLE, SOCKET_IO
from .hub_cases import HUB_TITLE
from .machine import describe_machine
from .results import Column, Results
from .rounds import Effort

__all__ = ["insert_reports", "lost_goals", "to_json", "to_markdown"]

# The other entries of a table are compared with the first of these that is in the table.
REFERENCES = (
    "trioglock, hook",
    "trioglock, send through handle_send",
    "trioglock, send then receive",
    "trioglock, receive",
    "trioglock, connect()",
    "trioglock, serve() with hooks",
    "trioglock, server.broadcast",
)


def to_markdown(results: Results, effort: Effort) -> str:
    """Return the report as Markdown."""
    return "\n".join(_lines(results, effort)) + "\n"


def _lines(results: Results, effort: Effort) -> Iterator[str]:
    for name, value in describe_machine().items():
        yield f"- {name}: {value}"
    yield (
        f"- {effort.rounds} rounds, in which the candidates take turns; each value is the median "
        "(minimum to maximum). Ratios are taken within a round. `nice -n 19` spinners keep all "
        "cores awake while latencies are measured."
    )
    for name, error in results.missing.items():
        yield f"- not measured: {name} ({error})"
    channels = [column for column in results.columns if _is_of_channels(column)]
    if channels:
        yield from ("", "### Channels", "", *_comparison(channels))
    for group, columns in results.select(lambda c: c not in channels).groups().items():
        yield from ("", f"### {group}", "")
        yield from _table(columns)
        reference = _reference(columns)
        if reference is not None:
            yield from ("", f"Times the value of *{reference}*:", "")
            yield from _ratios(columns, reference)
    yield from _compared_with_baseline(results)
    yield from ("", "### Acceptance", "", "| goal | limit | measured | met |", "|---|---|---|---|")
    for verdict in verdicts(results):
        if verdict.kept == "-":
            continue
        yield f"| {verdict.what} | {verdict.limit} | {verdict.measured} | {verdict.kept} |"


def _table(columns: list[Column]) -> Iterator[str]:
    units = {column.unit for column in columns}
    one = f" ({units.pop()})" if len(units) == 1 else ""
    names = [c.name if one else f"{c.name} ({c.unit})" for c in columns]
    yield f"|{one} | " + " | ".join(names) + " |"
    yield "|---" * (len(columns) + 1) + "|"
    for label in _labels(columns):
        cells = [str(column.spread(label) or "-") for column in columns]
        yield f"| {label} | " + " | ".join(cells) + " |"


def _ratios(columns: list[Column], reference: str) -> Iterator[str]:
    yield "| | " + " | ".join(column.name for column in columns) + " |"
    yield "|---" * (len(columns) + 1) + "|"
    for label in _labels(columns):
        if label != reference:
            cells = [str(column.ratio(label, reference) or "-") for column in columns]
            yield f"| {label} | " + " | ".join(cells) + " |"


def _is_of_channels(column: Column) -> bool:
    return column.group.startswith(CHANNELS_TITLE)


def _is_of_hubs(column: Column) -> bool:
    return column.group.startswith(HUB_TITLE)


def _comparison(columns: list[Column]) -> Iterator[str]:
    """Yield a table of all columns, with socket.io beside the channels."""
    yield f"| | trioglock | {SOCKET_IO.label} | ratio |"
    yield "|---|---|---|---|"
    for column in columns:
        title = column.group.removeprefix(CHANNELS_TITLE)
        for label in column.rounds:
            if label.startswith(SOCKET_IO.label):
                continue
            theirs = label.replace(CHANNELS.label, SOCKET_IO.label)
            cells = [column.spread(label), column.spread(theirs), column.ratio(label, theirs)]
            if theirs == label:
                cells[1:] = [None, None]
            name = f"{title} ({column.unit}): {label.removeprefix('trioglock, ')}"
            yield f"| {name} | " + " | ".join([str(cell or "-") for cell in cells]) + " |"


def _compared_with_baseline(results: Results) -> Iterator[str]:
    rows = list(_baseline_rows(results))
    if rows:
        yield from ("", "### Compared with the baseline", "")
        yield "The value of this version divided by that of the baseline; below 1 is better."
        yield from ("", "| case | entry | value | CPU time |", "|---|---|---|---|", *rows)


def _baseline_rows(results: Results) -> Iterator[str]:
    for column in results.columns:
        for label in column.rounds:
            old = f"{BASELINE}: {label}"
            ratio, cpu = column.ratio(label, old), column.cpu_ratio(label, old)
            if ratio is not None:
                yield f"| {column.group}, {column.name} | {label} | {ratio} | {cpu or '-'} |"


def _labels(columns: list[Column]) -> list[str]:
    return list(dict.fromkeys(label for column in columns for label in column.rounds))


def _reference(columns: list[Column]) -> str | None:
    labels = _labels(columns)
    return next((name for name in REFERENCES if name in labels), None)


def to_json(results: Results, effort: Effort) -> str:
    """Return the values of every round as JSON."""
    return json.dumps(
        {
            "machine": describe_machine(),
            "rounds": effort.rounds,
            "missing": results.missing,
            "failures": results.failures,
            "acceptance": [vars(verdict) for verdict in verdicts(results)],
            "columns": [
                {
                    "table": column.group,
                    "column": column.name,
                    "unit": column.unit,
                    "rounds": column.rounds,
                    "cpu": column.cpu,
                }
                for column in results.columns
            ],
        },
        indent=1,
    )


def insert_reports(page: Path, results: Results, effort: Effort) -> None:
    """Replace the reports on a page; those of which there are no results remain."""
    text = page.read_text(encoding="utf-8")
    for name, is_part in (
        ("results", lambda column: not (_is_of_channels(column) or _is_of_hubs(column))),
        ("results of channels", _is_of_channels),
        ("results of hubs", _is_of_hubs),
    ):
        part = results.select(is_part)
        if part.columns:
            before, begin, rest = text.partition(f"<!-- {name} -->")
            _, end, after = rest.partition(f"<!-- end of {name} -->")
            text = f"{before}{begin}\n\n{to_markdown(part, effort)}\n{end}{after}"
    page.write_text(text, encoding="utf-8")


def lost_goals(page: Path, results: Results) -> list[str]:
    """Return the goals that a run has missed although, according to a page, they were met."""
    text = page.read_text(encoding="utf-8")
    return [
        f"{goal.what}: {goal.limit}: {goal.measured}"
        for goal in verdicts(results)
        if goal.kept == "no" and re.search(_met_row(goal), text, re.MULTILINE)
    ]


def _met_row(goal: Verdict) -> str:
    return rf"^\| {re.escape(goal.what)} \| {re.escape(goal.limit)} \| [^|]* \| yes \|$"
