"""The run: from a plan to figures, and from figures to what is printed."""

from __future__ import annotations

import json
import signal
from typing import Any

import click
import trio
from rich.console import Console

from ..._redact import redact_url
from .figures import Figures
from .load import Load
from .plan import Plan
from .plot import print_plot
from .progress import show_progress
from .table import print_table

__all__ = ["exit_code", "measure", "tell"]

FAULTS, NO_CONNECTION, INTERRUPTED = 1, 3, 130
"""Exit codes, beside 0 and 2."""


def measure(plan: Plan) -> Figures:
    """Measure until it is done, or Ctrl-C; with a bar where a terminal shows it."""
    load = Load(plan)
    trio.run(_run, load)
    return Figures.of(load, redact_url(plan.url))


async def _run(load: Load) -> None:
    console = Console(stderr=True)
    with trio.open_signal_receiver(signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_interrupt, load, signals)
            if console.is_terminal:
                nursery.start_soon(show_progress, load, console)
            await load.run()
            nursery.cancel_scope.cancel()


async def _interrupt(load: Load, signals: Any) -> None:
    await anext(signals)
    load.interrupt()


def tell(figures: Figures, *, as_json: bool) -> None:
    """The figures go to standard output, what went wrong to standard error."""
    if as_json:
        click.echo(json.dumps(figures.to_json()))
    elif figures.opened:
        console = Console(highlight=False)
        print_table(console, figures)
        if figures.latency is not None:
            print_plot(console, figures.latency)
    for fault in figures.faults:
        click.echo(f"trioglock bench: {fault.count} x {fault.what}: {fault.detail}", err=True)
    if figures.interrupted:
        click.echo("trioglock bench: interrupted; what was measured up to then counts", err=True)


def exit_code(figures: Figures) -> int:
    """Of the process."""
    if figures.interrupted:
        return INTERRUPTED
    if not figures.opened:
        return NO_CONNECTION
    return FAULTS if figures.faults else 0
