"""Exits: how a connection's end is told in words and in an exit code."""

from __future__ import annotations

import os

from ..errors import ConnectionClosed, GaveUp
from ..groups import leaves
from ..reasons import (
    Aborted,
    Crashed,
    Disconnect,
    HandshakeFailed,
    HeartbeatTimeout,
    LocalClose,
    Lost,
    RemoteClose,
    Violated,
)
from ..redaction import redact_text

__all__ = [
    "EXIT_CODES",
    "FAILED",
    "INTERRUPTED",
    "NOT_CONNECTED",
    "OK",
    "code_of_end",
    "words_of_end",
    "words_of_failure",
    "words_of_reason",
]

OK = 0
FAILED = 1
NOT_CONNECTED = 3
INTERRUPTED = 130

EXIT_CODES = """\b
Exit codes:
  0    closed in good order, with 1000 or 1001
  1    closed with an error or lost; a line of a pipe could not be sent
  2    the command line makes no sense
  3    no connection came about: refused, unknown name, TLS, time-out
  130  interrupted by Ctrl-C
"""
"""For the help of commands that hold a connection."""

_NO_CODE = 1005


def code_of_end(error: ConnectionClosed) -> int:
    """The exit code of a program whose connection has ended like this."""
    match error.cause:
        case LocalClose(clean=True):
            good = True
        case RemoteClose(code=code):
            good = code in (1000, 1001)
        case _:
            good = False
    return OK if good and not error.unsent and error.__cause__ is None else FAILED


def words_of_end(error: ConnectionClosed) -> str:
    """How a connection has ended, in a line."""
    words = words_of_reason(error.cause)
    if isinstance(error.__cause__, GaveUp):
        words += f"; gave up after {len(error.__cause__.attempts)} attempts"
    unsent = len(error.unsent)
    return f"{words}; not sent: {unsent} of your messages" if unsent else words


def words_of_failure(error: BaseException) -> str:
    """Why no connection came about, in a line."""
    if isinstance(error, GaveUp):
        return f"gave up after {len(error.attempts)} attempts; " + words_of_reason(
            error.attempts[-1] if error.attempts else None
        )
    text = redact_text(f"no connection: {error}")
    said = _said_by_the_system(error)
    if said is None or said in text:
        return text
    # trio's words for an address, or several, say less than the system's.
    return f"{text.partition(': all attempts to connect')[0]} ({said})"


def _said_by_the_system(error: BaseException | None) -> str | None:
    """Such as "Connection refused"; the first, if several addresses were tried."""
    while error is not None:
        if isinstance(error, OSError) and error.errno is not None and error.errno > 0:
            return os.strerror(error.errno)
        error = leaves(error.__cause__)[0] if error.__cause__ is not None else None
    return None


def words_of_reason(reason: Disconnect | None) -> str:
    """Why a connection ended, or did not come about, in words of people."""
    match reason:
        case RemoteClose(code=code, reason=text):
            told = "without a code" if code == _NO_CODE else f"{code} {text}".strip()
            return f"closed by the peer: {told}"
        case LocalClose(code=code, reason=text, clean=clean):
            return f"closed: {code} {text}".strip() + (
                "" if clean else "; the peer has not confirmed it"
            )
        case Violated(code=code, reason=text):
            return f"closed with {code}, for what the peer has sent: {text}"
        case Lost(error=None):
            return "lost: the peer went away without a Close frame"
        case Lost(error=error):
            return redact_text(f"lost: {error}")
        case HeartbeatTimeout(silence=silence, writing=writing):
            did = "read nothing" if writing else "was silent"
            return f"lost: the peer {did} for {silence:g} seconds"
        case HandshakeFailed(error=error):
            return words_of_failure(error)
        case Crashed(error=error):
            return redact_text(f"failed: {error}")
        case Aborted():
            return "dropped without a closing handshake"
        case _:
            return "closed"
