"""Responses to the opening handshake, compared with what websockets makes of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
import trio
from trio.testing import MockClock
from websockets.client import ClientProtocol
from websockets.datastructures import Headers
from websockets.exceptions import InvalidHandshake as LibraryInvalidHandshake
from websockets.extensions.permessage_deflate import enable_client_permessage_deflate
from websockets.http11 import Response
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from tests.transports.servers import (
    URL,
    Request,
    close,
    memory_server,
    read_request,
    response,
    upgrade,
)
from trioglock import InvalidHandshake, connect

EXTENSIONS = "Sec-WebSocket-Extensions"
UPGRADE = ["Upgrade: websocket", "Connection: Upgrade"]

# Headers of a 101, apart from Sec-WebSocket-Accept.
RESPONSES: Mapping[str, Sequence[str]] = {
    "the least": UPGRADE,
    "many headers": ["Server: x", "Set-Cookie: a=b", "Set-Cookie: c=d", *UPGRADE],
    "lower case": ["upgrade: websocket", "connection: upgrade"],
    "a list": ["Upgrade: WebSocket", "Connection: keep-alive ,Upgrade"],
    "a malformed list": ["Upgrade: websocket", "Connection: Upgrade, @"],
    "no upgrade": ["Upgrade: h2c", "Connection: Upgrade"],
    "two upgrades": ["Upgrade: websocket, h2c", "Connection: Upgrade"],
    "a split list": [*UPGRADE, "Connection: keep-alive"],
    "no connection": ["Upgrade: websocket"],
    "another connection": ["Upgrade: websocket", "Connection: close"],
    "deflate": [*UPGRADE, f"{EXTENSIONS}: permessage-deflate"],
    "parameters": [
        *UPGRADE,
        f"{EXTENSIONS}: permessage-deflate; server_no_context_takeover; client_max_window_bits=11",
    ],
    "a quoted value": [*UPGRADE, f'{EXTENSIONS}: permessage-deflate; server_max_window_bits="9"'],
    "an invalid value": [*UPGRADE, f"{EXTENSIONS}: permessage-deflate; server_max_window_bits=7"],
    "an unknown parameter": [*UPGRADE, f"{EXTENSIONS}: permessage-deflate; fast"],
    "deflate twice": [*UPGRADE, f"{EXTENSIONS}: permessage-deflate, permessage-deflate"],
    "another extension": [*UPGRADE, f"{EXTENSIONS}: mux"],
    "a malformed extension": [*UPGRADE, f"{EXTENSIONS}: permessage-deflate; ="],
    "a subprotocol": [*UPGRADE, "Sec-WebSocket-Protocol: b"],
    "no subprotocol of ours": [*UPGRADE, "Sec-WebSocket-Protocol: x"],
    "two subprotocols": [*UPGRADE, "Sec-WebSocket-Protocol: a, b"],
}


def accept_line(request: Request) -> str:
    """The line that answers the key of a request."""
    lines = upgrade(request).decode().split("\r\n")
    [line] = [line for line in lines if line.startswith("Sec-WebSocket-Accept: ")]
    return line


def library(
    request: Request, lines: Sequence[str], *, compression: bool
) -> tuple[str | None, list[str]] | None:
    """The subprotocol and the extensions that websockets agrees to; None if it does not."""
    protocol = ClientProtocol(
        parse_uri(URL),
        extensions=enable_client_permessage_deflate(None) if compression else None,
        subprotocols=[Subprotocol("a"), Subprotocol("b")],
    )
    protocol.key = request.headers["Sec-WebSocket-Key"]
    headers = Headers((line.partition(": ")[0], line.partition(": ")[2]) for line in lines)
    try:
        protocol.process_response(Response(101, "Switching Protocols", headers))
    except LibraryInvalidHandshake:
        return None
    return protocol.subprotocol, [extension.name for extension in protocol.extensions]


@pytest.mark.parametrize("compression", [True, False], ids=["deflate", "plain"])
@pytest.mark.parametrize("headers", RESPONSES.values(), ids=list(RESPONSES))
async def test_the_decision_is_that_of_websockets(
    headers: Sequence[str],
    compression: bool,
    autojump_clock: MockClock,
) -> None:
    """Accepted with the same terms, or rejected."""
    expected: list[tuple[str | None, list[str]] | None] = []

    async def script(stream: trio.abc.Stream) -> None:
        request = await read_request(stream)
        lines = [*headers, accept_line(request)]
        expected.append(library(request, lines, compression=compression))
        await stream.send_all(response("101 Switching Protocols", *lines))
        await close(stream)

    agreed = None
    async with memory_server(script) as stream:
        try:
            async with connect(
                URL,
                stream=stream,
                subprotocols=["a", "b"],
                compression="deflate" if compression else None,
            ) as conn:
                assert conn.handshake is not None
                agreed = conn.subprotocol, list(conn.handshake.extensions)
        except InvalidHandshake:
            pass
    assert [agreed] == expected
