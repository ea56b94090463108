"""``run()``: a client of callbacks, and the handle that the rest of the program has of it."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Any, Generic, TypeVar, Unpack

import trio

from ...client import ConnectOptions
from ...connection import Connection
from ...errors import InvalidOption
from .actor import ClientActor
from .address import Params, Source
from .callbacks import check_client
from .client import ChannelClient, Connect
from .connect import check_serializer, check_timeout, open_connection, with_heartbeat
from .machine import Machine
from .serializer import Serializer

__all__ = ["ClientHandle", "run"]

StateT = TypeVar("StateT")


class ClientHandle(Generic[StateT]):
    """A running client, for the rest of the program: what ``nursery.start(run, ...)`` gives."""

    def __init__(self, actor: ClientActor[StateT], machine: Machine) -> None:
        self._actor = actor
        self._machine = machine

    @property
    def state(self) -> StateT:
        """The state that the latest callback returned."""
        return self._actor.state

    @property
    def connected(self) -> bool:
        """Whether there is a connection."""
        return self._machine.connected

    @property
    def ignored(self) -> int:
        """Messages that came for nobody: late, duplicate, of an earlier join, unknown, invalid."""
        return self._machine.ignored + self._actor.invalid.count

    def cast(self, message: Any) -> None:
        """Leave ``message`` for ``handle_cast``; allowed anywhere, also in callbacks.

        Raises:
            UsageError: the client has no ``handle_cast``.
            trio.WouldBlock: 65,536 jobs wait already.
            Disconnected: the client has ended.
        """
        self._actor.cast(message)

    async def call(self, request: Any, timeout: float | None = None) -> Any:
        """Ask ``handle_call`` and wait for its reply.

        Args:
            request: whatever it takes.
            timeout: seconds to wait at the most; None for ever.

        Raises:
            trio.WouldBlock: 65,536 jobs wait already.
            CallTimeout: no reply in time; the request may still be handled.
            Disconnected: the client has ended.
            UsageError: called inside a callback, or there is no ``handle_call``.
            Exception: whatever ``handle_call`` raises.
        """
        return await self._actor.call(request, timeout)

    def connect(self, wish: Connect | None = None) -> None:
        """Connect, as if a callback had returned ``Connect()``.

        Args:
            wish: where to and when; by default as before, at once.

        Raises:
            trio.WouldBlock: 65,536 jobs wait already.
            Disconnected: the client has ended.
        """
        self._actor.connect(wish or Connect())

    def stop(self) -> None:
        """Close the connection and end, as if a callback had returned ``Stop()``."""
        self._actor.stop()


async def run(
    url: Source[str],
    client: ChannelClient[StateT],
    *,
    connect: bool = True,
    params: Source[Params] | None = None,
    auth_token: Source[str] | None = None,
    serializer: Serializer | None = None,
    timeout: float = 10,
    task_status: trio.TaskStatus[ClientHandle[StateT]] = trio.TASK_STATUS_IGNORED,
    **options: Unpack[ConnectOptions],
) -> StateT:
    """Run a client of callbacks until one of them returns ``Stop()``.

    With ``nursery.start`` it gives the :class:`ClientHandle` at once, connected or not::

        handle = await nursery.start(phoenix.run, "wss://example.org/socket", Lobby())

    Args:
        url: as for :func:`connect`.
        client: the callbacks.
        connect: False waits for a callback to return :class:`Connect`.
        params: as for :func:`connect`.
        auth_token: as for :func:`connect`.
        serializer: as for :func:`connect`.
        timeout: seconds for joins, pushes and leaves.
        task_status: of ``nursery.start``.
        options: the keyword arguments of :func:`trioglock.connect`, but not ``reconnect``: that is
            decided in ``handle_disconnected``.

    Returns:
        The state that the last callback returned.

    Raises:
        InvalidURL, InvalidOption: an argument cannot be used.
        BadHookResult, Exception: what a callback, or a function of yours, raised.
    """
    check_client(client)
    check_timeout(timeout)
    if options.get("reconnect"):
        raise InvalidOption("reconnect: return Connect(delay=...) from handle_disconnected instead")
    machine = Machine(rejoin_delays=())
    serializer = check_serializer(serializer)
    options = with_heartbeat(options, machine.heartbeat, serializer)
    place = Place(url, params, auth_token, options)
    place.open(None, None)  # complains now about what can be known to be wrong
    actor = ClientActor(client, machine, serializer, timeout, place.open)
    handle = ClientHandle(actor, machine)
    await actor.run(lambda: task_status.started(handle), connect=connect)
    return actor.state


class Place:
    """Where to connect to, until a callback names another place."""

    def __init__(
        self,
        url: Source[str],
        params: Source[Params] | None,
        auth_token: Source[str] | None,
        options: ConnectOptions,
    ) -> None:
        self._url: Source[str] = url
        self._params: Source[Params] | None = params
        self._token: Source[str] | None = auth_token
        self._options = options

    def open(
        self, url: Source[str] | None, params: Source[Params] | None
    ) -> AbstractAsyncContextManager[Connection[None]]:
        """A connection to the place, or to a new one."""
        self._url = self._url if url is None else url
        self._params = self._params if params is None else params
        return open_connection(self._url, self._params, self._token, None, {**self._options})
