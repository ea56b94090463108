"""Outgoing frames: what may be sent, and how much it counts against the limit of the send queue."""

from __future__ import annotations

from .._redact import shorten
from ..errors import InvalidFrame
from ..frames import Close, Data, Frame, Ping, Pong, PreparedMessage

__all__ = ["Message", "OutFrame", "checked_frame", "plain", "size_of", "urgent_size"]

Message = Data | PreparedMessage
OutFrame = Message | Ping | Pong | Close


def checked_frame(frame: Frame) -> OutFrame:
    """What to queue for something to be sent; the content of a mutable buffer is copied.

    Raises:
        InvalidFrame: it is neither text, nor bytes-like, nor a control frame.
    """
    kind = frame.__class__
    if kind is bytes or (kind is str and frame.isascii()):  # type: ignore[union-attr]
        return frame  # type: ignore[return-value]
    if isinstance(frame, str):
        frame = str(frame)
        size_of(frame)
        return frame
    if isinstance(frame, Ping | Pong | Close | PreparedMessage):
        return frame
    if isinstance(frame, bytes | bytearray | memoryview):
        # A copy: the buffer may change before the writer task gets to it.
        return bytes(frame)
    raise InvalidFrame(
        "a frame is str, bytes-like, PreparedMessage, Ping, Pong or Close, "
        f"not {type(frame).__name__}: {shorten(frame)}"
    )


def urgent_size(frame: OutFrame) -> int:
    """Bytes of a frame that overtakes data, its header included."""
    return 2 + (size_of(frame) if isinstance(frame, Message) else len(frame.to_payload()))


def plain(frame: Message) -> Data:
    """The message as the program gave it."""
    return frame.message if isinstance(frame, PreparedMessage) else frame


def size_of(frame: Message) -> int:
    """Bytes of payload that count against the limit.

    Raises:
        InvalidFrame: text with lone surrogates has no UTF-8.
    """
    if isinstance(frame, str):
        if frame.isascii():
            return len(frame)
        try:
            return len(frame.encode())
        except UnicodeEncodeError as error:
            raise InvalidFrame(f"text that is not valid Unicode: {error}") from None
    return frame.size if isinstance(frame, PreparedMessage) else len(frame)
