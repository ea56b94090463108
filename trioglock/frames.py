"""Messages and control frames as plain values (RFC 6455, section 5).

A data message is a ``str`` (text) or ``bytes`` (binary). Control frames are frozen dataclasses.
Transports produce *events*: an event is a list of consecutive messages, a fragment of a message, a
control frame, or a :class:`Violation`, which is the last event.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from ._text import as_text
from ._types import DecodedT_co
from .close_codes import NO_STATUS, is_sendable

__all__ = [
    "MAX_CONTROL_PAYLOAD",
    "BytesLike",
    "Close",
    "Codec",
    "Data",
    "Event",
    "Fragment",
    "Frame",
    "Ping",
    "Pong",
    "PreparedMessage",
    "Run",
    "Violation",
]

MAX_CONTROL_PAYLOAD = 125
"""Maximum payload of a control frame in bytes (RFC 6455, section 5.5)."""

BytesLike: TypeAlias = bytes | bytearray | memoryview
"""Binary data to send."""

Data: TypeAlias = str | bytes
"""A data message: text or binary."""

Run: TypeAlias = list[Data]
"""Consecutive data messages, in order."""


class Codec(Protocol[DecodedT_co]):
    """Encodes messages as frames and decodes frames into messages.

    Any object with these two methods is a codec. ``decode`` may raise any ValueError for a
    malformed frame; the codecs of this package raise :class:`~trioglock.errors.DecodeError`, a
    subclass of ValueError.
    """

    def encode(self, message: Any, /) -> Data:
        """Return the frame for a message: ``str`` for a text frame, ``bytes`` for a binary one.

        Raises:
            EncodeError: the format cannot express the message.
        """

    def decode(self, frame: Data, /) -> DecodedT_co:
        """Return the message in a frame.

        Raises:
            DecodeError: the frame is malformed or of the wrong type.
        """


@dataclass(frozen=True, slots=True)
class Ping:
    """A ping frame (RFC 6455, section 5.5.2). Received pings are answered automatically.

    Raises:
        ValueError: the payload is longer than 125 bytes.
    """

    payload: bytes = b""

    def __post_init__(self) -> None:
        _check_control_payload(self.payload)

    def to_payload(self) -> bytes:
        """Encode the payload."""
        return self.payload


@dataclass(frozen=True, slots=True)
class Pong:
    """A pong frame, solicited or unsolicited (RFC 6455, section 5.5.3).

    Raises:
        ValueError: the payload is longer than 125 bytes.
    """

    payload: bytes = b""

    def __post_init__(self) -> None:
        _check_control_payload(self.payload)

    def to_payload(self) -> bytes:
        """Encode the payload."""
        return self.payload


@dataclass(frozen=True, slots=True)
class Close:
    """A Close frame (RFC 6455, section 5.5.1). A hook returns it to start the closing handshake.

    Args:
        code: 1000 to 1003, 1007 to 1014 or 3000 to 4999; 1005 means a frame without a code.
        reason: at most 123 bytes of UTF-8; empty if the code is 1005.

    Raises:
        ValueError: the code or the reason is invalid.
    """

    code: int = 1000
    reason: str = ""

    def __post_init__(self) -> None:
        code = self.code
        if not isinstance(code, int):
            raise ValueError(f"a close code must be an int, not {type(code).__name__}")
        if not isinstance(self.reason, str):
            raise ValueError(f"a close reason must be a str, not {type(self.reason).__name__}")
        object.__setattr__(self, "code", int(code))
        object.__setattr__(self, "reason", as_text(self.reason))
        if code == NO_STATUS:
            if self.reason:
                raise ValueError("a Close frame without a code (1005) cannot have a reason")
        elif not is_sendable(code):
            raise ValueError(
                f"close code {code} cannot be sent; "
                "use 1000-1003, 1007-1014, 3000-4999, or 1005 for no code"
            )
        if len(self.reason.encode()) > MAX_CONTROL_PAYLOAD - 2:
            raise ValueError("a close reason must be at most 123 bytes of UTF-8")

    def to_payload(self) -> bytes:
        """Encode the payload."""
        if self.code == NO_STATUS:
            return b""
        return self.code.to_bytes(2, "big") + self.reason.encode()


@dataclass(frozen=True, slots=True)
class Violation:
    """The peer violated the protocol or exceeded a limit; nothing after it is read.

    Args:
        code: the close code to send (RFC 6455, section 7.4.1): 1002, 1007, 1008 or 1009.
        reason: a description of the violation.
    """

    code: int
    reason: str


def too_large(max_size: int) -> str:
    """Return the reason of the :class:`Violation` for a message larger than ``max_size`` bytes."""
    return f"a message is larger than max_size ({max_size} bytes)"


class PreparedMessage:
    """A data message for many connections, encoded once.

    A server also compresses it, at most once for each combination of a negotiated window size (RFC
    7692) and a :class:`Deflate`, and not at all if compression would save little. Clients send it
    without compression.

    Args:
        message: ``str`` for text, bytes-like for binary; the content of a mutable buffer is copied.
        compress: False never compresses the message. Use it for data that is already compressed, or
            that contains both a secret and data that others control.

    Raises:
        ValueError: ``message`` is neither text nor bytes-like, or is not valid Unicode.
    """

    __slots__ = ("compress", "compressed", "message", "size", "wire")

    def __init__(self, message: str | BytesLike, *, compress: bool = True) -> None:
        if not isinstance(message, str | bytes | bytearray | memoryview):
            raise ValueError(
                f"a data message must be str or bytes-like, not {type(message).__name__}"
            )
        self.message: Data = as_text(message) if isinstance(message, str) else bytes(message)
        """The message."""
        self.size: int = len(self.to_payload())
        """The size of the payload in bytes."""
        self.compress: bool = compress
        """Whether it may be compressed."""
        self.wire: bytes = b""
        """The unmasked frame, set by the first connection that sends it."""
        self.compressed: dict[int, bytes] = {}
        """The unmasked, compressed frame for each combination of window size and settings; b"" if
        compression would save too little. Set like :attr:`wire`."""

    def __repr__(self) -> str:
        return f"PreparedMessage({self.message!r:.100})"

    def to_payload(self) -> bytes:
        """Encode the payload."""
        return self.message if isinstance(self.message, bytes) else self.message.encode()


@dataclass(frozen=True, slots=True)
class Fragment:
    """A part of a data message (RFC 6455, section 5.4).

    Links write the fragments of a message in order and without other messages in between. With
    ``fragments=True``, a link returns every message as fragments.

    Args:
        data: ``str`` for text, split between characters, or ``bytes``; may be empty.
        first: whether the message begins here.
        final: whether the message ends here.
    """

    data: Data
    first: bool
    final: bool

    @property
    def size(self) -> int:
        """The size of the payload in bytes."""
        data = self.data
        return len(data if isinstance(data, bytes) or data.isascii() else data.encode())

    def to_payload(self) -> bytes:
        """Encode the payload."""
        return self.data if isinstance(self.data, bytes) else self.data.encode()


Frame: TypeAlias = str | BytesLike | PreparedMessage | Fragment | Ping | Pong | Close
"""A frame to send: text, binary or a control frame. Only links accept a :class:`Fragment`."""

Event: TypeAlias = Run | Fragment | Ping | Pong | Close | Violation
"""An event of a transport."""


def _check_control_payload(payload: bytes) -> None:
    if not isinstance(payload, bytes):
        raise ValueError(
            f"the payload of a control frame must be bytes, not {type(payload).__name__}"
        )
    if len(payload) > MAX_CONTROL_PAYLOAD:
        raise ValueError(
            f"the payload of a control frame must be at most {MAX_CONTROL_PAYLOAD} bytes, "
            f"not {len(payload)}"
        )
