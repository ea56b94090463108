"""What reading and writing may meet."""

from __future__ import annotations

__all__ = ["EndOfInput", "Interrupted", "OutputClosed", "OutputFailed", "UnreadableInput"]


class EndOfInput(Exception):
    """There are no more lines: the end of a pipe, or Ctrl-D."""


class Interrupted(Exception):
    """Ctrl-C was typed at the prompt."""


class UnreadableInput(Exception):
    """The input cannot be read on; the text says why."""


class OutputClosed(Exception):
    """Nobody reads what is written any more."""


class OutputFailed(Exception):
    """It cannot be written; the text says why."""
