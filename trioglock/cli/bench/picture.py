"""The picture: the distribution of the latencies as a PNG, by matplotlib."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .figures import Figures, Times
from .shape import Shape
from .units import duration, rate

__all__ = ["can_draw", "draw_picture"]

COLUMNS = 160
INK = "#24292f"
FILL = "#0969da"
MARKS = {"p50": "#1a7f37", "p99": "#bc4c00", "max": "#cf222e"}


def can_draw() -> bool:
    """Whether matplotlib is installed."""
    return find_spec("matplotlib") is not None


def draw_picture(figures: Figures, path: Path) -> None:
    """Write the PNG.

    Raises:
        OSError: it cannot be written.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415 - an extra: pip install trioglock[plot]

    assert figures.latency is not None
    figure = Figure(figsize=(9, 6), dpi=120, layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    figure.suptitle(_title(figures), color=INK, fontsize=11, parse_math=False)
    _draw_shares(above, figures.latency)
    _draw_quantiles(below, figures.latency)
    figure.savefig(path, format="png")


def _title(figures: Figures) -> str:
    return (
        f"{figures.url}\n{figures.opened:,} connections, {figures.in_flight} x {figures.size:,} "
        f"bytes in flight: {figures.messages_per_second:,.0f} messages/s, "
        f"{rate(figures.bytes_received_per_second)} each way"
    )


def _draw_shares(axes: Any, times: Times) -> None:
    shape = Shape.of(times, COLUMNS)
    edges = [10 ** shape.edge(column) for column in range(COLUMNS + 1)]
    axes.stairs([100 * share for share in shape.shares], edges, fill=True, color=FILL)
    axes.set_ylabel("messages, % per column")
    _mark(axes, times)
    axes.legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 1), ncols=len(MARKS))


def _draw_quantiles(axes: Any, times: Times) -> None:
    total = sum(bucket.count for bucket in times.buckets)
    seconds, slower, seen = [], [], 0
    for bucket in times.buckets:
        seconds.append(bucket.low / 1e9)
        slower.append(100 * (total - seen) / total)
        seen += bucket.count
    seconds.append(times.seconds["max"])
    slower.append(100 / total)
    axes.step(seconds, slower, where="post", color=FILL, linewidth=2)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(lambda share, _: f"{share:g}")
    axes.set_ylabel("slower than that, %")
    axes.set_xlabel("latency, milliseconds")
    _mark(axes, times)


def _mark(axes: Any, times: Times) -> None:
    from matplotlib.ticker import LogLocator, NullLocator  # noqa: PLC0415 - see above

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(lambda seconds, _: f"{1000 * seconds:g}")
    axes.xaxis.set_minor_locator(NullLocator())
    for name, colour in MARKS.items():
        at = times.seconds[name]
        axes.axvline(at, color=colour, linewidth=1.2, label=f"{name}  {duration(at)}")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
