"""The dialer: opens the links of a client and decides when to open the next one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import replace
from typing import TypeAlias

import trio

from .._text import seconds_text
from .._timer import PeerTimeout
from ..disconnect import Disconnect, HandshakeFailed
from ..errors import OpenTimeout, ReconnectFailed
from ..headers import HeadersLike
from ..hooks import Reconnect, Stop
from ..options import DialOptions, aim, check_headers
from ..retry import Backoff, retry_after
from ..transports import Link, Transport, check_url
from .sources import resolve

__all__ = ["HEADERS", "Dialer", "HeadersSource", "URLSource"]

HOOKS_ONLY = Backoff(max_attempts=None)
"""The delays if ``handle_disconnect`` returns Reconnect and there is no policy."""

MAX_FAILURES = 1000
"""Maximum number of reasons in ReconnectFailed."""

HEADERS = "a dict or a list of pairs"

URLSource: TypeAlias = str | Callable[[], str | Awaitable[str]]
"""A URL, or a function, plain or async, called before every attempt."""

HeadersSource: TypeAlias = HeadersLike | Callable[[], HeadersLike | Awaitable[HeadersLike]] | None
"""Headers, or a function, plain or async, called before every attempt."""


class Dialer:
    """Opens links to one server, with the delays of a backoff between them.

    Without a backoff it connects again only if ``handle_disconnect`` returns Reconnect.
    """

    __slots__ = (
        "_backoff",
        "_checked_url",
        "_delays",
        "_failures",
        "_headers",
        "_options",
        "_policy",
        "_short_links",
        "_transport",
        "_url",
        "final_error",
    )

    def __init__(
        self,
        transport: Transport,
        options: DialOptions,
        url: URLSource,
        additional_headers: HeadersSource,
        backoff: Backoff | None,
    ) -> None:
        self.final_error: Exception | None = None
        self._transport = transport
        self._options = options
        self._url: URLSource = url
        self._checked_url = url  # connect() has checked it
        self._headers: HeadersSource = additional_headers
        self._backoff = backoff
        self._policy = backoff or HOOKS_ONLY
        self._delays: Iterator[float] | None = None
        self._failures: tuple[Disconnect, ...] = ()
        self._short_links = 0  # among the failures

    async def open(self, nursery: trio.Nursery) -> Link:
        timeout = self._options.open_timeout
        with PeerTimeout(timeout):
            url = await resolve("url", self._url, str, "a str")
            headers = check_headers(
                "additional_headers",
                await resolve("additional_headers", self._headers, Iterable, HEADERS),
            )
            options = aim(self._options, url, headers)
            if url is not self._checked_url:
                check_url(options)
                self._checked_url = url
            return await self._transport.connect(options, nursery)
        assert timeout is not None
        raise OpenTimeout(f"timed out after {seconds_text(timeout)}")

    @property
    def reconnects(self) -> bool:
        return self._backoff is not None

    @property
    def is_endless(self) -> bool:
        return self._backoff is not None and self._backoff.max_attempts is None

    def retries(self, reason: Disconnect) -> bool:
        return self._backoff is not None and self._backoff.retryable(reason)

    def next_delay(
        self,
        reason: Disconnect,
        decision: Reconnect | Stop | None,
        lasted: float,
        *,
        immediate: bool,
    ) -> float | None:
        if lasted >= self._policy.stable_after:
            self._delays = None
            self._failures = ()
            self._short_links = 0
        elif not (immediate or isinstance(reason, HandshakeFailed)):
            self._short_links += 1
        if isinstance(decision, Reconnect):
            self._apply(decision)
        if immediate and not isinstance(decision, Stop):
            return 0.0
        self._failures = (*self._failures, reason)[-MAX_FAILURES:]
        if isinstance(decision, Stop):
            return None
        if isinstance(decision, Reconnect):
            if decision.delay is not None:
                return decision.delay
        elif not self.retries(reason):
            return None
        if self._delays is None:
            self._delays = self._policy.delays()
        delay = next(self._delays, None)
        if delay is None and decision is None:
            self.final_error = ReconnectFailed(
                self._failures,
                min(self._short_links, len(self._failures)),
                self._policy.stable_after,
            )
            return None
        maximum = self._policy.maximum
        return maximum if delay is None else max(delay, min(retry_after(reason), maximum))

    def _apply(self, decision: Reconnect) -> None:
        """Change the options for later attempts."""
        self._url = self._url if decision.url is None else decision.url
        if decision.additional_headers is not None:
            self._headers = decision.additional_headers
        changed = {
            name: value
            for name in ("ssl_context", "open_timeout")
            if (value := getattr(decision, name)) is not None
        }
        if changed:
            self._options = replace(self._options, **changed)
            self._checked_url = ""  # the context may not fit the URL
