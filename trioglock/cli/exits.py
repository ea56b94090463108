"""Exits: how a connection's end is told in words and in an exit code."""

from __future__ import annotations

from ..disconnect import HandshakeFailed, LocalClose, RemoteClose
from ..errors import ConnectionClosed, ReconnectFailed

__all__ = [
    "EXIT_CODES",
    "FAILED",
    "INTERRUPTED",
    "NOT_CONNECTED",
    "OK",
    "code_of_end",
    "words_of_end",
    "words_of_failure",
]

OK = 0
FAILED = 1
NOT_CONNECTED = 3
INTERRUPTED = 130

EXIT_CODES = """\b
Exit codes:
  0    closed in good order: by the peer with 1000 or 1001, or by you
  1    closed by the peer with another code, or lost; a line of a pipe could not be sent
  2    the command line makes no sense
  3    no connection came about: refused, unknown name, TLS, time-out
  130  interrupted by Ctrl-C
"""
"""For the help of commands that hold a connection."""


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
    words = "closed" if error.cause is None else str(error.cause)
    if isinstance(error.__cause__, ReconnectFailed):
        words += f"; gave up after {len(error.__cause__.attempts)} attempts"
    unsent = len(error.unsent)
    return f"{words}; not sent: {unsent} of your messages" if unsent else words


def words_of_failure(error: Exception) -> str:
    """Why no connection came about, in a line."""
    return str(error if isinstance(error, ReconnectFailed) else HandshakeFailed(error=error))
