"""``EventConnection``: a connection that also asks, and waits for the answer."""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import trio

from ..connection import Connection, Status
from ..errors import InvalidOption
from ..options import check_seconds
from .errors import RequestTimeout
from .socket import EventSocket

__all__ = ["EventConnection"]

StateT = TypeVar("StateT")


class EventConnection(Generic[StateT]):
    """A :class:`~trioglock.connection.Connection` of an :class:`EventSocket`, with ``request``.

    What is not here is on :attr:`connection`.

    Args:
        connection: open.
        socket: its hooks.
    """

    def __init__(self, connection: Connection[StateT], socket: EventSocket[StateT]) -> None:
        self.connection: Connection[StateT] = connection
        """For all the rest: ``statistics()``, ``ping()``, ``start_soon()``, ``reconnect()``."""
        self.socket: EventSocket[StateT] = socket
        """The hooks."""

    def __repr__(self) -> str:
        return f"<EventConnection over {self.connection!r}>"

    async def request(self, event: str, payload: Any = None, *, timeout: float | None = 10) -> Any:
        """Send an event and wait for the message that answers with the same ``ref``.

        The answer is returned as it was decoded and reaches no handler. One that comes too late
        is an event like any other. During an outage the request waits for the next link.

        Args:
            event: its name.
            payload: whatever the codec takes; None for none.
            timeout: seconds for sending and waiting; None for ever.

        Raises:
            RequestTimeout: no answer in time.
            RequestLost: the link ended before the answer came.
            ConnectionClosed: the connection is closing or closed.
            EncodeError: the codec cannot express the payload.
            UsageError: called inside a hook or handler of this connection.
            InvalidOption: ``timeout`` is no positive number of seconds.
        """
        if not isinstance(event, str) or not event:
            raise InvalidOption(f"event is the name of one, not {event!r}")
        check_seconds("timeout", timeout)
        ref = str(uuid.uuid4())
        message = self.socket.make_request(event, payload, ref)
        with (
            self.socket.requests.open(ref, event, self._loss()) as answer,
            trio.move_on_after(math.inf if timeout is None else timeout) as scope,
        ):
            await self.connection.send(message)
            return await answer.wait()
        assert scope.cancelled_caught
        assert timeout is not None
        raise RequestTimeout(event, timeout)

    def _loss(self) -> Callable[[], bool]:
        """Tells whether the link that is to carry a request made now has ended."""
        connection = self.connection
        # A link that has ended already carries it no more, though its end is still being told.
        ended = None if connection.status is Status.OPEN else connection.handshake

        def is_lost() -> bool:
            if connection.status is Status.OPEN:
                return False
            return (
                connection.status in (Status.DECIDING, Status.CLOSED)
                or connection.handshake is not ended
            )

        return is_lost

    # As of the connection.

    async def send(self, message: Any) -> None:
        """Send a message, encoded by the codec; see :meth:`Connection.send`."""
        await self.connection.send(message)

    async def receive(self) -> Any:
        """The next delivered message; see :meth:`Connection.receive`."""
        return await self.connection.receive()

    def __aiter__(self) -> EventConnection[StateT]:
        return self

    async def __anext__(self) -> Any:
        return await self.connection.__anext__()

    def cast(self, message: Any) -> None:
        """Leave ``message`` for ``handle_cast``; see :meth:`Connection.cast`."""
        self.connection.cast(message)

    async def call(self, request: Any, timeout: float | None = None) -> Any:
        """Ask ``handle_call``; see :meth:`Connection.call`."""
        return await self.connection.call(request, timeout)

    async def aclose(self, code: int = 1000, reason: str = "") -> None:
        """Close; see :meth:`Connection.aclose`."""
        await self.connection.aclose(code, reason)

    async def wait_closed(self) -> None:
        """Wait until the connection has ended; see :meth:`Connection.wait_closed`."""
        await self.connection.wait_closed()

    @property
    def state(self) -> StateT:
        """The state that the latest handler or hook returned."""
        return self.connection.state

    @property
    def status(self) -> Status:
        """Where the connection stands."""
        return self.connection.status
