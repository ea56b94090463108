"""``run()``: connect for applications that consist only of hooks."""

from __future__ import annotations

from typing import Unpack

import trio

from .._hints import checks_keywords
from .._types import MessageT_co, StateT
from ..connection import Connection
from ..disconnect import LocalClose
from ..errors import ConnectionClosedError
from ..hooks import Socket
from .connect import ConnectOptions, connect
from .dialer import URLSource

__all__ = ["run"]


@checks_keywords("run", ConnectOptions)
async def run(
    url: URLSource,
    socket: Socket[StateT, MessageT_co],
    *,
    task_status: trio.TaskStatus[Connection[StateT, MessageT_co]] = trio.TASK_STATUS_IGNORED,
    **options: Unpack[ConnectOptions[MessageT_co]],
) -> StateT:
    """Connect and run the hooks until the connection ends.

    Delivered messages are discarded. ``nursery.start`` returns the :class:`Connection` once it is
    open::

        conn = await nursery.start(run, "wss://example.org/feed", MySocket())

    Args:
        url: as in :func:`connect`.
        socket: as in :func:`connect`.
        task_status: passed by ``nursery.start``.
        options: the keyword arguments of :func:`connect`.

    Returns:
        The state that the last hook returned.

    Raises:
        ConnectionClosedError: the connection was lost, or the peer closed it with a code other
            than 1000, 1001 and 1005 (no code).
        Exception: as in :func:`connect`.
    """
    async with connect(url, socket, **options) as connection:
        task_status.started(connection)
        try:
            async for _ in connection:
                pass
        except ConnectionClosedError as error:
            # A close requested by a hook is a normal end, regardless of its code.
            if not isinstance(error.cause, LocalClose):
                raise
        await connection.wait_closed()
    return connection.state
