"""Which console the process has."""

from __future__ import annotations

import sys

import click
from prompt_toolkit.utils import is_dumb_terminal

from .console import Console
from .pipe import PipeConsole
from .shape import Shape
from .terminal import PromptConsole

__all__ = ["open_console"]


def open_console(shape: Shape, history: str | None) -> Console:
    """A prompt, if lines are typed at a terminal and it can be shown on one; pipes otherwise.

    Args:
        shape: of received messages.
        history: the name of the file that keeps what is typed; None keeps nothing.

    Raises:
        click.UsageError: raw bytes were asked for, and would go to a terminal.
    """
    terminals = [stream for stream in (sys.stdout, sys.stderr) if _is_terminal(stream)]
    if shape.raw and sys.stdout in terminals:
        raise click.UsageError("--raw writes bytes as they are: send stdout to a file or a pipe")
    if _is_terminal(sys.stdin) and terminals and not is_dumb_terminal():
        return PromptConsole(shape, history, terminals[0])
    return PipeConsole(shape)


def _is_terminal(stream: object) -> bool:
    isatty = getattr(stream, "isatty", None)
    return isatty is not None and bool(isatty())
