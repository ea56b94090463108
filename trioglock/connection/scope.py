"""The context manager behind ``connect()``: a session around the body of an ``async with``."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any

import trio

from .._scope import Scope, is_graceful, leave_nursery, leaves
from .._types import MessageT_co, StateT
from ..errors import ConnectionClosed, UsageError
from ..frames import Close
from .connection import Connection
from .session import Session

__all__ = ["ConnectionScope", "is_end"]


class ConnectionScope(Scope[Connection[StateT, MessageT_co]]):
    """Runs a session around the body, and closes it at the end of the body.

    It is a class because a generator would take 1.5 KB per connection.

    Args:
        session: the session.
        connection: its connection.
    """

    __slots__ = ("_connection", "_manager", "_nursery", "_session")

    _call = "connect(...)"

    def __init__(
        self, session: Session[StateT], connection: Connection[StateT, MessageT_co]
    ) -> None:
        self._session = session
        self._connection = connection
        self._manager: AbstractAsyncContextManager[trio.Nursery] | None = None
        self._nursery: trio.Nursery

    async def _enter(self) -> Connection[StateT, MessageT_co]:
        if self._manager is not None:
            raise UsageError(f"{self._call} can be entered only once")
        session, connection = self._session, self._connection
        session.body = trio.CancelScope()
        self._manager = trio.open_nursery()
        self._nursery = await self._manager.__aenter__()
        try:
            self._nursery.start_soon(session.run, connection, self._nursery, name=_TASK_NAME)
            await session.opened.wait()
            if session.open_error is None and not session.failures:
                session.body.__enter__()
                return connection
            await session.finished.wait()
            if session.open_error is not None:
                raise session.open_error
        except BaseException as error:
            del session, connection  # they refer to the exception
            await self._leave(error)
        else:
            del session, connection
            await self._leave(None)
        raise AssertionError("an exception of a hook must be raised")

    async def _exit(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        body = self._session.body
        assert body is not None
        try:
            if body.__exit__(kind, error, traceback):
                error = None
        except BaseException as changed:
            error = changed
        try:
            await self._leave(error)
        except BaseException as raised:
            if raised is error:
                return False
            raise
        finally:
            del error, traceback
        return True

    async def _leave(self, error: BaseException | None) -> None:
        assert self._manager is not None
        try:
            await leave_nursery(
                self._manager,
                self._nursery,
                error,
                finish=self._finish,
                failures=self._session.failures,
                is_consequence=self._is_consequence,
                message="the body and the connection both failed",
            )
        finally:
            # The exception refers to this frame and this object.
            del error, self._session, self._connection, self._nursery

    async def _finish(self, body_error: BaseException | None) -> None:
        session = self._session
        if body_error is None:
            await session.aclose(Close(1000))
        elif is_graceful(body_error):
            await session.aclose(Close(1011, "internal error"))
        else:
            session.abort()

    def _is_consequence(self, error: BaseException) -> bool:
        return is_end(error, self._session)


def is_end(error: BaseException, session: Session[Any]) -> bool:
    """Whether an exception or group only reports the end of the session's connection."""
    return all(
        isinstance(leaf, trio.Cancelled)
        or (isinstance(leaf, ConnectionClosed) and leaf.origin is session.close_state)
        for leaf in leaves(error)
    )


# A shared string, because trio would create one for each task.
_TASK_NAME = "trioglock.connection.Session.run"
