"""The trace: what one connection does, a line for each step, as WebSockex prints it.

Lines go through :mod:`logging` to the logger ``trioglock.trace`` at level DEBUG, name and number of
the connection first; the event is the record's ``event``. Without a handler of yours they go to
stderr, in colours if that is a terminal and ``NO_COLOR`` is not set. Secrets are hidden, see
:mod:`trioglock._redact`, and what is long is shortened.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import suppress

from .._redact import printable, redact_line, shorten, shown, text_of
from ..disconnect import ConnectionLost
from ..frames import Close, Pong
from .events import (
    BackpressureEnded,
    BackpressureStarted,
    CloseStarted,
    ConnectAttemptFailed,
    Connected,
    ConnectStarted,
    Event,
    FrameReceived,
    FrameSent,
    HeartbeatMissed,
    HookFailed,
    HookReplied,
    LinkClosed,
    MessageDropped,
    ReconnectScheduled,
)

__all__ = ["prepare_logging", "write"]

_logger = logging.getLogger("trioglock.trace")
_problems = logging.getLogger("trioglock.telemetry")

_RED, _GREEN, _YELLOW, _BLUE, _MAGENTA, _CYAN = range(31, 37)
_COLOURS: dict[type, int] = {
    ConnectStarted: _BLUE,
    Connected: _BLUE,
    ReconnectScheduled: _BLUE,
    FrameSent: _GREEN,
    HookReplied: _GREEN,
    FrameReceived: _CYAN,
    CloseStarted: _YELLOW,
    BackpressureStarted: _MAGENTA,
    BackpressureEnded: _MAGENTA,
    MessageDropped: _MAGENTA,
    ConnectAttemptFailed: _RED,
    HookFailed: _RED,
    HeartbeatMissed: _RED,
    LinkClosed: _RED,
}


# They are many, and what is shown of frames and messages is redacted already.
_OF_FRAMES = (FrameSent, FrameReceived, HookReplied, MessageDropped)


def write(event: Event) -> bool:
    """Write the lines of one event; False if a handler or filter of somebody's raised."""
    try:
        for line in _lines(event):
            what = printable(line) if isinstance(event, _OF_FRAMES) else redact_line(line)
            who = printable(str(event.connection))
            _logger.debug("%s %s", who, what, extra={"event": event})
    except Exception:  # noqa: BLE001 - of handlers, filters and formatters
        with suppress(Exception):  # it may be of the very logger that is asked now
            _problems.exception("a trace cannot be written, and ends: %s", event.connection)
        return False
    return True


def _lines(event: Event) -> Iterator[str]:  # noqa: C901 - a table
    match event:
        case ConnectStarted():
            yield "attempting to connect"
        case Connected():
            yield "successfully connected"
        case ConnectAttemptFailed(error=error):
            yield f"failed to connect: {text_of(error)}"
        case FrameSent(frame=Close() as close):
            yield f"sending close frame: {_said(close)}"
        case FrameSent(frame=Pong()):
            pass  # it was a hook's reply
        case FrameSent(frame=frame):
            yield f"sending frame: {shorten(frame)}"
        case FrameReceived(frame=Close() as close):
            yield f"received close frame: {_said(close)}"
        case FrameReceived(frame=frame):
            yield f"received frame: {shorten(frame)}"
        case HookReplied(hook=hook, frames=frames):
            for frame in frames:
                what = "pong" if isinstance(frame, Pong) else shorten(frame)
                yield f"replying from {hook} with {what}"
        case HookFailed(hook=hook, error=error):
            yield f"{hook or 'a task'} raised {shown(error)}"
        case CloseStarted(side=side, code=code, reason=reason):
            yield f"closing with {side} reason: {code} {reason}".rstrip()
        case BackpressureStarted(waiting="reader", queue=queue):
            yield f"reading stops: the {queue} is full"
        case BackpressureStarted(queue=queue):
            yield f"a send waits: the {queue} is full"
        case BackpressureEnded(waiting=waiting, seconds=seconds):
            what = "reading" if waiting == "reader" else "a send"
            yield f"{what} goes on after {seconds:.3g} seconds"
        case MessageDropped(message=message):
            yield f"dropped a message: {shorten(message)}"
        case HeartbeatMissed(silence=silence, writing=writing):
            what = "could be written" if writing else "was heard"
            yield f"nothing {what} for {silence:.3g} seconds"
        case LinkClosed(forced=True):
            yield "forcefully closed the connection because the peer took too long"
        case LinkClosed(reason=ConnectionLost(error=error)):
            how = "" if error is None else f": {text_of(error)}"
            yield f"lost the connection{how}"
        case ReconnectScheduled(delay=delay):
            yield f"reconnect in {delay:.3g} seconds"


def _said(close: Close) -> str:
    return redact_line(f"{close.code} {close.reason}".rstrip())


def prepare_logging() -> None:
    """Let the lines out, also in a program that has not configured logging."""
    _logger.setLevel(logging.DEBUG)
    if not _logger.hasHandlers():
        handler = logging.StreamHandler()
        if sys.stderr is not None and sys.stderr.isatty() and not os.environ.get("NO_COLOR"):
            handler.setFormatter(_InColours())
        _logger.addHandler(handler)


class _InColours(logging.Formatter):
    """The line in the colour of its event."""

    def format(self, record: logging.LogRecord) -> str:
        """See :meth:`logging.Formatter.format`."""
        colour = _COLOURS.get(type(record.__dict__.get("event")), 0)
        return f"\x1b[{colour}m{super().format(record)}\x1b[0m"
