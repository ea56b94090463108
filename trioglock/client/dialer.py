"""The dialer: a client's way to a link, and to the next one."""

from __future__ import annotations

import inspect
import math
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from typing import TypeAlias, TypeVar

import trio

from ..backoff import Backoff, retry_after
from ..disconnect import Disconnect
from ..errors import OpenTimeout, ReconnectFailed
from ..headers import HeadersLike
from ..hooks import Reconnect, Stop
from ..options import DialOptions, check_headers
from ..transports import Link, Transport, check_url

__all__ = ["Dialer", "HeadersSource", "URLSource"]

T = TypeVar("T")

HOOKS_ONLY = Backoff(max_attempts=None)
"""The delays where there is no policy, and ``handle_disconnect`` returns Reconnect."""

MAX_FAILURES = 1000
"""The most reasons that ReconnectFailed tells."""

URLSource: TypeAlias = str | Callable[[], str | Awaitable[str]]
"""A URL, or a function, plain or async, that is asked before every attempt."""

HeadersSource: TypeAlias = HeadersLike | Callable[[], HeadersLike | Awaitable[HeadersLike]] | None
"""Headers, or a function, plain or async, that is asked before every attempt."""


class Dialer:
    """Opens links to one server and keeps to a backoff between them.

    Args:
        transport: opens links.
        options: how; their URL and headers are placeholders.
        url: where to.
        additional_headers: to send.
        backoff: when to try again; None for never, unless ``handle_disconnect`` says so.
    """

    final_error: Exception | None = None

    def __init__(
        self,
        transport: Transport,
        options: DialOptions,
        url: URLSource,
        additional_headers: HeadersSource,
        backoff: Backoff | None,
    ) -> None:
        self._transport = transport
        self._options = options
        self._url: URLSource = url
        self._headers: HeadersSource = additional_headers
        self._backoff = backoff
        self._delays: Iterator[float] | None = None
        self._failures: list[Disconnect] = []

    def _next_of_policy(self) -> float | None:
        if self._delays is None:
            self._delays = (self._backoff or HOOKS_ONLY).delays()
        return next(self._delays, None)

    async def open(self, nursery: trio.Nursery) -> Link:
        """Dial once; see :meth:`LinkSource.open`."""
        timeout = self._options.open_timeout
        with trio.move_on_after(math.inf if timeout is None else timeout):
            url = await _ask(self._url)
            headers = check_headers("additional_headers", await _ask(self._headers))
            options = replace(self._options, url=url, additional_headers=headers)
            check_url(options)
            return await self._transport.connect(options, nursery)
        raise OpenTimeout(f"timed out after {timeout} seconds")

    def retries(self, reason: Disconnect) -> bool:
        """See :meth:`LinkSource.retries`."""
        return self._backoff is not None and self._backoff.retryable(reason)

    def next_delay(
        self,
        reason: Disconnect,
        decision: Reconnect | Stop | None,
        lasted: float,
        *,
        immediate: bool,
    ) -> float | None:
        """See :meth:`LinkSource.next_delay`."""
        if lasted >= (self._backoff or HOOKS_ONLY).stable_after:
            self._delays = None
            self._failures.clear()
        if isinstance(decision, Reconnect):
            self._url = self._url if decision.url is None else decision.url
            if decision.additional_headers is not None:
                self._headers = decision.additional_headers
        if immediate and not isinstance(decision, Stop):
            return 0.0
        self._failures.append(reason)
        del self._failures[:-MAX_FAILURES]
        if isinstance(decision, Stop):
            return None
        if isinstance(decision, Reconnect):
            return self._delay_of(decision, reason)
        if not self.retries(reason):
            return None
        delay = self._next_of_policy()
        if delay is None:
            self.final_error = ReconnectFailed(self._failures)
            return None
        return max(delay, retry_after(reason))

    def _delay_of(self, decision: Reconnect, reason: Disconnect) -> float:
        if decision.delay is not None:
            return decision.delay
        delay = self._next_of_policy()
        if delay is None:
            delay = (self._backoff or HOOKS_ONLY).maximum
        return max(delay, retry_after(reason))


async def _ask(source: T | Callable[[], T | Awaitable[T]]) -> T:
    if not callable(source):
        return source
    answer = source()
    return await answer if inspect.isawaitable(answer) else answer
