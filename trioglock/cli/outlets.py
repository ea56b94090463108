"""Outlets: the two ways on which ``trioglock publish`` gets a message to a hub."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import trio

from .._redact import printable, redact_text
from ..client import connect
from ..connection import Connection
from ..errors import (
    BrokerError,
    BrokerUnavailable,
    ConnectError,
    ConnectionClosed,
    HandshakeRefused,
)
from ..pubsub import publish
from .live import PUBLISH, is_loopback
from .output import describe_end, describe_failure

__all__ = ["NotPublished", "Outlet", "RedisOutlet", "open_server_outlet"]

CLOSE_TIMEOUT = 2
"""Seconds that a server has to confirm that nothing more will come."""

WORDS = 200
"""Characters of a server's own words that are shown."""


class NotPublished(Exception):
    """A message did not get through; the text says why, in a line, without secrets."""


class Outlet(ABC):
    """Takes messages for the channels of one hub."""

    @abstractmethod
    async def publish(self, channel: str, message: str) -> int | None:
        """Publish.

        Returns:
            How many got it; None where nobody knows.

        Raises:
            NotPublished: it did not get through, or nobody knows whether it did.
        """


class RedisOutlet(Outlet):
    """Publishes at a Redis server, where hubs listen.

    Args:
        url: of the server; it may hold a password.
        name: of the hub.
        history: of the hubs' broker, if they have one.
        timeout: seconds that anything may take.
    """

    def __init__(self, url: str, name: str, history: int | None, timeout: float) -> None:
        self._publish = partial(publish, name=name, url=url, history=history, timeout=timeout)

    async def publish(self, channel: str, message: str) -> None:
        """See :meth:`Outlet.publish`. Redis does not know how many browsers a hub has."""
        job = partial(self._publish, message, channel)
        try:
            await trio.to_thread.run_sync(job, abandon_on_cancel=True)
        except (BrokerUnavailable, BrokerError) as error:
            raise NotPublished(printable(redact_text(str(error)))) from None


class ServerOutlet(Outlet):
    """Publishes at a running ``trioglock serve``, over one connection.

    Args:
        connection: which speaks the subprotocol.
        hub: the name that the server's hub must have; None for any.
        timeout: seconds that an answer may take.
    """

    def __init__(self, connection: Connection[None], hub: str | None, timeout: float) -> None:
        self._connection = connection
        self._hub = hub
        self._timeout = timeout

    async def publish(self, channel: str, message: str) -> int | None:
        """See :meth:`Outlet.publish`."""
        publication = {"channel": channel, "data": message}
        if self._hub is not None:
            publication["hub"] = self._hub
        try:
            with trio.fail_after(self._timeout):
                await self._connection.send(json.dumps(publication, ensure_ascii=False))
                answer = _read(await self._connection.receive())
        except trio.TooSlowError:
            told = f"the server has not answered within {self._timeout:g} seconds"
            raise NotPublished(told) from None
        except ConnectionClosed as error:
            raise NotPublished(printable(describe_end(error))) from None
        if answer.get("published") is not True:
            raise NotPublished(printable(str(answer.get("error", "it does not say why"))[:WORDS]))
        delivered = answer.get("delivered")
        return delivered if isinstance(delivered, int) else None


@asynccontextmanager
async def open_server_outlet(
    url: str, *, host: str, hub: str | None, token: str | None, timeout: float
) -> AsyncIterator[Outlet]:
    """A way to the hub of a running server, for the time of the block.

    Args:
        url: of the server.
        host: in that URL; a loopback address is reached without any proxy.
        hub: the name that its hub must have; None for any.
        token: shown to the server; None for none.
        timeout: seconds that anything may take.

    Raises:
        NotPublished: there is no such way.
    """
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    try:
        async with connect(
            url,
            additional_headers=headers,
            subprotocols=[PUBLISH],
            proxy=None if is_loopback(host) else True,
            max_redirects=0,
            open_timeout=timeout,
            close_timeout=CLOSE_TIMEOUT,
        ) as connection:
            if connection.subprotocol != PUBLISH:
                raise NotPublished(
                    "that server takes no publications: is it 'trioglock serve' with a hub?"
                )
            yield ServerOutlet(connection, hub, timeout)
    except HandshakeRefused as error:
        raise NotPublished(_refusal(error)) from None
    except ConnectError as error:
        raise NotPublished(printable(describe_failure(error))) from None
    except ConnectionClosed as error:
        raise NotPublished(printable(describe_end(error))) from None


def _read(frame: Any) -> dict[str, Any]:
    try:
        answer = json.loads(frame)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        raise NotPublished("the server has answered with something else than trioglock does")
    return answer


def _refusal(error: HandshakeRefused) -> str:
    """In the server's own words, if it has some that are no page."""
    text = error.body.decode(errors="replace").strip()
    if not text or not error.headers.get("Content-Type", "").startswith("text/plain"):
        return printable(describe_failure(error))
    return f"{printable(text[:WORDS])} ({error.status})"
