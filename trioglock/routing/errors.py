"""Errors of handlers and requests.

::

    TrioglockError
    ├── DuplicateHandler (ValueError)    your code: two handlers for one event
    ├── RequestTimeout (TimeoutError)    the peer did not answer in time
    └── RequestLost                      the link ended before the answer arrived
"""

from __future__ import annotations

from .._redact import redact_line, safe_repr
from ..disconnect import Disconnect
from ..errors import TrioglockError

__all__ = ["DuplicateHandler", "RequestLost", "RequestTimeout"]


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
