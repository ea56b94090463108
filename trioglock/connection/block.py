"""The block: what ``async with connect(...)`` promises about exceptions and ends.

* The body's exception comes out as it was raised, whatever happens inside.
* A hook or background task that raises cancels the body, and its exception comes out.
* If both fail for reasons of their own, one group holds both. That the body then met
  ConnectionClosed on this connection is no reason of its own.
* A nursery of ours never shows: no group around a single exception, no bare Cancelled.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TypeVar

import trio

from ..block import block
from ..errors import ConnectionClosed
from ..frames import Close
from ..groups import is_graceful, leaves
from .connection import Connection
from .session import Session

__all__ = ["hold"]

StateT = TypeVar("StateT")


@block("connect(...)")
async def hold(
    session: Session[StateT], connection: Connection[StateT]
) -> AsyncIterator[Connection[StateT]]:
    """Run ``session`` around the body of an ``async with``."""
    body_error: BaseException | None = None
    leaked: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.run, connection, nursery)
            await session.opened.wait()
            if session.open_error is None and not session.failures:
                try:
                    with session.body:
                        yield connection
                except BaseException as error:
                    body_error = error
                await _end(session, body_error)
            else:
                await session.finished.wait()
            nursery.cancel_scope.cancel()
    except BaseException as error:
        leaked = error
    verdict = _verdict(session, body_error, leaked)
    if verdict is not None:
        context = verdict.__context__
        try:
            raise verdict
        finally:
            # As it was raised: without the Cancelled that we are in the middle of, and without a
            # cycle between the exception and this frame.
            verdict.__context__ = context
            del verdict, body_error, leaked, context


async def _end(session: Session[StateT], body_error: BaseException | None) -> None:
    if body_error is None:
        await session.aclose(Close(1000))
    elif is_graceful(body_error):
        await session.aclose(Close(1011, "internal error"))
    else:
        session.abort()


def _verdict(
    session: Session[StateT], body_error: BaseException | None, leaked: BaseException | None
) -> BaseException | None:
    """The one exception that comes out of the block, or None."""
    failures = list(session.failures)
    if failures and _is_consequence(session, body_error):
        body_error = None
    if body_error is not None and body_error not in failures:
        failures.insert(0, body_error)
    failures.extend(error for error in leaves(leaked) if not isinstance(error, trio.Cancelled))
    if session.open_error is not None:
        failures.append(session.open_error)
    real = [error for error in failures if not isinstance(error, trio.Cancelled)]
    if len(real) == 1:
        return real[0]
    if real:
        return BaseExceptionGroup("the body and the connection both failed", real)
    if body_error is not None:
        return body_error
    return next(iter(leaves(leaked)), None)


def _is_consequence(session: Session[StateT], error: BaseException | None) -> bool:
    """Whether the body only met the end of this very connection."""
    return error is not None and all(
        isinstance(leaf, trio.Cancelled)
        or (isinstance(leaf, ConnectionClosed) and leaf.origin is session)
        for leaf in leaves(error)
    )
