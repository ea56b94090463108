"""When to try again: the policy of reconnecting and of supervision, as plain values.

Nothing here waits or knows a network. :meth:`Backoff.delays` is a pure generator, and
:func:`is_transient` a function of a reason that you may replace.
"""

from __future__ import annotations

import email.utils
import math
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from .disconnect import (
    ConnectionLost,
    Disconnect,
    HandshakeFailed,
    HeartbeatTimeout,
    ProtocolViolation,
    RemoteClose,
)
from .errors import (
    ConnectFailed,
    HandshakeRefused,
    InvalidOption,
    OpenTimeout,
    ProxyFailed,
    RedirectFailed,
)
from .options import check_seconds, check_whole

__all__ = ["Backoff", "is_transient", "retry_after"]

_TRANSIENT_4XX = frozenset({408, 425, 429})


def is_transient(reason: Disconnect) -> bool:
    """Whether trying again may help: the default of :class:`Backoff`.

    Final are: a remote close with 1000, our own close, ``abort()``, a hook that raised; refusals
    with a 4xx status other than 408, 425 and 429; TLS failures, redirects that may not be
    followed, an answer that is no WebSocket handshake, and what your own functions raise, unless
    that is an OSError.

    Args:
        reason: why the connection ended, or did not come about.
    """
    match reason:
        case RemoteClose(code=code):
            return code != 1000
        case ConnectionLost() | HeartbeatTimeout() | ProtocolViolation():
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
    """How often and how fast to try again; ``reconnect=True`` means ``Backoff()``.

    Args:
        initial: seconds before the second attempt, at the most.
        maximum: seconds that no delay exceeds.
        multiplier: how much longer each delay is than the one before.
        jitter: ``"full"`` draws each delay between 0 and its full length, so that many clients
            do not come back at the same time; ``"none"`` takes the full length.
        max_attempts: attempts in a row without a stable connection; None for any number.
        stable_after: seconds that a connection must last to begin anew: a server that accepts
            and closes at once cannot cause a storm.
        retryable: whether a reason is worth another attempt, by default :func:`is_transient`.

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
            raise InvalidOption(f"multiplier is a number of at least 1, not {self.multiplier!r}")
        check_whole("max_attempts", self.max_attempts, least=1)
        if self.jitter not in ("full", "none"):
            raise InvalidOption(f"jitter is 'full' or 'none', not {self.jitter!r}")
        if not callable(self.retryable):
            raise InvalidOption(f"retryable is a function, not {self.retryable!r}")

    def delays(self, rng: random.Random | None = None) -> Iterator[float]:
        """Seconds to wait before the second attempt, the third, and so on; ends at the last.

        Args:
            rng: the source of the jitter, for tests.
        """
        draw = (rng or random).uniform
        length = self.initial
        attempt = 1
        while self.max_attempts is None or attempt < self.max_attempts:
            length = min(length, self.maximum)
            yield draw(0, length) if self.jitter == "full" else length
            length *= self.multiplier
            attempt += 1


def retry_after(reason: Disconnect, now: float | None = None) -> float:
    """Seconds that a refusal asks us to wait (RFC 9110, section 10.2.3); 0 if it does not.

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
