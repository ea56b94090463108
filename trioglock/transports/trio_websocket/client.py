"""The client's side of a connection of trio-websocket."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import trio
from trio_websocket import WebSocketConnection, wrap_client_stream
from websockets.headers import build_authorization_basic, build_host

from ..._redact import without_user_info
from ...errors import ConnectError, InvalidHandshake
from ...headers import Headers
from ...options import DialOptions
from ..addresses import WebSocketURI
from ..base import Handshake
from ..http_responses import read_answer, unbroken
from ..tcp import describe_peer
from .link import NO_LIMIT, Tap, TrioWebsocketLink

__all__ = ["ClientLink"]


class ClientLink(TrioWebsocketLink):
    """A connection that we have opened.

    Args:
        stream: open, to the server.
        uri: what it was opened for.
        options: what to ask of the server.
    """

    def __init__(self, stream: trio.abc.Stream, uri: WebSocketURI, options: DialOptions) -> None:
        # Its tasks know nothing of the time-outs of whoever dials.
        deadline = trio.current_effective_deadline()
        super().__init__(_ClientTap(stream, deadline, options.subprotocols))
        self._uri = uri
        self._options = options

    async def _upgrade(self, nursery: trio.Nursery) -> WebSocketConnection:
        uri, options = self._uri, self._options
        headers = _request_headers(uri, options)
        websocket = await wrap_client_stream(
            nursery,
            self._tap,  # type: ignore[arg-type]
            options.additional_headers.get("Host", build_host(uri.host, uri.port, uri.secure)),
            uri.resource_name,
            subprotocols=options.subprotocols,
            extra_headers=[
                # The library refuses white space around a value, and shows what it refuses.
                (name.encode("latin-1"), value.strip(" \t").encode("latin-1"))
                for name, value in headers.pairs()
            ],
            max_message_size=NO_LIMIT if options.max_size is None else options.max_size,
            receive_buffer_size=2**16,
        )
        response = [
            (name.decode("latin-1"), value.decode("latin-1"))
            for name, value in websocket.handshake_headers
        ]
        if websocket.subprotocol is not None:
            # The library takes this one out.
            response.append(("Sec-WebSocket-Protocol", websocket.subprotocol))
        self.handshake: Handshake = Handshake(
            url=without_user_info(options.url),
            subprotocol=websocket.subprotocol,
            request_headers=headers,
            response_headers=Headers(response),
            peer=describe_peer(self._tap.stream),
        )
        return websocket

    def _refused(self, error: Exception) -> Exception:
        return _refusal(error)


class _ClientTap(Tap):
    """It reads the answer to the handshake.

    The library would wait for ever for a peer that has gone, and forget what refuses it: it gets
    to see nothing but a 101. Our errors pass through its tasks.
    """

    def __init__(self, stream: trio.abc.Stream, deadline: float, offered: Sequence[str]) -> None:
        super().__init__(stream)
        self._deadline = deadline
        self._offered = offered
        self._answered = False

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        if self._answered:
            return await super().receive_some(max_bytes)
        answer = await read_answer(self.stream, self._deadline, self._offered)
        self._answered = True
        data = answer.head + answer.rest
        self.bytes_received += len(data)
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        with nullcontext() if self._answered else unbroken():
            await super().send_all(data)


def _request_headers(uri: WebSocketURI, options: DialOptions) -> Headers:
    headers = options.additional_headers
    extra: list[tuple[str, str]] = []
    if uri.user_info is not None and "authorization" not in headers:
        extra.append(("Authorization", build_authorization_basic(*uri.user_info)))
    if options.origin is not None:
        extra.append(("Origin", options.origin))
    if options.user_agent_header is not None and "user-agent" not in headers:
        extra.append(("User-Agent", options.user_agent_header))
    # The library writes the Host header itself.
    return Headers([*extra, *headers.without("host").pairs()])


def _refusal(error: BaseException) -> ConnectError:
    """What an error of the library's tasks during the handshake means."""
    if isinstance(error, ConnectError):
        return error
    # The library answers a bad 101, cannot, and raises that; what was wrong comes before.
    while error.__context__ is not None:
        error = error.__context__
    refusal = InvalidHandshake(f"the answer is not a WebSocket handshake: {error}")
    refusal.__cause__ = error
    return refusal
