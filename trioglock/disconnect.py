"""Why a connection ended: the values that ``handle_disconnect`` and ``terminate`` receive.

::

    Disconnect
    ├── RemoteClose         the peer sent a Close frame
    ├── ProtocolViolation   the peer violated the protocol or exceeded a limit; this side closed
    ├── LocalClose          this side closed: aclose(), Close(...) from a hook, the end of the block
    ├── ConnectionLost      the network or the peer's process failed without a Close frame
    ├── HeartbeatTimeout    the peer stopped responding, or stopped reading
    ├── Stalled             the peer is alive, but sent no data for too long
    ├── HandshakeFailed     the connection never opened
    ├── HookError           a hook or a background task raised an exception
    └── Aborted             abort(), or the surrounding scope was cancelled

``str(reason)`` is a one-line description.
"""

from __future__ import annotations

from dataclasses import dataclass

from ._redact import redact_line, safe_str
from .close_codes import NO_STATUS, TOO_LARGE

__all__ = [
    "Aborted",
    "ConnectionLost",
    "Disconnect",
    "HandshakeFailed",
    "HeartbeatTimeout",
    "HookError",
    "LocalClose",
    "ProtocolViolation",
    "RemoteClose",
    "Stalled",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Disconnect:
    """The base class of all reasons.

    Args:
        attempt: the number of the attempt to connect, counted from 1.
    """

    attempt: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteClose(Disconnect):
    """The peer sent a Close frame.

    Args:
        code: the code of the frame, or 1005 if it had none (RFC 6455, section 7.4.1).
        reason: the reason of the frame.
    """

    code: int
    reason: str = ""

    def __str__(self) -> str:
        if self.code == NO_STATUS:
            return "closed by the peer without a code"
        return redact_line(f"closed by the peer: {self.code} {self.reason}".rstrip())


@dataclass(frozen=True, slots=True, kw_only=True)
class ProtocolViolation(Disconnect):
    """The peer violated the protocol (1002, 1007) or exceeded a limit (1008, 1009).

    Args:
        code: the code of the Close frame that this side sent (RFC 6455, section 7.4.1).
        reason: a description of the violation.
    """

    code: int
    reason: str = ""

    def __str__(self) -> str:
        what = "limit exceeded" if self.code == TOO_LARGE else "protocol violation"
        return redact_line(f"{what} by the peer: {self.code} {self.reason}".rstrip())


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalClose(Disconnect):
    """This side sent a Close frame (RFC 6455, section 7.1.2).

    Args:
        code: the code of the frame.
        reason: the reason of the frame.
        clean: whether the peer answered it within ``close_timeout``.
    """

    code: int = 1000
    reason: str = ""
    clean: bool = True

    def __str__(self) -> str:
        answered = "" if self.clean else "; the peer did not answer"
        return redact_line(f"closed: {self.code} {self.reason}".rstrip()) + answered


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionLost(Disconnect):
    """The stream ended or broke without a closing handshake (RFC 6455, section 7.1.5).

    Args:
        error: the error that broke the stream, or None if the stream ended.
    """

    error: BaseException | None = None

    def __str__(self) -> str:
        if self.error is None:
            return "connection lost: the stream ended without a Close frame"
        return redact_line(f"connection lost: {safe_str(self.error)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class HeartbeatTimeout(Disconnect):
    """The peer sent nothing, or read nothing, for too long.

    Args:
        silence: the timeout in seconds.
        writing: True if the peer read nothing, so that writing made no progress.
    """

    silence: float
    writing: bool = False

    def __str__(self) -> str:
        verb = "read" if self.writing else "sent"
        unit = "second" if self.silence == 1 else "seconds"
        return f"connection lost: the peer {verb} nothing for {self.silence:g} {unit}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stalled(Disconnect):
    """The peer sent no data for too long, although it may answer pings; see ``stall_timeout``.

    Args:
        seconds: the timeout in seconds.
    """

    seconds: float

    def __str__(self) -> str:
        unit = "second" if self.seconds == 1 else "seconds"
        return f"stalled: the peer sent no data for {self.seconds:g} {unit}"


@dataclass(frozen=True, slots=True, kw_only=True)
class HandshakeFailed(Disconnect):
    """The client could not connect, or the server refused the connection.

    Args:
        error: a :exc:`ConnectError`, or an exception raised by your function for the URL or the
            headers.
    """

    error: Exception

    def __str__(self) -> str:
        error = self.error
        is_clear = isinstance(error, OSError) or type(error).__module__.startswith("trioglock.")
        text = safe_str(error) if is_clear else _name_and_text(error)
        return redact_line(f"could not connect: {text}")


@dataclass(frozen=True, slots=True, kw_only=True)
class HookError(Disconnect):
    """A hook or a background task raised an exception; the connection closed with 1011.

    Args:
        error: the exception.
    """

    error: BaseException

    def __str__(self) -> str:
        return redact_line(f"a hook or task failed: {_name_and_text(self.error)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Aborted(Disconnect):
    """The connection was aborted, without a closing handshake."""

    def __str__(self) -> str:
        return "aborted without a closing handshake"


def _name_and_text(error: BaseException) -> str:
    return f"{type(error).__name__}: {safe_str(error)}".rstrip(": ")
