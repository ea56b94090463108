"""The context manager behind ``connect()``: a session around the body of an ``async with``."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from typing import TypeVar

import trio

from .._scope import is_graceful, leaves, open_scope, scope_function
from ..errors import ConnectionClosed
from ..frames import Close
from .connection import Connection
from .session import Session

__all__ = ["open_connection"]

StateT = TypeVar("StateT")


@scope_function("connect(...)")
async def open_connection(
    session: Session[StateT], connection: Connection[StateT]
) -> AsyncIterator[Connection[StateT]]:
    """Run ``session`` around the body; close it at the end of the body."""
    async with open_scope(
        finish=partial(_finish, session),
        failures=session.failures,
        is_consequence=partial(_is_consequence, session),
        message="the body and the connection both failed",
    ) as nursery:
        nursery.start_soon(session.run, connection, nursery)
        await session.opened.wait()
        if session.open_error is not None or session.failures:
            await session.finished.wait()
            if session.open_error is not None:
                raise session.open_error
        else:
            with session.body:
                yield connection


async def _finish(session: Session[StateT], body_error: BaseException | None) -> None:
    if body_error is None:
        await session.aclose(Close(1000))
    elif is_graceful(body_error):
        await session.aclose(Close(1011, "internal error"))
    else:
        session.abort()


def _is_consequence(session: Session[StateT], error: BaseException) -> bool:
    """Whether the body's exception only reports the end of this connection."""
    return all(
        isinstance(leaf, trio.Cancelled)
        or (isinstance(leaf, ConnectionClosed) and leaf.origin is session.close_state)
        for leaf in leaves(error)
    )
