"""Outgoing frames: how they are checked, and their sizes in the send queue."""

from __future__ import annotations

from .._redact import shorten
from ..errors import InvalidFrame
from ..frames import Close, Data, Frame, Ping, Pong, PreparedMessage

__all__ = ["QueuedFrame", "QueuedMessage", "checked_frame", "plain", "size_of", "urgent_size"]

QueuedMessage = Data | PreparedMessage
QueuedFrame = QueuedMessage | Ping | Pong | Close


def checked_frame(frame: Frame) -> QueuedFrame:
    """Return the frame to queue; the content of a mutable buffer is copied.

    Raises:
        InvalidFrame: ``frame`` is not text, bytes-like or a control frame.
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
        # The buffer may change before it is written.
        return bytes(frame)
    raise InvalidFrame(
        "a frame must be str, bytes-like, PreparedMessage, Ping, Pong or Close, "
        f"not {type(frame).__name__}: {shorten(frame)}"
    )


def urgent_size(frame: QueuedFrame) -> int:
    """The size of a frame that is sent before data, in bytes with its header."""
    return 2 + (size_of(frame) if isinstance(frame, QueuedMessage) else len(frame.to_payload()))


def plain(frame: QueuedMessage) -> Data:
    """The plain message of a frame."""
    return frame.message if isinstance(frame, PreparedMessage) else frame


def size_of(frame: QueuedMessage) -> int:
    """The size of the payload in bytes.

    Raises:
        InvalidFrame: the text contains lone surrogates, which UTF-8 cannot encode.
    """
    if isinstance(frame, str):
        if frame.isascii():
            return len(frame)
        try:
            return len(frame.encode())
        except UnicodeEncodeError as error:
            raise InvalidFrame(f"the text is not valid Unicode: {error}") from None
    return frame.size if isinstance(frame, PreparedMessage) else len(frame)
