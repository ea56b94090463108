"""The console: what a conversation needs of whoever holds it, a person or a script."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager

from rich.console import RenderableType

from ...frames import Data
from .errors import EndOfInput, Interrupted, OutputClosed, OutputFailed, UnreadableInput
from .marks import Mark

__all__ = [
    "Console",
    "EndOfInput",
    "Interrupted",
    "OutputClosed",
    "OutputFailed",
    "UnreadableInput",
]


class Console(ABC):
    """The port; its plugs are ``PipeConsole`` and ``PromptConsole``."""

    has_prompt: bool
    """Whether somebody types, and wants to be told what happens."""

    words: Sequence[str] = ()
    """That the Tab key completes at the beginning of a line."""

    @abstractmethod
    def reading(self) -> AbstractAsyncContextManager[None]:
        """A block in which lines can be read; a prompt is shown for its time."""

    @abstractmethod
    async def stop_reading(self) -> None:
        """Take the prompt away; what is printed from now on needs none."""

    @abstractmethod
    async def next_line(self) -> str:
        """The next line of the input.

        Raises:
            EndOfInput: there is none.
            Interrupted: Ctrl-C was typed.
            UnreadableInput: the input is broken.
        """

    @abstractmethod
    async def received(self, messages: Sequence[Data]) -> None:
        """Print what the peer has sent.

        Raises:
            OutputClosed: nobody reads it.
            OutputFailed: it cannot be written.
        """

    @abstractmethod
    async def tell(self, mark: Mark, content: str) -> None:
        """Print anything else, for people; what cannot be printed is not worth an error."""

    @abstractmethod
    async def show(self, content: RenderableType) -> None:
        """Print something of several lines, for people."""

    @abstractmethod
    def post(self, mark: Mark, content: str) -> None:
        """As :meth:`tell`, without waiting: for what is told from inside the connection."""
