"""Receives one message in fragments (RFC 6455, section 5.4)."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

import trio

from ...errors import MessageInterrupted, UsageError
from ...frames import Data
from .queue import FragmentQueue

__all__ = ["Fragments"]


class Fragments:
    """The next message, in fragments: the result of :meth:`Connection.receive_fragments`.

    Entering the block waits for the beginning of a message. Iterate once to receive the message.
    Leaving the block before the end discards the rest of the message.

    The fragments may differ from those that the peer sent: a large frame is delivered in pieces as
    it arrives. A fragment is at most 64 KiB long, and at most ``max_size`` bytes unless it is a
    single character. Text is split between characters. Fragments are never empty, and an empty
    message has none.

    Raises:
        ConnectionClosed: the connection closed before the message, or within it.
        MessageInterrupted: the link ended within the message, and another one may follow.
        UsageError: the block is entered a second time, or used after its end.
    """

    __slots__ = ("_closed_error", "_is_done", "_is_entered", "_is_text", "_queue")

    def __init__(self, queue: FragmentQueue, closed_error: Callable[[], Exception]) -> None:
        self._queue = queue
        self._closed_error = closed_error
        self._is_entered = False
        self._is_done = False
        self._is_text = False

    @property
    def is_text(self) -> bool:
        """Whether the fragments are ``str`` rather than ``bytes``."""
        return self._is_text

    async def __aenter__(self) -> Fragments:
        if self._is_entered:
            raise UsageError("receive_fragments() returns one message: call it again for the next")
        self._is_entered = True
        await trio.lowlevel.checkpoint_if_cancelled()
        queue = self._queue
        while (first := queue.begin_block(self)) is None:
            if queue.ended:
                raise self._closed_error()
            await queue.park()
        self._is_text = isinstance(first.data, str)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._queue.end_block(skip=not self._is_done)
        self._is_done = True

    def __aiter__(self) -> Fragments:
        return self

    async def __anext__(self) -> Data:
        queue = self._queue
        if queue.block is not self:
            raise UsageError("write: async with conn.receive_fragments() as fragments: ...")
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self._is_done:
            if queue.has_fragments:
                fragment = queue.pop()
                self._is_done = fragment is None or fragment.final
                if fragment is None:
                    raise MessageInterrupted("the link ended before the whole message arrived")
                if fragment.data:
                    return fragment.data
            elif queue.ended:
                raise self._closed_error()
            else:
                await queue.park()
        raise StopAsyncIteration
