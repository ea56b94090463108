"""Where a conversation is read from and written to: a prompt in a terminal, or pipes."""

from .console import Console, EndOfInput, Interrupted, OutputClosed, OutputFailed, UnreadableInput
from .marks import Mark
from .open import open_console
from .painter import Painter
from .shape import Shape, json_problem

__all__ = [
    "Console",
    "EndOfInput",
    "Interrupted",
    "Mark",
    "OutputClosed",
    "OutputFailed",
    "Painter",
    "Shape",
    "UnreadableInput",
    "json_problem",
    "open_console",
]
