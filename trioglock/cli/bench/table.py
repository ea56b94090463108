"""The table: the figures for a terminal."""

from __future__ import annotations

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from .figures import Figures, Times
from .units import duration, in_encoding, is_unicode, rate

__all__ = ["print_table"]

BUSY = 0.9
"""The share of a core from which on the client may be what is slow."""


def print_table(console: Console, figures: Figures) -> None:
    """Print the figures."""
    unicode = is_unicode(console.encoding)
    parts: list[RenderableType] = [
        Text(in_encoding(_headline(figures), console.encoding), style="bold")
    ]
    if figures.messages:
        parts.append(Text())
        parts.append(_amounts(figures))
    console.print(Group(*parts))
    if figures.connect is not None:
        console.print(_times(figures.latency, figures.connect, unicode=unicode))
    if figures.load > BUSY and figures.messages:
        hint = "This process was busy all the time: the server may be faster than these figures."
        console.print(Text(hint, style="yellow"))


def _headline(figures: Figures) -> str:
    connections = f"{figures.opened:,} connection{'s' * (figures.opened != 1)}"
    if figures.opened < figures.connections:
        connections = f"{figures.opened:,} of {figures.connections:,} connections"
    kind = "binary" if figures.binary else "text"
    return (
        f"{figures.url}\n{connections}, {figures.in_flight} x {figures.size:,} bytes of {kind} "
        f"in flight on each, {figures.seconds:.1f} s"
    )


def _amounts(figures: Figures) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="cyan")
    table.add_column(justify="right")
    table.add_column(style="dim")
    table.add_row(
        "messages", f"{figures.messages_per_second:,.0f}/s", f"{figures.messages:,} in all"
    )
    table.add_row("sent", rate(figures.bytes_sent_per_second), "payload")
    table.add_row("received", rate(figures.bytes_received_per_second), "payload")
    return table


def _times(latency: Times | None, connect: Times, *, unicode: bool) -> Table:
    table = Table()
    table.add_column("", style="cyan")
    if latency is not None:
        table.add_column("latency", justify="right")
    table.add_column("connect", justify="right")
    for name in connect.seconds:
        shown = [times.seconds[name] for times in (latency, connect) if times is not None]
        table.add_row(name, *(duration(seconds, unicode=unicode) for seconds in shown))
    return table
