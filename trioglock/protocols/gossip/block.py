"""The block around a client: its tasks, and the one exception that comes out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress

import trio

from ...connection import Connection
from ...errors import ConnectionClosed
from ...routing import RequestTimeout
from . import machine
from .client import Client
from .errors import AuthenticationFailed, Offline
from .session import GossipSession, new_ref
from .state import State
from .values import Phase

__all__ = ["hold"]

AUTHENTICATION_TIMEOUT = 10.0
"""Seconds that the server has to answer ``authenticate``."""


@asynccontextmanager
async def hold(
    link: AbstractAsyncContextManager[Connection[None]],
    session: GossipSession,
    client: Client,
    *,
    wait: bool,
    refresh_interval: float,
) -> AsyncIterator[Client]:
    """Run a client around the body of an ``async with``.

    Args:
        link: the connection, not yet open.
        session: of the client.
        client: for the body.
        wait: until the server has let us in.
        refresh_interval: seconds.
    """
    tasks = Tasks(link, session, refresh_interval)
    body_error: BaseException | None = None
    async with trio.open_nursery() as nursery:
        for task in (tasks.link, tasks.callbacks, tasks.refresh, tasks.authentication):
            nursery.start_soon(tasks.guard, task)
        entered = False
        try:
            with tasks.body:
                if wait:
                    await client.wait_online()
                entered = True
                yield client
        except BaseException as error:  # noqa: BLE001  # comes out as it was raised
            body_error = error
        if body_error is None or isinstance(body_error, Exception):
            await tasks.close(1000 if body_error is None and not tasks.failures else 1011)
        nursery.cancel_scope.cancel()
    assert entered or tasks.failures or body_error is not None
    verdict = _verdict(tasks.failures, body_error)
    if verdict is not None:
        raise verdict


def _verdict(
    failures: list[BaseException], body_error: BaseException | None
) -> BaseException | None:
    if body_error is None or (failures and isinstance(body_error, Offline | trio.Cancelled)):
        # That calls of the body failed, or were cancelled, is a consequence.
        body_error = None
    real = [*failures] if body_error is None else [body_error, *failures]
    if len(real) > 1:
        return BaseExceptionGroup("the body and the client both failed", real)
    return real[0] if real else None


def _is_authenticating(state: State) -> bool:
    return state.phase is Phase.AUTHENTICATING


class Tasks:
    """What runs beside the body.

    Args:
        link: the connection, not yet open.
        session: of the client.
        refresh_interval: seconds.
    """

    def __init__(
        self,
        link: AbstractAsyncContextManager[Connection[None]],
        session: GossipSession,
        refresh_interval: float,
    ) -> None:
        self.body: trio.CancelScope = trio.CancelScope()
        self.failures: list[BaseException] = []
        self._link = link
        self._session = session
        self._refresh_interval = refresh_interval
        self._leaving = False

    async def guard(self, task: Callable[[], Awaitable[None]]) -> None:
        """Run one; its failure cancels the body, and comes out of the block."""
        try:
            await task()
        except (Exception, KeyboardInterrupt, SystemExit) as error:  # noqa: BLE001  # as they like
            self.failures.append(error)
            self.body.cancel()

    async def link(self) -> None:
        """Keep the connection, until it ends for good."""
        async with self._link as connection:
            await connection.wait_closed()
            if self._leaving:
                return
            refusal = self._session.state.refusal
            if refusal is not None:
                raise AuthenticationFailed(f"the server does not let us in: {refusal}")
            await connection.receive()  # nothing was ever delivered: it tells why it closed

    async def callbacks(self) -> None:
        """Tell the callbacks."""
        await self._session.notifications.run()

    async def refresh(self) -> None:
        """Ask for everyone's status from time to time."""
        session = self._session
        while True:
            await trio.sleep(self._refresh_interval)
            with suppress(Offline):
                await session.send(session.perform(machine.refresh(new_ref, session.state)))

    async def authentication(self) -> None:
        """A server that does not answer ``authenticate`` is left for another link."""
        session = self._session
        while True:
            await session.wait_until(_is_authenticating)
            with trio.move_on_after(AUTHENTICATION_TIMEOUT) as scope:
                # A loss is seen as well: the next link does not come in the same moment.
                await session.wait_until(lambda state: not _is_authenticating(state))
            if not scope.cancelled_caught:
                continue
            if not session.state.settings.reconnects:
                raise RequestTimeout("authenticate", AUTHENTICATION_TIMEOUT)
            if session.connection is not None:
                with suppress(ConnectionClosed):
                    await session.connection.reconnect()

    async def close(self, code: int) -> None:
        """Leave in good order."""
        self._leaving = True
        if self._session.connection is not None:
            await self._session.connection.aclose(code)
