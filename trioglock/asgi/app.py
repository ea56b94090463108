"""``WebSocketApp``: an ASGI application that runs a target on each WebSocket."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import trio

from .._redact import redact_line
from ..errors import UsageError
from ..headers import Headers
from ..options import FlowOptions, Overflow
from ..server import ConnectionRegistry, ConnectionRunner, Target
from ..transports import Handshake, Origins, UpgradeOptions
from .link import ASGILink, Receive, Scope, Send

__all__ = ["WebSocketApp"]

# Not every ASGI server looks: with a slash or a question mark the URL would have another path.
_is_host = re.compile(r"[^\s/?#@\\\[\]]+|\[[0-9A-Fa-f:.]+\](:\d+)?").fullmatch


class WebSocketApp:
    """Runs the Socket or handler that ``serve()`` would run, inside an ASGI application.

    On an ASGI server that runs on trio, such as Hypercorn with ``--worker-class trio``; beside
    the routes of Starlette or Quart-Trio::

        app = Starlette(routes=[Route("/", page), WebSocketRoute("/feed", WebSocketApp(Feed))])

    The ASGI server speaks WebSocket: pings, compression, the size of messages and time-outs of
    the handshake are its options. ``handle_ping`` and ``handle_pong`` are not called.

    Args:
        target: as for :func:`trioglock.serve`.
        subprotocols: in the order of preference; a client that offers none of them gets 403.
        origins: as for :func:`trioglock.serve`; others get 403.
        close_timeout: seconds for everything between the decision to close and the end.
        write_timeout: seconds without any progress of a write.
        max_queue: messages that may wait to be received before reading stops.
        write_limit: bytes that may wait to be written before ``send`` waits.
        overflow: what happens at ``max_queue``.
        trace: write a line for each step of every connection.

    Raises:
        InvalidOption: one of these does not fit.
    """

    def __init__(
        self,
        target: Target,
        *,
        subprotocols: Sequence[str] | None = None,
        origins: Origins | None = None,
        close_timeout: float | None = 10,
        write_timeout: float | None = 60,
        max_queue: int | None = 16,
        write_limit: int = 2**16,
        overflow: Overflow = "wait",
        trace: bool = False,
    ) -> None:
        flow = FlowOptions(
            ping_interval=None,
            ping_timeout=None,
            close_timeout=close_timeout,
            write_timeout=write_timeout,
            max_queue=max_queue,
            write_limit=write_limit,
            overflow=overflow,
        )
        self._upgrades = UpgradeOptions(subprotocols=subprotocols, origins=origins)
        self.roster: ConnectionRegistry = ConnectionRegistry()
        """Who is connected; it can ``broadcast(frame)``, too."""
        self._program = ConnectionRunner(target, flow, self.roster, trace=trace)

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
                await _live(receive, send)
            case _:
                await _say_websockets_only(send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        event = await receive()
        if event["type"] != "websocket.connect":
            return
        headers = _headers(scope)
        subprotocol = self._choose(scope.get("subprotocols", ()))
        wanted = self._upgrades.subprotocols
        if not self._is_welcome(headers.get("Origin")) or (wanted and subprotocol is None):
            await send({"type": "websocket.close", "code": 1008})
            return
        await send({"type": "websocket.accept", "subprotocol": subprotocol})
        await self._program.run(ASGILink(_handshake(scope, headers, subprotocol), receive, send))

    def _choose(self, offered: Sequence[str]) -> str | None:
        return next((name for name in self._upgrades.subprotocols or () if name in offered), None)

    def _is_welcome(self, origin: str | None) -> bool:
        """See :func:`trioglock.serve` on origins."""
        allowed = self._upgrades.origins
        return allowed is None or any(
            one.fullmatch(origin) is not None
            if isinstance(one, re.Pattern) and origin is not None
            else one == origin
            for one in allowed
        )


def _headers(scope: Scope) -> Headers:
    return Headers(
        (name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]
    )


def _handshake(scope: Scope, headers: Headers, subprotocol: str | None) -> Handshake:
    raw: bytes | None = scope.get("raw_path")
    path = quote(scope["path"]) if raw is None else raw.decode("latin-1").partition("?")[0]
    query = scope.get("query_string", b"").decode("latin-1")
    client: Sequence[Any] | None = scope.get("client")
    server: Sequence[Any] = scope.get("server") or ("", 0)
    host = headers.get("Host") or ""
    if not _is_host(host):
        host = f"{server[0]}:{server[1]}"
    return Handshake(
        url=f"{scope.get('scheme', 'ws')}://{host}{path}{'?' if query else ''}{query}",
        subprotocol=subprotocol,
        request_headers=headers,
        # Proxies tell it in a header, and may have it from the client itself.
        peer="" if client is None else redact_line(f"{client[0]}:{client[1]}"),
    )


async def _live(receive: Receive, send: Send) -> None:
    """An application by itself is asked to start and to stop."""
    while True:
        event = (await receive())["type"]
        await send({"type": f"{event}.complete"})
        if event == "lifespan.shutdown":
            return


async def _say_websockets_only(send: Send) -> None:
    """Plain HTTP gets 426 (RFC 9110, section 15.5.22)."""
    headers = [(b"content-type", b"text/plain"), (b"upgrade", b"websocket")]
    await send({"type": "http.response.start", "status": 426, "headers": headers})
    await send({"type": "http.response.body", "body": b"this address speaks WebSocket only\n"})
