"""What travels on a WebSocket, as plain values (RFC 6455, section 5).

A whole data message is a ``str`` (text) or ``bytes`` (binary), nothing more. Control frames are
small frozen values. A transport hands up *events*: runs of whole messages in a row, the control
frames between them, and at most one :class:`Violation` at the end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

__all__ = [
    "MAX_CONTROL_PAYLOAD",
    "NO_STATUS",
    "BytesLike",
    "Close",
    "Data",
    "Event",
    "Frame",
    "Ping",
    "Pong",
    "PreparedMessage",
    "Run",
    "Violation",
]

MAX_CONTROL_PAYLOAD = 125
"""The most bytes a control frame may carry (RFC 6455, section 5.5)."""

NO_STATUS = 1005
"""Stands for a Close frame without a code (RFC 6455, section 7.4.1); never on the wire."""

BytesLike: TypeAlias = bytes | bytearray | memoryview
"""Binary, as it may be given."""

Data: TypeAlias = str | bytes
"""A whole data message: text or binary."""

Run: TypeAlias = list[Data]
"""Whole data messages, in the order in which they came."""


@dataclass(frozen=True, slots=True)
class Ping:
    """A ping (RFC 6455, section 5.5.2). The answering pong is always sent for you.

    Raises:
        ValueError: the payload is longer than 125 bytes.
    """

    payload: bytes = b""

    def __post_init__(self) -> None:
        _check_control_payload(self.payload)

    def to_payload(self) -> bytes:
        """The bytes of the frame's payload."""
        return self.payload


@dataclass(frozen=True, slots=True)
class Pong:
    """A pong, solicited or not (RFC 6455, section 5.5.3).

    Raises:
        ValueError: the payload is longer than 125 bytes.
    """

    payload: bytes = b""

    def __post_init__(self) -> None:
        _check_control_payload(self.payload)

    def to_payload(self) -> bytes:
        """The bytes of the frame's payload."""
        return self.payload


@dataclass(frozen=True, slots=True)
class Close:
    """A Close frame (RFC 6455, section 5.5.1); returned by a hook, it starts the closing handshake.

    Args:
        code: 1000 to 1003, 1007 to 1014 or 3000 to 4999; 1005 stands for a frame without a code.
        reason: at most 123 bytes of UTF-8; empty when the code is 1005.

    Raises:
        ValueError: such a frame may not be sent.
    """

    code: int = 1000
    reason: str = ""

    def __post_init__(self) -> None:
        code = self.code
        if not isinstance(code, int):
            raise ValueError(f"a close code is an int, not {type(code).__name__}")
        if not isinstance(self.reason, str):
            raise ValueError(f"a close reason is a str, not {type(self.reason).__name__}")
        if code == NO_STATUS:
            if self.reason:
                raise ValueError("a Close frame without a code (1005) carries no reason")
        elif not (1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999):
            raise ValueError(
                f"close code {code} may not be sent; "
                "allowed are 1000-1003, 1007-1014, 3000-4999, and 1005 for none"
            )
        if len(self.reason.encode()) > MAX_CONTROL_PAYLOAD - 2:
            raise ValueError("a close reason is at most 123 bytes of UTF-8")

    def to_payload(self) -> bytes:
        """The bytes of the frame's payload."""
        if self.code == NO_STATUS:
            return b""
        return self.code.to_bytes(2, "big") + self.reason.encode()


@dataclass(frozen=True, slots=True)
class Violation:
    """The peer broke the protocol or a limit; nothing after it is read.

    Args:
        code: the close code that tells the peer (RFC 6455, section 7.4.1): 1002, 1007 or 1009.
        reason: what was wrong, in words.
    """

    code: int
    reason: str


class PreparedMessage:
    """A data message for many connections: encoded once for all, and not compressed for each.

    Args:
        message: ``str`` for text, bytes-like for binary; the content of a mutable buffer is copied.

    Raises:
        ValueError: it is neither, or text that is not valid Unicode.
    """

    __slots__ = ("message", "size", "wire")

    def __init__(self, message: str | BytesLike) -> None:
        if not isinstance(message, str | bytes | bytearray | memoryview):
            raise ValueError(f"a data message is str or bytes-like, not {type(message).__name__}")
        self.message: Data = str(message) if isinstance(message, str) else bytes(message)
        """What was given."""
        self.size: int = len(self.to_payload())
        """Bytes of payload."""
        self.wire: bytes = b""
        """The whole frame, unmasked; made by the first connection that sends it."""

    def __repr__(self) -> str:
        return f"PreparedMessage({self.message!r:.100})"

    def to_payload(self) -> bytes:
        """The bytes of the frame's payload."""
        return self.message if isinstance(self.message, bytes) else self.message.encode()


Frame: TypeAlias = str | BytesLike | PreparedMessage | Ping | Pong | Close
"""What may be sent: text, binary, or a control frame."""

Event: TypeAlias = Run | Ping | Pong | Close | Violation
"""What a transport hands up."""


def _check_control_payload(payload: bytes) -> None:
    if not isinstance(payload, bytes):
        raise ValueError(f"the payload of a control frame is bytes, not {type(payload).__name__}")
    if len(payload) > MAX_CONTROL_PAYLOAD:
        raise ValueError(
            f"the payload of a control frame is at most {MAX_CONTROL_PAYLOAD} bytes, "
            f"not {len(payload)}"
        )
