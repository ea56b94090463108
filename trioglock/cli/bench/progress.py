"""The progress: a bar while it measures, where a terminal shows it."""

from __future__ import annotations

import math
import time

import trio
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from .load import Load

__all__ = ["show_progress"]

PAUSE = 0.1
"""Seconds between two pictures."""


async def show_progress(load: Load, console: Console) -> None:
    """Show how far it is, until cancelled."""
    columns = (
        TextColumn("{task.description:<11}"),
        BarColumn(bar_width=None),
        TextColumn("{task.fields[told]:>16}"),
        TimeRemainingColumn(),
    )
    # Without a thread of its own, which would take turns from what is measured.
    bar = Progress(*columns, console=console, auto_refresh=False, transient=True, expand=True)
    with bar:
        task = bar.add_task("connecting", total=None, told="")
        shown, since = "", 0.0
        while True:
            if load.phase != shown:
                shown, since = load.phase, time.monotonic()
                bar.reset(task)
            _update(bar, task, load, time.monotonic() - since)
            bar.refresh()
            await trio.sleep(PAUSE)


def _update(bar: Progress, task: TaskID, load: Load, seconds: float) -> None:
    plan, meter = load.plan, load.meter
    done: float
    total: float | None
    told = ""
    if load.phase == "connecting":
        done, total, told = load.opened, plan.connections, f"{load.opened:,} open"
    elif load.phase == "warming up":
        done, total = seconds, plan.warm_up
    else:
        messages = meter.latencies.count
        told = f"{messages / meter.seconds:,.0f}/s" if meter.seconds else ""
        if plan.messages is None:
            done, total = meter.seconds, plan.seconds
        else:
            done, total = messages, plan.messages
    if total is not None and math.isinf(total):
        total = None
    bar.update(task, description=load.phase, completed=done, total=total, told=told)
