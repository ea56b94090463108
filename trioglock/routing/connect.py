"""``connect()``: an evented connection for the time of an ``async with`` block."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeVar, Unpack, overload

from ..client import ConnectOptions
from ..client import connect as client_connect
from ..client.dialer import URLSource
from ..connection import Connection
from ..errors import InvalidOption
from .connection import EventConnection
from .router import Router
from .socket import EventSocket

__all__ = ["connect"]

StateT = TypeVar("StateT")


@overload
def connect(
    url: URLSource, socket: EventSocket[StateT], **options: Unpack[ConnectOptions]
) -> AbstractAsyncContextManager[EventConnection[StateT]]: ...


@overload
def connect(
    url: URLSource, socket: Router | None = None, **options: Unpack[ConnectOptions]
) -> AbstractAsyncContextManager[EventConnection[Any]]: ...


def connect(
    url: URLSource,
    socket: EventSocket[Any] | Router | None = None,
    **options: Unpack[ConnectOptions],
) -> AbstractAsyncContextManager[EventConnection[Any]]:
    """Connect as :func:`trioglock.connect` does, to speak in events.

    ::

        async with routing.connect("wss://example.org/socket", router) as conn:
            answer = await conn.request("games/status", {"game": "ExVenture"})

    Args:
        url: as in :func:`trioglock.connect`.
        socket: an :class:`EventSocket`, or a router to make one of. By default every event that
            answers no request is handed to whoever iterates the connection.
        options: as in :func:`trioglock.connect`.

    Returns:
        An async context manager that gives the :class:`EventConnection`.

    Raises:
        InvalidURL, InvalidOption, ConnectError: as in :func:`trioglock.connect`.
    """
    if socket is None or isinstance(socket, Router):
        socket = EventSocket(socket)
    if not isinstance(socket, EventSocket):
        raise InvalidOption(f"socket is an EventSocket or a Router, not {socket!r}")
    return _hold(client_connect(url, socket, **options), socket)


@asynccontextmanager
async def _hold(
    block: AbstractAsyncContextManager[Connection[StateT]], socket: EventSocket[StateT]
) -> AsyncIterator[EventConnection[StateT]]:
    async with block as connection:
        yield EventConnection(connection, socket)
