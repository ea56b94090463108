"""Requests that wait for the answer with their ``ref``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import trio

from ..disconnect import Disconnect
from .errors import RequestLost

__all__ = ["Answer", "Requests"]


class Answer:
    """What one request waits for; settled once, by the answer or by the end of the link.

    Args:
        event: that was sent.
        is_lost: whether the link that carried it has ended.
    """

    def __init__(self, event: str, is_lost: Callable[[], bool]) -> None:
        self.event: str = event
        self.is_lost: Callable[[], bool] = is_lost
        self._settled = trio.Event()
        self._message: Any = None
        self._error: Exception | None = None

    async def wait(self) -> Any:
        """The answering message.

        Raises:
            RequestLost: there will be none.
        """
        await self._settled.wait()
        if self._error is not None:
            raise self._error
        return self._message

    def settle(self, message: Any, error: Exception | None = None) -> None:
        """It has come, or ``error`` says why it never will."""
        self._message, self._error = message, error
        self._settled.set()


class Requests:
    """Every request that waits, by its ``ref``.

    One Socket may serve several connections; refs are unique over all of them.
    """

    def __init__(self) -> None:
        self._waiting: dict[Any, Answer] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    @contextmanager
    def open(self, ref: str, event: str, is_lost: Callable[[], bool]) -> Iterator[Answer]:
        """Wait for ``ref`` within the block; whatever ends it, nothing is left behind.

        Args:
            ref: that the answer will have.
            event: that is sent.
            is_lost: whether the link that carries it has ended.
        """
        answer = self._waiting[ref] = Answer(event, is_lost)
        try:
            yield answer
        finally:
            self._waiting.pop(ref, None)

    def settle(self, ref: Any, message: Any, error: Exception | None = None) -> bool:
        """Give ``message``, or ``error``, to the request that waits; whether there is one.

        Args:
            ref: of a message that came.
            message: that has it.
            error: why there will be no answer; None if the message is one.
        """
        if not isinstance(ref, str):
            return False
        answer = self._waiting.pop(ref, None)
        if answer is None:
            return False
        answer.settle(message, error)
        return True

    def lose(self, reason: Disconnect) -> None:
        """A link has ended: so have the requests that it carried.

        Args:
            reason: why it ended.
        """
        for ref, answer in list(self._waiting.items()):
            if answer.is_lost():
                del self._waiting[ref]
                answer.settle(None, RequestLost(answer.event, reason))
