"""``connect()``: a client of the Gossip network for the time of an ``async with`` block."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Unpack

from ...backoff import Backoff, is_transient
from ...client import ConnectOptions
from ...client import connect as client_connect
from ...client.dialer import URLSource
from ...codecs import JSON
from ...disconnect import Disconnect, RemoteClose
from ...errors import InvalidOption
from ...options import check_seconds, check_whole
from .block import hold
from .callbacks import Achievements, Core, Games, Players, System, Tells
from .client import Client
from .notifications import Notifications
from .session import GossipSession
from .socket import GossipSocket
from .state import Settings, State
from .values import check_channel, check_text

__all__ = ["BACKOFF", "GRAPEVINE", "connect", "is_worth_retrying"]

GRAPEVINE = "wss://grapevine.haus/socket"
"""The network's production URL."""


def is_worth_retrying(reason: Disconnect) -> bool:
    """Whether to connect again: the network never means a close to be the end.

    That it does not let us in is final all the same.
    """
    return isinstance(reason, RemoteClose) or is_transient(reason)


BACKOFF: Backoff = Backoff(
    initial=15,
    maximum=120,
    multiplier=2,
    jitter="none",
    max_attempts=None,
    retryable=is_worth_retrying,
)
"""The default: 15 seconds after a loss, longer while it does not help, for ever."""


def connect(
    url: URLSource = GRAPEVINE,
    *,
    client_id: str,
    client_secret: str,
    core: Core,
    players: Players | None = None,
    tells: Tells | None = None,
    games: Games | None = None,
    achievements: Achievements | None = None,
    system: System | None = None,
    version: str = "2.3.0",
    wait: bool = True,
    refresh_interval: float = 60,
    max_callbacks: int = 1024,
    **options: Unpack[ConnectOptions],
) -> AbstractAsyncContextManager[Client]:
    """Connect a game to the network for the time of an ``async with`` block.

    ::

        async with gossip.connect(client_id=..., client_secret=..., core=MyGame()) as client:
            await client.broadcast("gossip", "Player", "Hello everyone!")

    A lost link is replaced, and everything told again: the credentials, the channels, and, in
    answer to the heartbeat that follows, the players. Leaving the block closes with 1000.

    Args:
        url: of the network's socket, or a function that is asked for it before every attempt.
        client_id: given by the network.
        client_secret: given by the network.
        core: the callbacks of the flag ``channels``.
        players: callbacks that opt into the flag ``players``; None does not, as below.
        tells: callbacks that opt into the flag ``tells``.
        games: callbacks that opt into the flag ``games``.
        achievements: callbacks that opt into the flag ``achievements``.
        system: callbacks for what happens to the connection.
        version: of the protocol, as told to the server.
        wait: enter the block once the server has let us in; False enters it at once, so that a
            game starts without the network.
        refresh_interval: seconds between two requests for everyone's status.
        max_callbacks: how many calls may wait while a callback is slow; then the oldest are
            dropped and counted.
        options: as in :func:`trioglock.connect`. ``reconnect`` is :data:`BACKOFF` by default.

    Returns:
        An async context manager that gives the :class:`Client`.

    Raises:
        InvalidURL, InvalidOption: at once, at this call.
        AuthenticationFailed: out of the block: the server does not let us in.
        RequestTimeout: out of the block, with ``reconnect=False``: nor does it answer.
        ConnectError, ConnectionClosed: out of the block: ``reconnect`` does not try again.
        Exception: out of the block: what a callback raised.
    """
    flags = {
        "core": (core, Core),
        "players": (players, Players),
        "tells": (tells, Tells),
        "games": (games, Games),
        "achievements": (achievements, Achievements),
        "system": (system, System),
    }
    for name, (callbacks, kind) in flags.items():
        if not (isinstance(callbacks, kind) or (callbacks is None and name != "core")):
            raise InvalidOption(f"{name} is a gossip.{kind.__name__}, not {callbacks!r}")
    given = {name: callbacks for name, (callbacks, _) in flags.items() if callbacks is not None}
    if isinstance(core.channels, str):
        raise InvalidOption(f"channels is a list of names, not {core.channels!r}")
    check_seconds("refresh_interval", refresh_interval)
    check_whole("max_callbacks", max_callbacks, least=1, none=False)
    backoff = _backoff(options.get("reconnect", True))
    options["reconnect"] = backoff or False
    settings = Settings(
        client_id=check_text("client_id", client_id),
        client_secret=check_text("client_secret", client_secret),
        supports=("channels", *(name for name in given if name not in ("core", "system"))),
        user_agent=check_text("user_agent", core.user_agent),
        version=check_text("version", version),
        reconnects=backoff is not None,
    )
    state = State(settings=settings, channels=tuple(map(check_channel, core.channels)))
    session = GossipSession(state, core, Notifications(given, max_callbacks))
    socket = GossipSocket(session, JSON())
    link = client_connect(url, socket, **options)
    client = Client(session, socket)
    return hold(link, session, client, wait=wait, refresh_interval=refresh_interval)


def _backoff(reconnect: bool | Backoff) -> Backoff | None:
    if isinstance(reconnect, Backoff):
        if reconnect.retryable is is_transient:
            return replace(reconnect, retryable=is_worth_retrying)
        return reconnect
    if not isinstance(reconnect, bool):
        raise InvalidOption(f"reconnect is True, False or a Backoff, not {reconnect!r}")
    return BACKOFF if reconnect else None
