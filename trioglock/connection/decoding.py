"""Decodes received messages with the codec of a connection, and counts malformed ones."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from .._redact import redact_line, shorten
from ..errors import DecodeError
from ..frames import Codec, Data

__all__ = ["MALFORMED", "InvalidMessages", "decode", "malformed"]

_logger = logging.getLogger("trioglock.connection")

MALFORMED = (ValueError, LookupError, TypeError, AttributeError, RecursionError)
"""The exceptions that indicate a malformed message if a codec, or a function of a decoded message,
raises them."""

LOG_INTERVAL = 1.0
"""Seconds between two log lines, so that a hostile peer cannot fill the disk."""


def decode(codec: Codec[Any], frame: Data) -> Any:
    """Decode one message.

    Raises:
        DecodeError: the message is malformed.
        Exception: any other exception, which is an error in the codec.
    """
    try:
        return codec.decode(frame)
    except DecodeError:
        raise
    except MALFORMED as error:
        raise malformed(error) from error


def malformed(error: Exception) -> DecodeError:
    """Return the exception for a message that the codec cannot decode.

    Args:
        error: raised by the codec; one of :data:`MALFORMED`.
    """
    if isinstance(error, DecodeError):
        return error
    invalid = DecodeError(f"invalid message: {error!r:.200}")
    invalid.__cause__ = error
    return invalid


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

    def __repr__(self) -> str:
        return f"<InvalidMessages: {self.count}>"

    def note(self, error: Exception, frame: object, *, log: bool = True) -> None:
        """Count a malformed message, and log it unless another one was logged just before.

        Args:
            error: the problem with the message.
            frame: the message as received.
            log: whether to log it at all.
        """
        self.count += 1
        if not log:
            return
        now = self._clock()
        if now < self._next_line:
            return
        self._next_line = now + LOG_INTERVAL
        unlogged = self.count - self._logged - 1
        self._logged = self.count
        more = f" ({unlogged} more since the last line)" if unlogged else ""
        text = redact_line(f"{type(error).__name__}: {error}")[:200]
        _logger.warning("invalid message%s: %s: %s", more, text, shorten(frame))
