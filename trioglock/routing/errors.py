"""What can go wrong with handlers and requests.

::

    TrioglockError
    ├── DuplicateHandler (ValueError)    yours: two handlers for one event
    ├── RequestTimeout (TimeoutError)    theirs: no answer in time
    └── RequestLost                      the network's: the link that was to bring it has ended
"""

from __future__ import annotations

from .._redact import redact_line, safe_repr
from ..disconnect import Disconnect
from ..errors import TrioglockError

__all__ = ["DuplicateHandler", "RequestLost", "RequestTimeout"]


class DuplicateHandler(TrioglockError, ValueError):
    """An event would have two handlers. Your fault: the text names the event and both."""


class RequestTimeout(TrioglockError, TimeoutError):
    """No answer came in time. The peer may have acted all the same.

    Args:
        event: that was sent.
        timeout: seconds that were waited.
    """

    def __init__(self, event: str, timeout: float) -> None:
        super().__init__(event, timeout)
        self.event = event
        self.timeout = timeout

    def __str__(self) -> str:
        return redact_line(f"no answer to {self.event!r} within {self.timeout} seconds")


class RequestLost(TrioglockError):
    """The link ended before the answer came. The peer may have acted all the same.

    Args:
        event: that was sent.
        reason: why the link ended.
    """

    def __init__(self, event: str, reason: Disconnect) -> None:
        super().__init__(event, reason)
        self.event = event
        self.reason = reason

    def __str__(self) -> str:
        why = safe_repr(self.reason)
        return redact_line(f"the connection ended before {self.event!r} was answered: {why}")
