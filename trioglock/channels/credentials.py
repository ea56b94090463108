"""Credentials that expire, and the tokens with which clients renew them."""

from __future__ import annotations

import inspect
import logging
import math
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from time import time as wall_clock
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import trio

from .._hints import describe_value
from .._timer import Entry, current_timer
from ..errors import ConnectionClosed, InvalidOption
from .machine import OVERLOADED, TopicJoin

if TYPE_CHECKING:
    from .socket import ChannelsSocket

__all__ = ["Credentials", "ExpiryTimer", "Refresh", "TokenRefresher"]

_logger = logging.getLogger("trioglock.channels")

CHECK_SECONDS = 30.0
"""Maximum number of seconds until a change of the system clock is noticed."""

MAX_TOKEN = 2**14
"""Maximum length of a token. URLs and headers, in which clients also send tokens, are shorter."""

INVALID = {"reason": "invalid access_token"}
UNAUTHORIZED = {"reason": "unauthorized"}
EXPIRED = {"reason": "the credentials have expired"}
OTHER_USER = {"reason": "the access_token belongs to another user"}
FAILED = {"reason": "refresh failed"}


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user whose permission to be connected ends at a certain time.

    Return it from ``connect`` and ``refresh`` in place of the user.

    Args:
        user: the user; None refuses the client.
        expires_at: the Unix time in seconds, such as the ``exp`` claim of a JWT.

    Raises:
        InvalidOption: ``expires_at`` is not a number.
    """

    user: Any
    expires_at: float

    def __post_init__(self) -> None:
        value = self.expires_at
        try:
            is_time = isinstance(value, int | float) and not math.isnan(value)
        except OverflowError:  # an int that no float can contain
            is_time = False
        if isinstance(value, bool) or not is_time:
            raise InvalidOption(
                "expires_at must be a Unix time in seconds, such as time.time() + 3600, not "
                f"{describe_value(value)}"
            )


Refresh: TypeAlias = Callable[[str, Any], Any | Awaitable[Any]]
"""Verifies a token that a client has pushed.

It is called with the token and the current user, and returns the user or :class:`Credentials`, or
None to refuse the token.
"""


def split_credentials(returned: Any) -> tuple[Any, float]:
    """Return the user and the time of expiry, which may be infinity."""
    if isinstance(returned, Credentials):
        return returned.user, returned.expires_at
    return returned, math.inf


def has_expired(expires_at: float) -> bool:
    """Whether a Unix time has passed."""
    return expires_at <= wall_clock()


class ExpiryTimer:
    """Calls a function when credentials expire.

    The system clock, which determines the expiry, may jump, so it is read again from time to time.

    Args:
        expires_at: the Unix time.
        on_expired: the function.
    """

    __slots__ = ("_entry", "_expires_at", "_on_expired")

    is_suspect = False

    def __init__(self, expires_at: float, on_expired: Callable[[], object]) -> None:
        self._expires_at = expires_at
        self._on_expired = on_expired
        self._entry: Entry | None = current_timer().add(self, trio.current_time())

    def check(self, now: float, due: float) -> float:  # noqa: ARG002 - the interface
        """Call the function after the expiry; before it, return when to check next."""
        if has_expired(self._expires_at):
            self.stop()
            self._on_expired()
            return math.inf
        return now + min(self._expires_at - wall_clock(), CHECK_SECONDS)

    def stop(self) -> None:
        """Do not call the function."""
        if self._entry is not None:
            entry, self._entry = self._entry, None
            current_timer().remove(entry)


class _Waiting(NamedTuple):
    join: TopicJoin | None
    ref: str | None
    token: str


class TokenRefresher:
    """Verifies the tokens that one client pushes, one at a time and in a task of the connection.

    A client pushes a new token on each topic that it has joined, so a token that is repeated
    several times in a row is verified only once.

    Args:
        socket: the client.
        refresh: verifies a token.
        identify: returns the id of a user's connections, or None.
        max_waiting: maximum number of tokens that wait.
    """

    __slots__ = ("_accepted", "_identify", "_is_running", "_max", "_refresh", "_socket", "_waiting")

    def __init__(
        self,
        socket: ChannelsSocket,
        refresh: Refresh,
        identify: Callable[[Any], str | None] | None,
        max_waiting: int,
    ) -> None:
        self._socket = socket
        self._refresh = refresh
        self._identify = identify
        self._max = max_waiting
        self._accepted: int | None = None  # the hash, because the token is a secret
        self._waiting: deque[_Waiting] = deque()
        self._is_running = False

    def receive(self, join: TopicJoin | None, ref: str | None, payload: Any) -> None:
        """Schedule the verification of a token and the answer to its push."""
        answer = self._socket.answer_refresh
        token = payload.get("access_token") if isinstance(payload, dict) else None
        if not (isinstance(token, str) and 0 < len(token) <= MAX_TOKEN):
            answer(join, ref, INVALID)
        elif hash(token) == self._accepted and not self._waiting:
            answer(join, ref, None)
        elif len(self._waiting) >= self._max:
            answer(join, ref, OVERLOADED)
        else:
            self._waiting.append(_Waiting(join, ref, token))
            if not self._is_running:
                self._is_running = True
                with suppress(ConnectionClosed):
                    self._socket.connection.start_soon(self._run)

    async def _run(self) -> None:
        previous, error = "", None
        while self._waiting:
            join, ref, token = self._waiting[0]
            if token != previous:
                error = await self._verify(token)
                previous = token
            self._waiting.popleft()
            self._socket.answer_refresh(join, ref, error)
        self._is_running = False

    async def _verify(self, token: str) -> Any:
        """Verify a token and use it; return the response if it is refused."""
        socket = self._socket
        try:
            returned = self._refresh(token, socket.user)
            if inspect.isawaitable(returned):
                returned = await returned
            user, expires_at = split_credentials(returned)
            if user is None:
                return UNAUTHORIZED
            if has_expired(expires_at):
                return EXPIRED
            if self._identify is not None and self._identify(user) != socket.id:
                return OTHER_USER
        except Exception:
            _logger.exception("%s: refresh failed", socket.connection.name)
            return FAILED
        self._accepted = hash(token)
        socket.set_credentials(user, expires_at)
        return None
