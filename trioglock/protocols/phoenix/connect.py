"""``connect()``: an ``async with`` block around a Phoenix socket; its URL, params and token."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any, TypeAlias, Unpack
from urllib.parse import quote, unquote, urlencode

import trio

from ... import client
from ..._hints import checks_keywords, describe_value
from ..._scope import scope_function
from ..._text import as_text
from ...client import ConnectOptions
from ...client.sources import Source, check_not_called, resolve
from ...connection import Connection
from ...errors import InvalidOption
from ...frames import Data
from ...options import DialOptions, MessageHeartbeat, check_seconds, check_whole
from ...retry import Backoff
from ...transports import Capabilities, Link, NativeTransport, Transport, check_url
from ...transports.urls import split_url
from .hooks import ChannelHooks, PhoenixHooks
from .machine import REJOIN_DELAYS, Machine
from .message import PATH_END, SUBPROTOCOL, TOKEN_PREFIX, VERSION, PhoenixHeartbeat
from .serializer import Serializer, V2Serializer
from .socket import PhoenixSocket

__all__ = [
    "PARAMS",
    "RECONNECT",
    "EndpointTransport",
    "Params",
    "check_serializer",
    "check_timeout",
    "connect",
    "open_connection",
]

Params: TypeAlias = Mapping[str, Any]
"""The parameters in a URL. Values may be nested like JSON values."""

RECONNECT = Backoff(initial=0.02, maximum=5, max_attempts=None)
"""Fast at first and without a limit on attempts, like the JavaScript client, but with jitter."""

HEARTBEAT_SECONDS = 30.0

PARAMS = "a mapping"

PLACEHOLDER_URL = "ws://endpoint.invalid/"


@checks_keywords("phoenix.connect", ConnectOptions)
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
    """Connect to a Phoenix endpoint for the duration of an ``async with`` block.

    ::

        async with phoenix.connect("wss://example.org/socket", params={"user": "al"}) as socket:
            channel = await socket.join("room:1")
            reply = await channel.push("shout", {"text": "hello"})
            async for event, payload in channel:
                ...

    Args:
        url: the URL of the socket, with or without the final ``/websocket``, or a function, plain
            or async, that returns it and is called before every attempt.
        params: the params of the server's ``connect/3``, which are part of the URL, or a function,
            as for ``url``.
        auth_token: the ``auth_token`` of Phoenix 1.8, which is sent in a header, or a function, as
            for ``url``.
        serializer: the serializer, for servers that do not use Phoenix's own.
        timeout: default number of seconds for joins, pushes and leaves.
        rejoin_delays: seconds before each rejoin after a crash or a refusal; the last value is
            repeated. If it is empty, a channel ends in these cases and when the connection is
            lost.
        max_buffer: for each channel, the number of pushes that may wait until it is joined.
        options: the keyword arguments of :func:`trioglock.connect`. These defaults differ:
            ``reconnect`` is :data:`RECONNECT`, which retries without a limit and includes the
            first connection; ``ping_interval`` and ``ping_timeout`` are 30 and apply to the
            heartbeat on the ``phoenix`` topic.

    Returns:
        An async context manager that returns the :class:`PhoenixSocket`.

    Raises:
        InvalidURL, InvalidOption: an argument is invalid; raised by the call itself.
        ConnectError: could not connect, for example HandshakeRefused with 403; raised on entering
            the block.
        Exception: an exception raised by your callback or function; raised by the block.
    """
    check_timeout(timeout)
    check_whole("max_buffer", max_buffer, least=0, none=False)
    machine = Machine(rejoin_delays=_check_delays(rejoin_delays), max_buffer=max_buffer)
    hooks = ChannelHooks(machine, check_serializer(serializer))
    options.setdefault("reconnect", RECONNECT)
    endpoint = EndpointTransport(url, params, auth_token, options)
    return _open_socket(open_connection(endpoint, hooks, options), hooks, timeout)


@scope_function("phoenix.connect(...)")
async def _open_socket(
    opening: AbstractAsyncContextManager[Connection[None, Any]], hooks: ChannelHooks, timeout: float
) -> AsyncIterator[PhoenixSocket]:
    async with opening as connection:
        yield PhoenixSocket(connection, hooks, timeout)


def open_connection(
    endpoint: EndpointTransport, hooks: PhoenixHooks, options: ConnectOptions
) -> AbstractAsyncContextManager[Connection[None, Any]]:
    """Return a connection to an endpoint with the Phoenix heartbeat; checks all options."""
    if options.get("heartbeat") is not None:
        raise InvalidOption("heartbeat cannot be set here: use ping_interval and ping_timeout")
    defaults: ConnectOptions = {
        "ping_interval": HEARTBEAT_SECONDS,
        "ping_timeout": HEARTBEAT_SECONDS,
    }
    heartbeat = _message_heartbeat(hooks.machine.heartbeat, hooks)
    options = {**defaults, **options, "heartbeat": heartbeat, "transport": endpoint}
    return client.connect(endpoint.first_url(), hooks, **options)


def _message_heartbeat(heartbeat: PhoenixHeartbeat, hooks: PhoenixHooks) -> MessageHeartbeat:
    def is_answer(frame: Data) -> bool:
        if not heartbeat.pending:
            return False
        try:
            return heartbeat.is_answer(hooks.decode(frame))
        except ValueError:
            return False  # handle_receive reports the heartbeat

    return MessageHeartbeat(message=lambda: hooks.encode(heartbeat.next()), is_answer=is_answer)


class EndpointTransport(Transport):
    """A transport that resolves the URL, params and token before every attempt."""

    def __init__(
        self,
        url: Source[str],
        params: Source[Params] | None,
        auth_token: Source[str] | None,
        options: ConnectOptions,
    ) -> None:
        check_not_called("url", url, "a str")
        check_not_called("params", params, PARAMS)
        check_not_called("auth_token", auth_token, "a non-empty str")
        inner = options.get("transport")
        if not isinstance(inner, Transport | None):
            raise InvalidOption(
                f"transport must be a trioglock Transport, not {describe_value(inner)}"
            )
        if auth_token is not None:
            if options.get("subprotocols"):
                raise InvalidOption("subprotocols cannot be combined with auth_token")
            if not callable(auth_token):
                token_subprotocols(auth_token)
        self._url: Source[str] = url
        self._params: Source[Params] | None = params
        self._auth_token: Source[str] | None = auth_token
        self._inner = inner or NativeTransport()
        self.capabilities: Capabilities = self._inner.capabilities

    def first_url(self) -> str | Callable[[], str]:
        """Return the URL if it is constant; otherwise a placeholder that ``connect`` replaces."""
        if callable(self._url) or callable(self._params):
            return lambda: PLACEHOLDER_URL
        return socket_url(self._url, self._params)

    def change(self, url: Source[str] | None, params: Source[Params] | None) -> None:
        """Use another URL, other params, or both for later attempts."""
        self._url = self._url if url is None else url
        self._params = self._params if params is None else params

    async def connect(self, options: DialOptions, nursery: trio.Nursery) -> Link:
        url = await resolve("url", self._url, str, "a str")
        params = await resolve("params", self._params, Mapping, PARAMS)
        options = replace(options, url=socket_url(url, params))
        if self._auth_token is not None:
            token = await resolve("auth_token", self._auth_token, str, "a non-empty str")
            subprotocols = token_subprotocols(token)
            options = replace(options, subprotocols=subprotocols)
        check_url(options)
        return await self._inner.connect(options, nursery)


def socket_url(url: str, params: Params | None) -> str:
    """Return the URL to connect to: ``<socket path>/websocket?vsn=2.0.0&<params>``."""
    if not isinstance(url, str):
        kind = type(url).__name__
        raise InvalidOption(f"url must be a str, or a function that returns one, not {kind}")
    parts = split_url(as_text(url))
    path = parts.path.rstrip("/")
    if not path.endswith(PATH_END):
        path += PATH_END
    try:
        encoded = urlencode([*_flatten(params)], quote_via=quote)
    except UnicodeEncodeError:
        raise InvalidOption("a param in the URL is not valid Unicode") from None
    # The query of the URL is not changed.
    pairs = [pair for pair in f"{parts.query or ''}&{encoded}".split("&") if pair]
    versions = [pair for pair in pairs if unquote(pair.partition("=")[0]) == "vsn"]
    if any(unquote(pair) != f"vsn={VERSION}" for pair in versions):
        raise InvalidOption(f"vsn must be {VERSION}: other versions are not supported")
    query = "&".join([f"vsn={VERSION}", *(pair for pair in pairs if pair not in versions)])
    return parts._replace(path=path, query=query).join()


def _flatten(params: Params | None) -> Iterator[tuple[str, str]]:
    if params is None:
        return
    if not isinstance(params, Mapping):
        kind = type(params).__name__
        raise InvalidOption(f"params must be a mapping, or a function that returns one, not {kind}")
    for name, value in params.items():
        if not isinstance(name, str):
            raise InvalidOption(f"the name of a param must be a str, not {name!r}")
        yield from _pairs(as_text(name), value)


def _pairs(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """Yield nested values as ``user[name]=al&ids[]=1``, the format of Plug."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _pairs(f"{name}[{_key(key)}]", inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _pairs(f"{name}[]", inner)
    elif value is None or isinstance(value, bool):
        yield name, {None: "", True: "true", False: "false"}[value]
    elif isinstance(value, str):
        yield name, as_text(value)
    elif isinstance(value, int | float):
        # As in JSON, enum members and other subclasses of numbers are written as numbers.
        yield name, (int if isinstance(value, int) else float).__repr__(value)
    else:
        kind = type(value).__name__
        raise InvalidOption(
            f"the param {name!r} must be a str, a number, or a mapping or list of these, not {kind}"
        )


