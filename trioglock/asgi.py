"""Sockets and handlers inside an ASGI application.

The ASGI server implements the WebSocket protocol: it performs the opening and closing handshakes,
sends and answers pings, and enforces limits. :class:`WebSocketApp` runs a target on each of its
connections (https://asgi.readthedocs.io/en/stable/specs/www.html#websocket).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, TypeAlias, TypedDict, Unpack
from urllib.parse import quote, unquote

import trio

from ._hints import checks_keywords
from ._redact import redact_line
from ._scope import open_scope
from .close_codes import NO_STATUS
from .errors import UsageError
from .frames import Close, Codec, Event, Fragment, Frame, Ping, Pong, PreparedMessage
from .headers import Headers
from .http import Request, Response
from .options import Overflow, Rate, RequestFormat, ServerFlowOptions, StallTimeout, take_options
from .server import (
    ConnectionRegistry,
    ConnectionRunner,
    HandshakeTarget,
    Route,
    Routes,
    ServeTargets,
)
from .transports import Handshake, Link, LinkBroken, Origins, UpgradeOptions
from .transports.http1 import STREAM_ERRORS
from .transports.urls import is_host_header

__all__ = ["ASGIOptions", "WebSocketApp"]

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_logger = logging.getLogger("trioglock.server")

CLOSE_TIMEOUT = 1.0
"""Seconds to send a Close frame when a link is dropped."""


class ASGIOptions(TypedDict, total=False):
    """The keyword arguments of :class:`WebSocketApp`.

    Args:
        subprotocols: the supported names, in order of preference; a client that offers none of them
            receives 403.
        origins: as in :func:`trioglock.serve`; other origins are rejected with 403.
        close_timeout: seconds from the decision to close a connection to its end; None for no
            limit.
        write_timeout: seconds that a write may go without progress before the connection is
            considered lost; None for no limit.
        stall_timeout: as in :func:`trioglock.serve`.
        message_rate: as in :func:`trioglock.serve`, without pings and pongs.
        byte_rate: as in :func:`trioglock.serve`, for the bytes of the messages.
        max_queue: number of messages that may wait to be received before reading stops; None for
            no limit.
        write_limit: number of bytes that may wait to be written before ``send`` waits.
        overflow: what happens at ``max_queue``, as in :func:`trioglock.serve`.
        codec: encodes and decodes the messages, as in :func:`trioglock.serve`.
        requests: where the ids of requests are, as in :func:`trioglock.serve`.
        trace: write a line for each step of every connection.
    """

    subprotocols: Sequence[str] | None
    origins: Origins | None
    close_timeout: float | None
    write_timeout: float | None
    stall_timeout: float | StallTimeout | None
    message_rate: Rate | None
    byte_rate: Rate | None
    max_queue: int | None
    write_limit: int
    overflow: Overflow
    codec: Codec[Any] | None
    requests: RequestFormat | None
    trace: bool


class WebSocketApp:
    """An ASGI application that runs a Socket or handler on each WebSocket, like ``serve()``.

    It needs an ASGI server that runs on trio, such as Hypercorn with ``--worker-class trio``. Use
    it alone or as a route of Starlette or Quart-Trio::

        app = Starlette(routes=[Route("/", page), WebSocketRoute("/feed", WebSocketApp(Feed))])

    Pings, compression, message sizes and handshake timeouts are options of the
    ASGI server. ``handle_ping`` and ``handle_pong`` are not called.

    Args:
        target: as in :func:`trioglock.serve`.
        options: the keys of :class:`ASGIOptions`.

    Raises:
        InvalidOption: an option is of the wrong type or out of range.
        TypeError: an option does not exist.
    """

    @checks_keywords("WebSocketApp", ASGIOptions)
    def __init__(self, target: ServeTargets, **options: Unpack[ASGIOptions]) -> None:
        given: dict[str, Any] = {**options}
        trace = given.pop("trace", False)
        self._upgrades = take_options(UpgradeOptions, given)
        # The ASGI server sends pings.
        flow = ServerFlowOptions(ping_interval=None, ping_timeout=None, **given)
        self.registry: ConnectionRegistry = ConnectionRegistry()
        """The open connections; :meth:`ConnectionRegistry.broadcast` sends to all of them."""
        self._routes = Routes(target, flow, self._upgrades)
        self._measure: Callable[[str | bytes], int] = len if flow.byte_rate is None else _size
        self._runner = ConnectionRunner(flow, self.registry, trace=trace)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection (ASGI 3.0).

        Raises:
            UsageError: the ASGI server does not run on trio.
        """
        if not trio.lowlevel.in_trio_task():
            raise UsageError("WebSocketApp needs an ASGI server on trio: hypercorn -k trio")
        match scope["type"]:
            case "websocket":
                await self._serve(scope, receive, send)
            case "lifespan":
                await _answer_lifespan(receive, send)
            case _:
                await self._respond(scope, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        event = await receive()
        if event["type"] != "websocket.connect":
            return
        request, route = self._find_route(scope)
        offered = tuple(scope.get("subprotocols", ()))
        subprotocol = self._choose(offered)
        wanted = self._upgrades.subprotocols
        allowed = self._is_allowed(request.headers.get("Origin"))
        admitted: object = None
        if route is None or not allowed or (wanted and subprotocol is None):
            admitted = Response(403)
        elif isinstance(route.target, Response):
            admitted = route.target
        elif isinstance(route.target, HandshakeTarget):
            admitted = await self._admit(request, route.target)
        if route is None or isinstance(admitted, Response):
            await send({"type": "websocket.close", "code": 1008})  # the server responds 403
            return
        if route.upgrades.select_subprotocol is not None:
            subprotocol = route.upgrades.select_subprotocol(request, offered)
        handshake = _handshake(scope, request, subprotocol, admitted)
        link = _ASGILink(handshake, receive, send, measure=self._measure)
        async with open_scope() as nursery:
            await self._runner.run(link, route, nursery)

    async def _respond(self, scope: Scope, send: Send) -> None:
        """Respond to plain HTTP."""
        request, route = self._find_route(scope)
        response = Response(404) if route is None else route.respond(request)
        if response is None:
            # RFC 9110, section 15.5.22.
            text = "this address accepts only WebSocket connections\n"
            response = Response(426, text, {"Upgrade": "websocket"})
        headers = [
            (name.lower().encode("latin-1"), value.encode("latin-1"))
            for name, value in response.headers.pairs()
        ]
        start = {"type": "http.response.start", "status": response.status, "headers": headers}
        await send(start)
        body = b"" if request.method == "HEAD" else response.body
        await send({"type": "http.response.body", "body": body})

    def _find_route(self, scope: Scope) -> tuple[Request, Route | None]:
        request = _request(scope)
        # The application may be mounted under a path.
        root = _mount_point(request.path, scope.get("root_path", ""))
        route = self._routes.find(request.path.removeprefix(root))
        if route is not None and route.is_wildcard:
            request = replace(request, prefix=root + route.prefix)
        return request, route

    async def _admit(self, request: Request, target: HandshakeTarget) -> object:
        try:
            return await target._admit(request)  # noqa: SLF001 - a part of the server
        except Exception:
            _logger.exception("%s: the opening handshake failed", request.peer or "a client")
            return Response(500)

    def _choose(self, offered: Sequence[str]) -> str | None:
        return next((name for name in self._upgrades.subprotocols or () if name in offered), None)

    def _is_allowed(self, origin: str | None) -> bool:
        allowed = self._upgrades.origins
        return allowed is None or any(
            one.fullmatch(origin) is not None
            if isinstance(one, re.Pattern) and origin is not None
            else one == origin
            for one in allowed
        )


def _mount_point(path: str, root: str) -> str:
    """Return the prefix of a percent-encoded path that decodes to ``root``; "" if there is none."""
    wanted, segments = root.rstrip("/").split("/"), path.split("/")
    if len(segments) <= len(wanted) or [*map(unquote, segments[: len(wanted)])] != wanted:
        return ""
    return "/".join(segments[: len(wanted)])


def _headers(scope: Scope) -> Headers:
    return Headers(
        (name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]
    )


def _request(scope: Scope) -> Request:
    raw: bytes | None = scope.get("raw_path")
    path = quote(scope["path"]) if raw is None else raw.decode("latin-1").partition("?")[0]
    query = scope.get("query_string", b"").decode("latin-1")
    client: Sequence[Any] | None = scope.get("client")
    return Request(
        target=f"{path}{'?' if query else ''}{query}",
        headers=_headers(scope),
        method=scope.get("method", "GET"),
        # Headers of proxies are not used, because a client could have sent them itself.
        peer="" if client is None else redact_line(f"{client[0]}:{client[1]}"),
        # Some servers pass the HTTP scheme.
        secure=scope.get("scheme", "ws") in ("wss", "https"),
    )


def _handshake(
    scope: Scope, request: Request, subprotocol: str | None, admitted: object
) -> Handshake:
    host = request.headers.get("Host") or ""
    # Not every ASGI server checks the header, and a slash in it would change the path of the URL.
    if not is_host_header(host):
        host = _server_address(scope.get("server"))
    return Handshake(
        url=f"{'wss' if request.secure else 'ws'}://{host}{request.target}",
        subprotocol=subprotocol,
        request_headers=request.headers,
        peer=request.peer,
        request=request,
        admitted=admitted,
    )


def _server_address(server: Sequence[Any] | None) -> str:
    """Return the address of the server; that of a Unix socket has no port."""
    if server is None or server[1] is None:
        return "localhost"
    return f"[{server[0]}]:{server[1]}" if ":" in server[0] else f"{server[0]}:{server[1]}"


def _size(message: str | bytes) -> int:
    """Return the number of bytes; a str is sent as UTF-8."""
    return len(message.encode(errors="replace") if isinstance(message, str) else message)


async def _answer_lifespan(receive: Receive, send: Send) -> None:
    while True:
        event = (await receive())["type"]
        await send({"type": f"{event}.complete"})
        if event == "lifespan.shutdown":
            return


class _ASGILink(Link):
    """One accepted connection of an ASGI server."""

    takes_prepared: bool = True

    def __init__(
        self,
        handshake: Handshake,
        receive: Receive,
        send: Send,
        *,
        measure: Callable[[str | bytes], int],
    ) -> None:
        self.handshake: Handshake = handshake
        self.bytes_received: int = 0
        self.bytes_sent: int = 0
        self._receive = receive
        self._send = send
        self._measure = measure
        self._ended = False
        self._confirmed: Close | None = None
        self._waiting = trio.CancelScope()

    async def respond(self) -> None:
        try:
            await self._send(
                {"type": "websocket.accept", "subprotocol": self.handshake.subprotocol}
            )
        except STREAM_ERRORS as error:
            raise LinkBroken("the client of the ASGI server has disconnected") from error

    async def receive(self) -> list[Event]:
        if self._ended:
            await trio.lowlevel.checkpoint()
            return []
        if self._confirmed is None:
            with trio.CancelScope() as self._waiting:
                return [*self._events(await self._receive())]
        # We have closed the connection; the ASGI server performs the closing handshake.
        self._ended = True
        return [self._confirmed] if self._confirmed is not None else []

    def _events(self, event: MutableMapping[str, Any]) -> list[Event]:
        if event["type"] == "websocket.receive":
            text, data = event.get("text"), event.get("bytes")
            message: str | bytes = text if text is not None else bytes(data or b"")
            self.bytes_received += self._measure(message) + 2
            return [[message]]
        self._ended = True
        code = event.get("code")
        if code is None:
            code = NO_STATUS  # the default of the ASGI specification
        try:
            return [Close(code, event.get("reason") or "" if code != NO_STATUS else "")]
        except ValueError:
            return []  # such as 1006: no Close frame was received

    async def write(self, frames: Sequence[Frame]) -> None:
        try:
            for frame in frames:
                await self._write(frame)
        except STREAM_ERRORS as error:
            raise LinkBroken("the client of the ASGI server has disconnected") from error

    async def _write(self, frame: Frame) -> None:
        match frame:
            case Ping() | Pong():
                return  # not part of ASGI
            case Close(code, reason):
                await self._close(1000 if code == NO_STATUS else code, reason)
                return
            case PreparedMessage():
                data = frame.message
            case str():
                data = frame
            case Fragment():
                raise AssertionError("the link does not take fragments")
            case _:
                data = bytes(frame)
        kind = "text" if isinstance(data, str) else "bytes"
        await self._send({"type": "websocket.send", kind: data})
        self.bytes_sent += len(data) + 2

    async def _close(self, code: int, reason: str) -> None:
        if self._ended or self._confirmed is not None:
            return
        self._confirmed = Close(code, reason)
        await self._send({"type": "websocket.close", "code": code, "reason": reason})
        self._waiting.cancel()

    async def aclose(self) -> None:
        # A client that is still connected receives 1011.
        with trio.move_on_after(CLOSE_TIMEOUT), suppress(*STREAM_ERRORS):
            await self._close(1011, "")
        self._ended = True
        self._waiting.cancel()
