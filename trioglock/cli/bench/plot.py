"""The plot: the distribution of the latencies, in characters."""

from __future__ import annotations

import plotille
from rich.console import Console
from rich.text import Text

from .figures import Times
from .shape import Shape
from .units import duration, is_unicode

__all__ = ["print_plot"]

HEIGHT = 10
"""Lines, without the axis."""

MARGIN = 14
"""Characters that plotille puts beside the picture."""

LEAST_WIDTH = 20

COLOURS = (("p90", "cyan"), ("p99", "yellow"), ("max", "red"))
"""Of the columns up to each of these."""

BRAILLE = 0x2800
DENSITY = " ..:::###"
"""What stands for a character of braille, by its dots, where there is no braille."""

TO_ASCII = {BRAILLE + dots: DENSITY[dots.bit_count()] for dots in range(256)}


def print_plot(console: Console, times: Times) -> None:
    """Print it as wide as the console is."""
    unicode = is_unicode(console.encoding)
    lines = _draw(times, max(console.width - MARGIN, LEAST_WIDTH), unicode=unicode)
    console.print(_legend(), no_wrap=True, overflow="crop")
    for line in lines:
        shown = line if unicode else line.translate(TO_ASCII)
        console.print(Text.from_ansi(shown), no_wrap=True, overflow="crop")


def _legend() -> Text:
    text = Text("share of the messages by their latency: ")
    for until, colour in COLOURS:
        text.append(f" {until}", style=colour)
    return text


def _draw(times: Times, width: int, *, unicode: bool) -> list[str]:
    shape = Shape.of(times, 2 * width)
    figure = plotille.Figure()
    figure.width, figure.height = width, HEIGHT
    figure.color_mode = "names"
    figure.origin = False
    figure.linesep = "\n"
    figure.x_label, figure.y_label = "", "share"
    figure.x_ticks_fkt = lambda low, _: duration(10.0 ** float(low), unicode=unicode)
    figure.y_ticks_fkt = lambda low, _: f"{100 * float(low):.1f} %"
    figure.set_x_limits(shape.left, shape.right)
    figure.set_y_limits(0, max(shape.shares))
    for column, share in enumerate(shape.shares):
        if share:
            at = shape.edge(column)
            figure.plot([at, at], [0, share], lc=_colour(times, 10**at))
    # Behind the arrow would stand the name of the axis, beyond the width.
    return [line.removesuffix("-> ()").rstrip() for line in figure.show().splitlines()]


def _colour(times: Times, seconds: float) -> str:
    for until, colour in COLOURS:
        if seconds <= times.seconds[until]:
            return colour
    return COLOURS[-1][1]
