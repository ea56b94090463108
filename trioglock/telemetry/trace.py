"""The trace: a log line for each event of one connection, in the wording of WebSockex.

The logger is ``trioglock.trace``, and the level is DEBUG. Each line starts with the name and number
of the connection; the ``event`` attribute of the log record is the event. If no handler is
configured, lines are written to stderr, in color if it is a terminal and ``NO_COLOR`` is not set.
Secrets are hidden and long values are shortened. :func:`_format_event` contains the wording of all
lines.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import suppress

from .._redact import printable, redact_line, safe_repr, safe_str, shorten
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
    StallDetected,
)

__all__ = ["ColorFormatter", "prepare_logging", "write"]

_logger = logging.getLogger("trioglock.trace")
_problems = logging.getLogger("trioglock.telemetry")

_RED, _GREEN, _YELLOW, _BLUE, _MAGENTA, _CYAN = range(31, 37)
_COLORS: dict[type, int] = {
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
    StallDetected: _RED,
    LinkClosed: _RED,
}


# Frequent events; shorten() has already redacted their frames and messages.
_FRAME_KINDS = (FrameSent, FrameReceived, HookReplied, MessageDropped)


def write(event: Event) -> bool:
    """Log the lines of one event; return False if a logging handler or filter failed."""
    try:
        for line in _format_event(event):
            text = printable(line) if isinstance(event, _FRAME_KINDS) else redact_line(line)
            name = printable(str(event.connection))
            _logger.debug("%s %s", name, text, extra={"event": event})
    except Exception:  # noqa: BLE001 - raised by handlers, filters and formatters
        with suppress(Exception):  # the same handler may raise again
            _problems.exception("the trace of %s failed and was stopped", event.connection)
        return False
    return True


def _format_event(event: Event) -> Iterator[str]:  # noqa: C901 - a table
    match event:
        case ConnectStarted():
            yield "attempting to connect"
        case Connected():
            yield "successfully connected"
        case ConnectAttemptFailed(error=error):
            yield f"failed to connect: {safe_str(error)}"
        case FrameSent(frame=Close() as close):
            yield f"sending close frame: {_format_close(close)}"
        case FrameSent(frame=Pong()):
            pass  # already shown as a reply
        case FrameSent(frame=frame):
            yield f"sending frame: {shorten(frame)}"
        case FrameReceived(frame=Close() as close):
            yield f"received close frame: {_format_close(close)}"
        case FrameReceived(frame=frame):
            yield f"received frame: {shorten(frame)}"
        case HookReplied(hook=hook, frames=frames):
            for frame in frames:
                what = "pong" if isinstance(frame, Pong) else shorten(frame)
                yield f"replying from {hook} with {what}"
        case HookFailed(hook=hook, error=error):
            yield f"{hook or 'a task'} raised {safe_repr(error)}"
        case CloseStarted(side=side, code=code, reason=reason):
            yield f"closing with {side} reason: {code} {reason}".rstrip()
        case BackpressureStarted(waiting="reader", queue=queue):
            yield f"reading paused: {queue} is full"
        case BackpressureStarted(queue=queue):
            yield f"send waiting: {queue} is full"
        case BackpressureEnded(waiting=waiting, seconds=seconds):
            what = "reading" if waiting == "reader" else "send"
            yield f"{what} resumed after {seconds:.3g} seconds"
        case MessageDropped(message=message):
            yield f"dropped message: {shorten(message)}"
        case HeartbeatMissed(silence=silence, writing=writing):
            verb = "read" if writing else "sent"
            yield f"heartbeat timeout: the peer {verb} nothing for {silence:.3g} seconds"
        case StallDetected(seconds=seconds):
            yield f"stalled: the peer sent no data for {seconds:.3g} seconds"
        case LinkClosed(forced=True):
            yield "forcefully closed the connection because the peer took too long"
        case LinkClosed(reason=ConnectionLost(error=error)):
            cause = "" if error is None else f": {safe_str(error)}"
            yield f"connection lost{cause}"
        case ReconnectScheduled(delay=delay):
            yield f"reconnecting in {delay:.3g} seconds"


def _format_close(close: Close) -> str:
    return redact_line(f"{close.code} {close.reason}".rstrip())


def prepare_logging() -> None:
    """Set the level, and add a handler if logging is not configured."""
    _logger.setLevel(logging.DEBUG)
    if not _logger.hasHandlers():
        handler = logging.StreamHandler()
        if sys.stderr is not None and sys.stderr.isatty() and not os.environ.get("NO_COLOR"):
            handler.setFormatter(ColorFormatter())
        _logger.addHandler(handler)


class ColorFormatter(logging.Formatter):
    """Shows each line in the color of its event."""

    def format(self, record: logging.LogRecord) -> str:
        color = _COLORS.get(type(record.__dict__.get("event")), 0)
        return f"\x1b[{color}m{super().format(record)}\x1b[0m"
