"""``connect()``: a client for the Gossip network, in an ``async with`` block."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import replace
from typing import Any, Unpack

import trio

from ..._hints import checks_keywords, describe_value
from ..._scope import is_cancelled, is_graceful, open_scope, scope_function
from ..._timer import PeerTimeout
from ...client import ConnectOptions
from ...client import connect as client_connect
from ...client.dialer import URLSource
from ...connection import Connection
from ...disconnect import Disconnect, RemoteClose
from ...errors import ConnectionClosed, InvalidOption, RequestTimeout
from ...options import check_seconds, check_whole
from ...retry import Backoff, is_transient
from .callbacks import (
    AchievementsCallbacks,
    CallbackQueue,
    ChannelsCallbacks,
    GamesCallbacks,
    PlayersCallbacks,
    SystemCallbacks,
    TellsCallbacks,
)
from .client import Client
from .errors import AuthenticationFailed, Offline, RequestRefused
from .hooks import GossipSocket
from .messages import check_text
from .state import ClientSettings, ClientState, ClientStatus, refresh

__all__ = ["BACKOFF", "GRAPEVINE", "connect", "is_retryable"]

GRAPEVINE = "wss://grapevine.haus/socket"
"""The URL of the network."""

AUTHENTICATION_TIMEOUT = 10.0
"""Seconds that the server has to answer ``authenticate``."""


def is_retryable(reason: Disconnect) -> bool:
    """Whether to reconnect: after any Close frame from the server or a transient failure.

    A failed authentication is always final.
    """
    return isinstance(reason, RemoteClose) or is_transient(reason)


BACKOFF: Backoff = Backoff(
    initial=15,
    maximum=120,
    multiplier=2,
    jitter="none",
    max_attempts=None,
    retryable=is_retryable,
)
"""The default: a delay of 15 seconds after a loss, then doubled up to 120 seconds, with no limit
on the number of attempts."""


@checks_keywords("gossip.connect", ConnectOptions)
def connect(
    url: URLSource = GRAPEVINE,
    *,
    client_id: str,
    client_secret: str,
    channels: ChannelsCallbacks,
    players: PlayersCallbacks | None = None,
    tells: TellsCallbacks | None = None,
    games: GamesCallbacks | None = None,
    achievements: AchievementsCallbacks | None = None,
    system: SystemCallbacks | None = None,
    version: str = "2.3.0",
    wait: bool = True,
    refresh_interval: float = 60,
    max_callbacks: int = 1024,
    **options: Unpack[ConnectOptions],
) -> AbstractAsyncContextManager[Client]:
    """Connect a game to the network.

    ::

        async with gossip.connect(client_id=..., client_secret=..., channels=MyGame()) as client:
            await client.broadcast("gossip", "Player", "Hello everyone!")

    After a loss, the client reconnects and authenticates again with its current channels; the next
    heartbeat contains its players. Leaving the block closes the connection with 1000.

    Args:
        url: the URL of the network, or a function that returns it, called before every attempt.
        client_id: the id assigned by the network.
        client_secret: the secret assigned by the network.
        channels: the callbacks for the ``channels`` flag.
        players: callbacks for the ``players`` flag. This argument and the next three each enable
            their flag.
        tells: callbacks for the ``tells`` flag.
        games: callbacks for the ``games`` flag.
        achievements: callbacks for the ``achievements`` flag.
        system: callbacks for the connection itself.
        version: the protocol version to announce.
        wait: whether to enter the block only after authentication. With False it is entered
            immediately, so that a game can start without the network.
        refresh_interval: seconds between two requests for the status of all games.
        max_callbacks: the maximum number of waiting calls while a callback is slow. Beyond it the
            oldest calls are dropped and counted.
        options: as in :func:`trioglock.connect`. ``reconnect`` is :data:`BACKOFF` by default.

    Returns:
        An async context manager whose value is the :class:`Client`.

    Raises:
        InvalidURL, InvalidOption: raised immediately by this call, or by the block if an attribute
            of the callbacks has become invalid.
        AuthenticationFailed: raised by the block; the server refused the credentials.
        RequestTimeout: raised by the block, with ``reconnect=False``; the server did not answer.
        ConnectError, ConnectionClosed: raised by the block when ``reconnect`` allows no retry.
        Exception: raised by the block; an exception raised by a callback.
    """
    flags = {
        "channels": (channels, ChannelsCallbacks),
        "players": (players, PlayersCallbacks),
        "tells": (tells, TellsCallbacks),
        "games": (games, GamesCallbacks),
        "achievements": (achievements, AchievementsCallbacks),
        "system": (system, SystemCallbacks),
    }
    for name, (callbacks, kind) in flags.items():
        if not (isinstance(callbacks, kind) or (callbacks is None and name != "channels")):
            raise InvalidOption(
                f"{name} must be a gossip.{kind.__name__}, not {describe_value(callbacks)}"
            )
    given = {name: callbacks for name, (callbacks, _) in flags.items() if callbacks is not None}
    check_seconds("refresh_interval", refresh_interval, none=False)
    check_whole("max_callbacks", max_callbacks, least=1, none=False)
    calls = CallbackQueue(given, max_callbacks)
    user_agent, subscribed = calls.declared()
    backoff = _backoff(options.get("reconnect", True))
    options["reconnect"] = backoff or False
    settings = ClientSettings(
        client_id=check_text("client_id", client_id),
        client_secret=check_text("client_secret", client_secret),
        supports=tuple(name for name in given if name != "system"),
        user_agent=user_agent,
        version=check_text("version", version),
        reconnects=backoff is not None,
    )
    state = ClientState(settings=settings, channels=subscribed, declared=subscribed)
    socket = GossipSocket(state, calls)
    connection = client_connect(url, socket, **options)
    return _open(_Tasks(connection, socket, refresh_interval), wait)


def _backoff(reconnect: bool | Backoff) -> Backoff | None:
    if isinstance(reconnect, Backoff):
        if reconnect.retryable is is_transient:
            return replace(reconnect, retryable=is_retryable)
        return reconnect
    if not isinstance(reconnect, bool):
        raise InvalidOption(
            f"reconnect must be True, False or a Backoff, not {describe_value(reconnect)}"
        )
    return BACKOFF if reconnect else None


@scope_function("gossip.connect(...)")
async def _open(tasks: _Tasks, wait: bool) -> AsyncIterator[Client]:
    async with open_scope(
        finish=tasks.close,
        failures=tasks.failures,
        is_consequence=_is_consequence,
        message="the body and the client both failed",
    ) as nursery:
        for task in tasks.all():
            nursery.start_soon(tasks.guard, task)
        with tasks.body:
            if wait:
                await tasks.client.wait_online()
            yield tasks.client


def _is_consequence(error: BaseException) -> bool:
    return isinstance(error, Offline) or is_cancelled(error)


class _Tasks:
    """The tasks of a client."""

    def __init__(
        self,
        connection: AbstractAsyncContextManager[Connection[None, Any]],
        socket: GossipSocket,
        refresh_interval: float,
    ) -> None:
        self.client: Client = Client(socket)
        self.body: trio.CancelScope = trio.CancelScope()
        self.failures: list[BaseException] = []
        self._connection = connection
        self._socket = socket
        self._refresh_interval = refresh_interval
        self._closing = False

    def all(self) -> list[Callable[[], Awaitable[None]]]:
        tasks: list[Callable[[], Awaitable[None]]] = [
            self.connect,
            self.call_callbacks,
            self.refresh,
            self.watch_authentication,
        ]
        if "achievements" in self._socket.state.settings.supports:
            tasks.append(self.sync_achievements)
        return tasks

    async def guard(self, task: Callable[[], Awaitable[None]]) -> None:
        """Run a task.

        If it fails, cancel the body; the nursery continues to run, to close cleanly.
        """
        try:
            await task()
        except (Exception, KeyboardInterrupt, SystemExit) as error:  # noqa: BLE001 - raised later
            self.failures.append(error)
            self.body.cancel()

    async def connect(self) -> None:
        """Keep the connection open until it ends permanently, and raise the cause."""
        async with self._connection as connection:
            await connection.wait_closed()
            if self._closing:
                return
            refusal = self._socket.state.refusal
            if refusal is not None:
                raise AuthenticationFailed(f"refused by the server: {refusal}")
            await connection.receive()  # raises, because no messages are delivered

    async def call_callbacks(self) -> None:
        """Call the callbacks, and send the events that they return."""

        async def send(event: Mapping[str, Any]) -> None:
            with suppress(Offline):
                await self.client.send(event, timeout=None)

        await self._socket.callbacks.run(send)

    async def refresh(self) -> None:
        """Request the status of all games periodically."""
        socket = self._socket
        while True:
            await trio.sleep(self._refresh_interval)
            with suppress(Offline):
                await socket.send_messages(socket.apply(refresh(socket.state)))

    async def sync_achievements(self) -> None:
        """Request the achievements after each authentication."""
        while True:
            await self.client.wait_online()
            with suppress(Offline, RequestRefused, RequestTimeout):
                await self.client.sync_achievements()
            await self._socket.wait_until(lambda state: state.status is not ClientStatus.ONLINE)

    async def watch_authentication(self) -> None:
        """Replace a link over which the server does not answer ``authenticate``."""
        socket = self._socket
        while True:
            await socket.wait_until(_is_authenticating)
            with PeerTimeout(AUTHENTICATION_TIMEOUT) as deadline:
                # A loss also ends this wait, because this task wakes before the next link opens.
                await socket.wait_until(lambda state: not _is_authenticating(state))
            if not deadline.expired:
                continue
            if not socket.state.settings.reconnects:
                raise RequestTimeout("authenticate", AUTHENTICATION_TIMEOUT)
            if socket.connection is not None:
                with suppress(ConnectionClosed):
                    await socket.connection.reconnect()

    async def close(self, body_error: BaseException | None) -> None:
        """Close the connection, unless the body was cancelled from outside."""
        if body_error is not None and not is_graceful(body_error):
            return
        self._closing = True
        if self._socket.connection is not None:
            failed = body_error is not None or self.failures
            await self._socket.connection.aclose(1011 if failed else 1000)


def _is_authenticating(state: ClientState) -> bool:
    return state.status is ClientStatus.AUTHENTICATING
