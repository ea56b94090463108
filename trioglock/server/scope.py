"""The scope of ``async with serve(...)``.

The body's exception comes out as it was raised. Connections never fail the scope, but what is no
Exception, such as KeyboardInterrupt, comes out of it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import trio

from .._scope import is_graceful, open_scope, scope_function
from .bind import OpenListeners
from .server import Server

__all__ = ["running"]


@scope_function("serve(...)")
async def running(
    open_listeners: OpenListeners,
    make: Callable[[Sequence[trio.abc.Listener[Any]]], Server],
) -> AsyncIterator[Server]:
    """Run a server around the body of an ``async with``."""
    server = make(await open_listeners())

    async def finish(body_error: BaseException | None) -> None:
        if body_error is None or is_graceful(body_error):
            server.close()
            await server.wait_closed()

    async with open_scope(finish=finish, message="the body and the server both failed") as nursery:
        nursery.start_soon(server.run)
        yield server
