"""Sends one message in fragments that an async iterable produces (RFC 6455, section 5.4).

The message begins with its first fragment and holds back all data that is queued after it. Control
frames are sent in between. A message cannot continue on another link: the end of its link, or a
Close frame, interrupts it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable
from contextlib import aclosing, nullcontext
from typing import TYPE_CHECKING, Any

import trio

from ..._redact import shorten
from ..._text import as_text
from ...errors import InvalidFrame, MessageInterrupted, UsageError
from ...frames import BytesLike, Data, Fragment
from .receiver import Fragments

if TYPE_CHECKING:
    from ..session import Session

__all__ = ["OutgoingMessage", "send_fragments"]


class OutgoingMessage:
    """The state of a message whose fragments are sent through the send queue.

    Args:
        on_end: called when the queue no longer holds back data for this message.
    """

    __slots__ = (
        "ahead",
        "interrupted",
        "is_complete",
        "on_end",
        "scope",
        "size",
        "started",
        "task",
    )

    def __init__(self, on_end: Callable[[], None]) -> None:
        self.ahead: int = 0
        """The number of queued data frames to send before it."""
        self.started: bool = False
        """Whether a fragment has been queued, so that the message belongs to the current link."""
        self.is_complete: bool = False
        """Whether the final fragment has been queued."""
        self.interrupted: bool = False
        self.size: int = 0
        """The size of the queued fragments in bytes."""
        self.on_end: Callable[[], None] = on_end
        self.scope: trio.CancelScope = trio.CancelScope()
        self.task: trio.lowlevel.Task = trio.lowlevel.current_task()

    def interrupt(self) -> None:
        """Stop the iterable: the message cannot be completed."""
        self.interrupted = True
        self.scope.cancel()

    def reject_inside(self, call: str) -> None:
        """Raise UsageError if the caller is the iterable that produces the message."""
        # If the call was cancelled, the end of a complete message may still have to be written.
        if trio.lowlevel.current_task() is self.task and not self.is_complete:
            raise UsageError(
                f"{call}() cannot wait inside the async iterable that is being sent, because other "
                "messages wait for the end of that iterable"
            )


async def send_fragments(session: Session[Any], iterable: AsyncIterable[str | BytesLike]) -> None:
    """Send the items of ``iterable`` as the fragments of one message; see Connection.send."""
    send_queue = session.send_queue
    if send_queue.closed:
        raise session.close_state.error()
    message = OutgoingMessage(session.writer.message_ended)
    send_queue.add_message(message)
    try:
        with message.scope:
            await _send_items(session, message, iterable)
    except BaseException as error:
        _abandon(session, message, error)
        raise
    finally:
        send_queue.remove_message(message)
    if message.interrupted:
        if send_queue.closed:
            raise session.close_state.error()
        raise MessageInterrupted("the link ended before the whole message was sent")


async def _send_items(
    session: Session[Any], message: OutgoingMessage, iterable: AsyncIterable[Any]
) -> None:
    kind: type[Data] | None = None
    iterator = iterable.__aiter__()
    async with _closing(iterator):
        async for item in iterator:
            data = _checked_item(item, kind)
            await _put(session, message, Fragment(data, first=kind is None, final=False))
            kind = data.__class__
    # An empty text message that is forwarded stays text, although it has no items.
    is_text = kind is str or (isinstance(iterable, Fragments) and iterable.is_text)
    end: Data = "" if is_text else b""
    await _put(session, message, Fragment(end, first=kind is None, final=True))
    # Until the last fragment has been written, the end of the link would lose the message.
    while session.send_queue.message is message:
        await session.send_queue.wait_progress()


def _closing(iterator: AsyncIterator[Any]) -> Any:
    """Return a context manager that closes an async generator, but not a file or a stream."""
    return aclosing(iterator) if isinstance(iterator, AsyncGenerator) else nullcontext()


def _checked_item(item: Any, kind: type[Data] | None) -> Data:
    """Return the payload of a fragment; the content of a mutable buffer is copied."""
    data: Data
    if isinstance(item, str):
        data = as_text(item)
        try:
            data.encode()
        except UnicodeEncodeError as error:
            raise InvalidFrame(f"the text is not valid Unicode: {error}") from None
    elif isinstance(item, bytes | bytearray | memoryview):
        data = bytes(item)
    else:
        raise InvalidFrame(
            "an async iterable must yield str or bytes-like objects, "
            f"not {type(item).__name__}: {shorten(item)}"
        )
    if kind is not None and data.__class__ is not kind:
        raise InvalidFrame(
            "an async iterable must yield either str or bytes-like objects, not both: "
            f"after {kind.__name__} it yielded {type(item).__name__}"
        )
    return data


async def _put(session: Session[Any], message: OutgoingMessage, fragment: Fragment) -> None:
    """Queue a fragment; wait until earlier messages have been written and there is space."""
    send_queue, writer = session.send_queue, session.writer
    await trio.lowlevel.checkpoint()
    while send_queue.message is not message:
        if send_queue.closed:
            raise session.close_state.error()
        if send_queue.message is None:
            writer.hold_data(message)
        else:
            send_queue.message.reject_inside("send")
            await send_queue.wait_message_end()
    while not writer.accepts_fragment:
        if send_queue.closed:
            raise session.close_state.error()
        await send_queue.wait_progress()
    writer.put_fragment(fragment)


def _abandon(session: Session[Any], message: OutgoingMessage, error: BaseException) -> None:
    """Let other data continue, or end the link because half of the message has been sent."""
    if session.send_queue.message is not message or message.is_complete:
        return
    if message.started:
        session.message_failed(error)
    if session.send_queue.message is message:
        session.writer.release_data()
