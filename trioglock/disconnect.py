"""Why a connection ended: the values that ``handle_disconnect`` and ``terminate`` receive.

::

    Disconnect
    ├── RemoteClose         the peer sent a Close frame
    ├── ProtocolViolation   the peer broke the protocol or exceeded a limit, so we closed
    ├── LocalClose          we closed: aclose(), Close(...) from a hook, the end of the block
    ├── ConnectionLost      the network or the peer's process failed without a Close frame
    ├── HeartbeatTimeout    the peer stopped responding, or stopped reading
    ├── HandshakeFailed     the connection never opened
    ├── HookError           a hook or a background task raised
    └── Aborted             abort(), or the surrounding scope was cancelled

``str()`` of a reason describes it in one line.
"""

from __future__ import annotations

from dataclasses import dataclass

from ._redact import redact_line, text_of
from .frames import NO_STATUS

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
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Disconnect:
    """Base of all reasons.

    Args:
        attempt: the number of the upgrade, counted from 1 over the life of the connection.
    """

    attempt: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteClose(Disconnect):
    """The peer closed.

    Args:
        code: of the peer's Close frame; 1005 where it had none (RFC 6455, section 7.4.1).
        reason: its text.
    """

    code: int
    reason: str = ""

    def __str__(self) -> str:
        said = "without a code" if self.code == NO_STATUS else _said(self.code, self.reason)
        return f"closed by the peer: {said}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProtocolViolation(Disconnect):
    """The peer broke the protocol (1002), sent invalid text (1007) or too much (1009).

    Args:
        code: of the Close frame that told it so (RFC 6455, section 7.4.1).
        reason: what was wrong, in words.
    """

    code: int
    reason: str = ""

    def __str__(self) -> str:
        return redact_line(f"closed with {self.code}, for what the peer has sent: {self.reason}")


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalClose(Disconnect):
    """We closed (RFC 6455, section 7.1.2).

    Args:
        code: the code of the Close frame we sent.
        reason: its text.
        clean: whether the peer confirmed before ``close_timeout`` ran out.
    """

    code: int = 1000
    reason: str = ""
    clean: bool = True

    def __str__(self) -> str:
        confirmed = "" if self.clean else "; the peer has not confirmed it"
        return f"closed: {_said(self.code, self.reason)}{confirmed}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionLost(Disconnect):
    """The stream ended or broke without a closing handshake (RFC 6455, section 7.1.5).

    Args:
        error: how it broke; None if it just ended.
    """

    error: BaseException | None = None

    def __str__(self) -> str:
        if self.error is None:
            return "lost: the peer went away without a Close frame"
        return redact_line(f"lost: {text_of(self.error)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class HeartbeatTimeout(Disconnect):
    """Nothing was heard, or nothing could be written, for too long.

    Args:
        silence: seconds that the peer had to show life.
        writing: True when it was our writing that made no progress.
    """

    silence: float
    writing: bool = False

    def __str__(self) -> str:
        did = "read nothing" if self.writing else "was silent"
        return f"lost: the peer {did} for {self.silence:g} seconds"


@dataclass(frozen=True, slots=True, kw_only=True)
class HandshakeFailed(Disconnect):
    """The connection was refused, or could not be reached at all.

    Args:
        error: whose type says why: a :exc:`ConnectError`, or what a function of yours raised.
    """

    error: Exception

    def __str__(self) -> str:
        said = text_of(self.error)
        return redact_line(said if said.startswith("no connection") else f"no connection: {said}")


@dataclass(frozen=True, slots=True, kw_only=True)
class HookError(Disconnect):
    """A hook or a background task raised; the peer was told 1011.

    Args:
        error: what it raised.
    """

    error: BaseException

    def __str__(self) -> str:
        said = f"{type(self.error).__name__}: {text_of(self.error)}".rstrip(": ")
        return redact_line(f"failed: {said}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Aborted(Disconnect):
    """The connection was dropped on the spot, without a closing handshake."""

    def __str__(self) -> str:
        return "dropped without a closing handshake"


def _said(code: int, reason: str) -> str:
    return redact_line(f"{code} {reason}".rstrip())
