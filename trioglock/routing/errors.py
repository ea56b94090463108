"""Errors of handlers and requests, and the counter of malformed messages.

::

    TrioglockError
    ├── DuplicateHandler (ValueError)    your code: two handlers for one event
    ├── RequestTimeout (TimeoutError)    the peer did not answer in time
    └── RequestLost                      the link ended before the answer arrived
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from .._redact import redact_line, safe_repr, shorten
from ..disconnect import Disconnect
from ..errors import TrioglockError

__all__ = ["DuplicateHandler", "InvalidMessages", "RequestLost", "RequestTimeout"]

_logger = logging.getLogger("trioglock.routing")

LOG_INTERVAL = 1.0
"""Seconds between two log lines, so that a hostile peer cannot fill the disk."""


class DuplicateHandler(TrioglockError, ValueError):
    """Two handlers for one event. The message names the event and both handlers."""


class RequestTimeout(TrioglockError, TimeoutError):
    """No answer arrived in time. The peer may have executed the request nevertheless.

    Args:
        event: the name of the request.
        timeout: the timeout in seconds.
    """

    def __init__(self, event: str, timeout: float) -> None:
        super().__init__(event, timeout)
        self.event = event
        self.timeout = timeout

    def __str__(self) -> str:
        return redact_line(f"no answer to {self.event!r} within {self.timeout} seconds")


class RequestLost(TrioglockError):
    """The link ended before the answer arrived. The peer may have executed the request.

    Args:
        event: the name of the request.
        reason: why the link ended.
    """

    def __init__(self, event: str, reason: Disconnect) -> None:
        super().__init__(event, reason)
        self.event = event
        self.reason = reason

    def __str__(self) -> str:
        why = safe_repr(self.reason)
        return redact_line(f"the connection ended before {self.event!r} was answered: {why}")


class InvalidMessages:
    """Counts malformed messages and logs at most one per second.

    Args:
        clock: returns monotonic seconds; replaced in tests.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.count: int = 0
        """The number of malformed messages so far."""
        self._clock = clock
        self._logged = 0
        self._next_line = float("-inf")

    def note(self, error: Exception, frame: object) -> None:
        """Count a malformed message, and log it unless another one was logged just before.

        Args:
            error: the problem with the message.
            frame: the message as received.
        """
        self.count += 1
        now = self._clock()
        if now < self._next_line:
            return
        self._next_line = now + LOG_INTERVAL
        unlogged = self.count - self._logged - 1
        self._logged = self.count
        more = f" ({unlogged} more since the last line)" if unlogged else ""
        text = redact_line(f"{type(error).__name__}: {error}")[:200]
        _logger.warning("invalid message%s: %s: %s", more, text, shorten(frame))
