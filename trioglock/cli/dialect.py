"""The dialect: how lines become messages, and messages lines."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .._redact import redact_text
from ..connection import Connection
from ..errors import ConnectionClosed, TrioglockError
from ..frames import Data
from .exits import FAILED, code_of_end, words_of_end

__all__ = ["Command", "Dialect", "Refused"]


class Refused(Exception):
    """A line cannot be sent, or a command makes no sense; the text says why. Nothing was sent."""


@dataclass(frozen=True, slots=True)
class Command:
    """A command of the prompt, such as ``/ping``.

    Args:
        usage: what is typed after its name.
        help: what it does.
        run: called with what was typed after its name; raises :class:`Refused`.
    """

    usage: str
    help: str
    run: Callable[[str], Awaitable[None]]


class Dialect(ABC):
    """What is spoken over one connection.

    Args:
        connection: for its status, its latency and its end.
    """

    def __init__(self, connection: Connection[Any]) -> None:
        self.connection: Connection[Any] = connection
        self.failed: bool = False
        """Whether something that was said has failed, and that was told."""

    @property
    def commands(self) -> Mapping[str, Command]:
        """Of this dialect alone, by their names."""
        return {}

    @abstractmethod
    async def say(self, line: str) -> None:
        """Send what a line says.

        Raises:
            Refused: it says nothing that can be sent.
            TrioglockError: it cannot be sent now.
        """

    @abstractmethod
    async def hear(self) -> Sequence[Data]:
        """What has come, to be printed; waits for the first.

        Raises:
            ConnectionClosed: nothing more will come.
            TrioglockError: the same, and the connection may still be open.
        """

    def judge(self, error: TrioglockError) -> tuple[int, str]:
        """The exit code for what :meth:`hear` raised, and words for it."""
        if isinstance(error, ConnectionClosed):
            code, words = code_of_end(error), words_of_end(error)
            dropped = self.connection.statistics().dropped
            return (
                (FAILED, f"{words}; {dropped} messages were dropped") if dropped else (code, words)
            )
        return FAILED, redact_text(str(error))

    async def settle(self) -> None:
        """Wait until all that was said has been sent.

        Raises:
            TrioglockError: it will not be.
        """
        await self.connection.flush()
