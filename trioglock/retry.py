"""The retry policy for reconnecting and supervision: which failures to retry, and when.

Pure functions: :meth:`Backoff.delays` generates delays without waiting, and :func:`is_transient`
classifies a reason and can be replaced.
"""

from __future__ import annotations

import email.utils
import math
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from ._hints import called_hint
from .disconnect import (
    ConnectionLost,
    Disconnect,
    HandshakeFailed,
    HeartbeatTimeout,
    ProtocolViolation,
    RemoteClose,
    Stalled,
)
from .errors import (
    ConnectFailed,
    HandshakeRefused,
    InvalidOption,
    OpenTimeout,
    ProxyFailed,
    RedirectFailed,
)
from .options import check_choice, check_seconds, check_whole

__all__ = ["Backoff", "is_transient", "retry_after"]

_TRANSIENT_4XX = frozenset({408, 425, 429})


def is_transient(reason: Disconnect) -> bool:
    """Whether another attempt may succeed: the default of ``Backoff.retryable``.

    These reasons are final: a remote close with 1000 (but not one without a code), a local close,
    ``abort()``, an exception raised by a hook, refusals with a 4xx status other than 408, 425 and
    429, TLS failures, redirects that must not be followed, responses that are not a WebSocket
    handshake, and exceptions raised by your own functions, except OSError.

    Args:
        reason: why the connection ended or could not be opened.
    """
    match reason:
        case RemoteClose(code=code):
            return code != 1000
        case ConnectionLost() | HeartbeatTimeout() | Stalled() | ProtocolViolation():
            return True
        case HandshakeFailed(error=RedirectFailed()):
            return False
        case HandshakeFailed(error=HandshakeRefused(status=status)):
            return not 400 <= status < 500 or status in _TRANSIENT_4XX
        case HandshakeFailed(error=ConnectFailed() | OpenTimeout() | ProxyFailed() | OSError()):
            return True
        case _:
            return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """How often and how fast to reconnect; ``reconnect=True`` means ``Backoff()``.

    Args:
        initial: maximum delay before the second attempt, in seconds.
        maximum: upper limit of all delays, in seconds, including those that a server requests with
            Retry-After. Only the ``delay`` of a ``Reconnect`` may be longer.
        multiplier: factor by which the delay grows after each attempt.
        jitter: ``"full"`` draws each delay between 0 and its full length, so that many clients
            do not reconnect at the same time; ``"none"`` uses the full length.
        max_attempts: number of consecutive attempts without a stable connection; None for no
            limit. When a stable connection is lost, that connection counts as the first attempt.
        stable_after: seconds that a connection must last to reset the delay and the number of
            attempts. A server that accepts connections and closes them immediately therefore cannot
            cause rapid attempts.
        retryable: function that decides, given the reason, whether to retry; by default
            :func:`is_transient`.

    Raises:
        InvalidOption: a value is of the wrong type or out of range.
    """

    initial: float = 0.3
    maximum: float = 60
    multiplier: float = 2
    jitter: Literal["full", "none"] = "full"
    max_attempts: int | None = 10
    stable_after: float = 10
    retryable: Callable[[Disconnect], bool] = is_transient

    def __post_init__(self) -> None:
        for name in ("initial", "maximum", "stable_after"):
            check_seconds(name, getattr(self, name), none=False)
        if not isinstance(self.multiplier, int | float) or not self.multiplier >= 1:
            raise InvalidOption(
                f"multiplier must be a number of at least 1, not {self.multiplier!r}"
            )
        check_whole("max_attempts", self.max_attempts, least=1)
        check_choice("jitter", self.jitter, ("full", "none"))
        if not callable(self.retryable):
            hint = called_hint(self.retryable)
            raise InvalidOption(f"retryable must be a function, not {self.retryable!r}{hint}")

    def delays(self, rng: random.Random | None = None) -> Iterator[float]:
        """Generate the seconds to wait before the second attempt, the third, and so on.

        Args:
            rng: the random number generator for the jitter, for tests.
        """
        draw = (rng or random).uniform
        length = self.initial
        attempt = 1
        while self.max_attempts is None or attempt < self.max_attempts:
            length = min(length, self.maximum)
            yield draw(0, length) if self.jitter == "full" else length
            length *= self.multiplier
            attempt += 1


_SHOWN_DELAY = 0.05
"""The shortest delay, in seconds, that is included in a description."""


def describe_delay(delay: float) -> str:
    """Describe when the next attempt follows, for logs and the command line."""
    return "reconnecting now" if delay < _SHOWN_DELAY else f"next attempt in {delay:.1f} s"


def retry_after(reason: Disconnect, now: float | None = None) -> float:
    """Return the delay in seconds from a Retry-After header (RFC 9110, section 10.2.3), or 0.

    Args:
        reason: why the attempt failed.
        now: seconds since the epoch, for tests.
    """
    if not isinstance(reason, HandshakeFailed) or not isinstance(reason.error, HandshakeRefused):
        return 0
    text = reason.error.headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit():
        return min(float(text), 86_400)
    try:
        when = email.utils.parsedate_to_datetime(text).timestamp()
    except (TypeError, ValueError):
        return 0
    wait = when - (time.time() if now is None else now)
    return min(max(0.0, wait), 86_400) if math.isfinite(wait) else 0
