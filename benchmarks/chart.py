"""The chart: the time per message of 64 bytes, with one panel for each table."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from .results import Column, Results

__all__ = ["draw"]

PANELS = ("Receive", "Send", "Echo")
LEFT_OUT = (
    *("raw trio stream", "over trio-websocket", "async hook", "async handle_send"),
    *("receive_batch", "send_nowait", "default Socket", "takes the payload"),
)
"""Parts of the names of entries that are only in the tables."""

OURS, COMPILED, THEIRS = "#c8501e", "#e39b7b", "#8a98a8"


def draw(results: Results, folder: Path) -> list[Path]:
    """Write the chart as SVG and PNG, and return the paths.

    Returns an empty list if matplotlib is not installed or there are no results to show.
    """
    columns = [results.find(panel, "64 B") for panel in PANELS]
    shown = [(column, labels) for column in columns if column and (labels := _labels(column))]
    if not shown:
        return []
    try:
        plt: Any = import_module("matplotlib.pyplot")  # takes a second, often for nothing
    except ImportError:
        return []
    plt.switch_backend("agg")
    ratios = [len(labels) for _, labels in shown]
    height = sum(0.21 * number + 0.65 for number in ratios)
    figure, panels = plt.subplots(
        len(shown),
        1,
        figsize=(9, height),
        squeeze=False,
        height_ratios=ratios,
        layout="constrained",
    )
    for panel, (column, wanted) in zip(panels[:, 0], shown, strict=True):
        rows = [(label, column.spread(label)) for label in wanted]
        bars = sorted(
            ((spread, label) for label, spread in rows if spread is not None),
            key=lambda bar: bar[0].median,
            reverse=True,
        )
        labels = [label for _, label in bars]
        medians = [spread.median for spread, _ in bars]
        below = [spread.median - spread.minimum for spread, _ in bars]
        above = [spread.maximum - spread.median for spread, _ in bars]
        colours = [_colour(label) for label in labels]
        drawn = panel.barh(labels, medians, xerr=(below, above), color=colours, ecolor="#333333")
        panel.bar_label(drawn, [f" {value:.3g}" for value in medians], padding=4, fontsize=8)
        panel.set_xscale("log")
        panel.xaxis.set_minor_formatter("")
        panel.set_title(f"{column.group}, 64 bytes: {column.unit}, lower is better", fontsize=10)
        panel.margins(x=0.15)
        panel.tick_params(labelsize=8)
    paths = [folder / "performance.svg", folder / "performance.png"]
    for path in paths:
        figure.savefig(path, dpi=150)
    plt.close(figure)
    return paths


def _labels(column: Column) -> list[str]:
    return [label for label in column.rounds if not any(part in label for part in LEFT_OUT)]


def _colour(label: str) -> str:
    if label.startswith("compiled: "):
        return COMPILED
    return OURS if label.startswith("trioglock,") else THEIRS