def _key(key: object) -> object:
    return as_text(key) if isinstance(key, str) else key


def token_subprotocols(token: str) -> tuple[str, str]:
    """Return the subprotocols that contain ``auth_token`` (Phoenix 1.8)."""
    if not isinstance(token, str) or not token:
        raise InvalidOption("auth_token must be a non-empty str, or a function that returns one")
    try:
        encoded = base64.b64encode(token.encode()).decode().rstrip("=")
    except UnicodeEncodeError:
        raise InvalidOption("auth_token is not valid Unicode") from None
    if "/" in encoded:
        # Not a token of RFC 9110, section 5.6.2; browsers refuse it as well.
        raise InvalidOption("this auth_token cannot be sent: its Base64 form contains a slash")
    return (SUBPROTOCOL, TOKEN_PREFIX + encoded)


def check_timeout(timeout: float) -> None:
    """Raise InvalidOption unless ``timeout`` is a positive number of seconds."""
    if timeout is None:
        raise InvalidOption(
            "timeout must be a number of seconds, not None; use math.inf for no limit"
        )
    check_seconds("timeout", timeout)


def check_serializer(serializer: Serializer | None) -> Serializer:
    """Return the serializer to use."""
    if serializer is None:
        return V2Serializer()
    methods = (getattr(serializer, name, None) for name in ("encode", "decode"))
    if isinstance(serializer, type) or not all(map(callable, methods)):
        raise InvalidOption(
            f"serializer must be an object with encode and decode, not {describe_value(serializer)}"
        )
    return serializer


def _check_delays(delays: Sequence[float]) -> tuple[float, ...]:
    if isinstance(delays, str) or not isinstance(delays, Sequence):
        raise InvalidOption(f"rejoin_delays must be a list of seconds, not {delays!r}")
    for delay in delays:
        check_seconds("rejoin_delays", delay, none=False)
    return tuple(delays)
