"""The block: what ``async with serve(...)`` promises about exceptions and ends.

* The body's exception comes out as it was raised.
* Connections never fail the block. What is no Exception, such as KeyboardInterrupt, comes out of
  it alone; together with a failure of the body, as one group.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import trio

from ..block import block
from ..groups import is_graceful, leaves
from .bind import OpenListeners
from .server import Server

__all__ = ["running"]


@block("serve(...)")
async def running(
    open_listeners: OpenListeners,
    make: Callable[[Sequence[trio.abc.Listener[Any]]], Server],
) -> AsyncIterator[Server]:
    """Run a server around the body of an ``async with``."""
    server = make(await open_listeners())
    body_error: BaseException | None = None
    errors: list[BaseException] = []
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.run)
            try:
                yield server
            except BaseException as error:
                body_error = error
                errors.append(error)
            if body_error is None or is_graceful(body_error):
                server.close()
                await server.wait_closed()
            nursery.cancel_scope.cancel()
    except BaseException as error:
        errors += leaves(error)
    real = [error for error in errors if not isinstance(error, trio.Cancelled)]
    if len(real) > 1:
        raise BaseExceptionGroup("the body and the server both failed", real)
    verdict = next(iter(real or errors), None)
    if verdict is not None:
        context = verdict.__context__
        try:
            raise verdict
        finally:
            # As it was raised, and without a cycle between the exception and this frame.
            verdict.__context__ = context
            del verdict, body_error, errors, real, context
