"""``connect()``: a Phoenix socket for the time of an ``async with`` block."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Unpack

from ... import client
from ...backoff import Backoff
from ...client import ConnectOptions
from ...connection import Connection
from ...errors import InvalidOption
from ...frames import Data
from ...hooks import Socket
from ...options import MessageHeartbeat, check_seconds, check_whole
from ...transports import NativeTransport, Transport
from .address import Params, Source, ask, socket_url, token_subprotocols
from .heartbeat import PhoenixHeartbeat
from .machine import REJOIN_DELAYS, Machine
from .serializer import Serializer, V2Serializer
from .socket import PhoenixSocket
from .token import TokenTransport
from .wire import Wire

__all__ = ["RECONNECT", "connect"]

RECONNECT = Backoff(initial=0.02, maximum=5, max_attempts=None)
"""Soon at first, and for ever, as the JavaScript client does; jitter keeps a crowd apart."""

HEARTBEAT = 30.0


def connect(
    url: Source[str],
    *,
    params: Source[Params] | None = None,
    auth_token: Source[str] | None = None,
    serializer: Serializer | None = None,
    timeout: float = 10,
    rejoin_delays: Sequence[float] = REJOIN_DELAYS,
    max_buffer: int = 1000,
    **options: Unpack[ConnectOptions],
) -> AbstractAsyncContextManager[PhoenixSocket]:
    """Connect to a Phoenix endpoint for the time of an ``async with`` block.

    ::

        async with phoenix.connect("wss://example.org/socket", params={"user": "al"}) as socket:
            channel = await socket.join("room:1")
            reply = await channel.push("shout", {"text": "hello"})
            async for event, payload in channel:
                ...

    Args:
        url: of the socket, with or without its final ``/websocket``. Or a function, plain or
            async, that is asked before every attempt.
        params: what the server's ``connect/3`` gets, part of the address. Or such a function.
        auth_token: what Phoenix 1.8 calls so: it travels in a header. Or such a function.
        serializer: for a server with another one than Phoenix's own.
        timeout: seconds for joins, pushes and leaves that say nothing else.
        rejoin_delays: seconds before each attempt to join a channel again after a crash, or when
            that was refused; the last one is repeated. Empty: channels end there, and when the
            connection is lost.
        max_buffer: the number of pushes of one channel that may wait for it to be joined.
        options: the keyword arguments of :func:`trioglock.connect`. Other defaults here:
            ``reconnect`` is :data:`RECONNECT`, which tries for ever what may get better, the
            first connection included; ``ping_interval`` and ``ping_timeout`` are 30 and are those
            of the heartbeat on the topic ``phoenix``.

    Returns:
        An async context manager that gives the :class:`PhoenixSocket`.

    Raises:
        InvalidURL, InvalidOption: at once, at this call.
        ConnectError: on entering the block, such as HandshakeRefused with 403.
        Exception: out of the block: what a callback or a function of yours raised.
    """
    check_timeout(timeout)
    check_whole("max_buffer", max_buffer, least=0, none=False)
    machine = Machine(rejoin_delays=check_delays(rejoin_delays), max_buffer=max_buffer)
    serializer = check_serializer(serializer)
    wire = Wire(machine, serializer)
    options.setdefault("reconnect", RECONNECT)
    options = with_heartbeat(options, machine.heartbeat, serializer)
    return _socket(open_connection(url, params, auth_token, wire, options), wire, timeout)


def with_heartbeat(
    options: ConnectOptions, heartbeat: PhoenixHeartbeat, serializer: Serializer
) -> ConnectOptions:
    """The options, and the heartbeat on the topic ``phoenix``."""
    if options.get("heartbeat") is not None:
        raise InvalidOption("heartbeat is Phoenix's own here; set ping_interval and ping_timeout")

    def is_answer(frame: Data) -> bool:
        if not heartbeat.waits:
            return False
        try:
            return heartbeat.is_answer(serializer.decode(frame))
        except ValueError:
            return False  # whoever handles the message complains

    beat = MessageHeartbeat(
        message=lambda: serializer.encode(heartbeat.next()), is_answer=is_answer
    )
    seconds: ConnectOptions = {"ping_interval": HEARTBEAT, "ping_timeout": HEARTBEAT}
    return {**seconds, **options, "heartbeat": beat}


def open_connection(
    url: Source[str],
    params: Source[Params] | None,
    auth_token: Source[str] | None,
    socket: Socket[None] | None,
    options: ConnectOptions,
) -> AbstractAsyncContextManager[Connection[None]]:
    """A connection to the socket's address; checks everything at once."""
    if auth_token is not None:
        options["transport"] = _with_token(auth_token, options)
    if not callable(url) and not callable(params):
        return client.connect(socket_url(url, params), socket, **options)

    async def address() -> str:
        return socket_url(await ask(url), await ask(params))

    return client.connect(address, socket, **options)


def _with_token(auth_token: Source[str], options: ConnectOptions) -> Transport:
    if options.get("subprotocols"):
        raise InvalidOption("subprotocols are taken by auth_token")
    if not callable(auth_token):
        token_subprotocols(auth_token)
    inner = options.get("transport") or NativeTransport()
    if not isinstance(inner, Transport):
        raise InvalidOption(f"transport is a trioglock Transport, not {inner!r}")
    return TokenTransport(inner, auth_token)


@asynccontextmanager
async def _socket(
    opening: AbstractAsyncContextManager[Connection[None]], wire: Wire, timeout: float
) -> AsyncIterator[PhoenixSocket]:
    async with opening as connection:
        yield PhoenixSocket(connection, wire, timeout)


def check_timeout(timeout: float) -> None:
    """Raise InvalidOption unless ``timeout`` is a positive number of seconds."""
    if timeout is None:
        raise InvalidOption("timeout is a number of seconds, not None; math.inf waits for ever")
    check_seconds("timeout", timeout)


def check_serializer(serializer: Serializer | None) -> Serializer:
    """The serializer to use."""
    if serializer is None:
        return V2Serializer()
    methods = (getattr(serializer, name, None) for name in ("encode", "decode"))
    if isinstance(serializer, type) or not all(map(callable, methods)):
        raise InvalidOption(f"serializer has the methods encode and decode, not {serializer!r}")
    return serializer


def check_delays(delays: Sequence[float]) -> tuple[float, ...]:
    """Seconds before each attempt to join again."""
    if isinstance(delays, str) or not isinstance(delays, Sequence):
        raise InvalidOption(f"rejoin_delays is a list of seconds, not {delays!r}")
    for delay in delays:
        if delay is None:
            raise InvalidOption("rejoin_delays are numbers of seconds, not None")
        check_seconds("rejoin_delays", delay)
    return tuple(delays)
