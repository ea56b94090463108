"""``run()``: for programs that are only hooks."""

from __future__ import annotations

from typing import TypeVar, Unpack

import trio

from ..connection import Connection
from ..disconnect import LocalClose
from ..errors import ConnectionClosedError
from ..hooks import Socket
from .connect import ConnectOptions, connect
from .dialer import URLSource

__all__ = ["run"]

StateT = TypeVar("StateT")


async def run(
    url: URLSource,
    socket: Socket[StateT],
    *,
    task_status: trio.TaskStatus[Connection[StateT]] = trio.TASK_STATUS_IGNORED,
    **options: Unpack[ConnectOptions],
) -> StateT:
    """Connect and let the hooks work until the connection ends.

    What hooks deliver has no reader here and is forgotten. With ``nursery.start`` it gives the
    :class:`Connection` once it is open::

        conn = await nursery.start(run, "wss://example.org/feed", MySocket())

    Args:
        url: as for :func:`connect`.
        socket: as for :func:`connect`.
        task_status: of ``nursery.start``.
        options: the keyword arguments of :func:`connect`.

    Returns:
        The state that the last hook returned.

    Raises:
        ConnectionClosedError: the peer closed with another code than 1000 or 1001, or was lost.
        Exception: as :func:`connect`.
    """
    async with connect(url, socket, **options) as connection:
        task_status.started(connection)
        try:
            async for _ in connection:
                pass
        except ConnectionClosedError as error:
            # Our own close is what the hooks wanted, whatever its code.
            if not isinstance(error.cause, LocalClose):
                raise
        await connection.wait_closed()
    return connection.state
