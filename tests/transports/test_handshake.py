"""Successful opening handshakes: the request, and accepted responses."""

from __future__ import annotations

import base64
from typing import Unpack

import pytest
import trio
from trio.testing import MockClock

from tests.transports.servers import (
    CLOSE_1000,
    URL,
    MakeTransport,
    Request,
    close,
    memory_server,
    on_both,
    read_request,
    text,
    upgrade,
    upgrading,
)
from trioglock import ConnectOptions, NativeTransport, connect


async def asked(transport: MakeTransport, /, **options: Unpack[ConnectOptions]) -> Request:
    """The request that these options produce."""
    requests: list[Request] = []
    url = "ws://user:password@memory.test/feed?since=1"
    async with memory_server(upgrading(requests)) as stream:
        options["transport"], options["stream"] = transport(), stream
        async with connect(url, **options):
            pass
    return requests[0]


# The request.


@on_both
async def test_the_request(transport: MakeTransport, autojump_clock: MockClock) -> None:
    """The request is what RFC 6455, section 4.1, asks for, with a fresh key each time."""
    requests = [await asked(transport) for _ in range(2)]
    for request in requests:
        assert request.line == "GET /feed?since=1 HTTP/1.1"
        assert request.headers["Host"] == "memory.test"
        assert request.headers["Upgrade"].lower() == "websocket"
        assert request.headers["Connection"].lower() == "upgrade"
        assert request.headers["Sec-WebSocket-Version"] == "13"
        assert request.headers["User-Agent"].startswith("trioglock/")
        assert len(base64.b64decode(request.headers["Sec-WebSocket-Key"])) == 16
        assert "Origin" not in request.headers
        assert "Sec-WebSocket-Protocol" not in request.headers
        names = [name.lower() for name, _ in request.headers.pairs()]
        assert len(set(names)) == len(names)
    assert len({request.headers["Sec-WebSocket-Key"] for request in requests}) == 2


@on_both
async def test_options_become_headers(transport: MakeTransport, autojump_clock: MockClock) -> None:
    """Origin, user agent and subprotocols are sent as given; None sends no user agent."""
    request = await asked(
        transport,
        origin="https://example.org",
        user_agent_header="Mine/1",
        subprotocols=["a", "b"],
    )
    assert request.headers["Origin"] == "https://example.org"
    assert request.headers["User-Agent"] == "Mine/1"
    assert request.headers["Sec-WebSocket-Protocol"].replace(" ", "") == "a,b"
    assert "User-Agent" not in (await asked(transport, user_agent_header=None)).headers


@on_both
async def test_additional_headers(transport: MakeTransport, autojump_clock: MockClock) -> None:
    """Headers given as a mapping or as pairs are sent as they are, repeated ones too."""
    request = await asked(transport, additional_headers={"X-One": "1", "X-Two": "2"})
    assert (request.headers["X-One"], request.headers["X-Two"]) == ("1", "2")
    request = await asked(transport, additional_headers=[("X-Many", "1"), ("X-Many", "2")])
    assert request.headers.get_all("X-Many") == ["1", "2"]
    request = await asked(transport, additional_headers={"X-Odd": " caf\xe9\tau lait "})
    assert request.headers["X-Odd"].strip() == "caf\xe9\tau lait"


@on_both
@pytest.mark.parametrize(
    ("name", "value"),
    [("Authorization", "Bearer token"), ("authorization", "x"), ("User-Agent", "y"), ("Host", "z")],
)
async def test_explicit_headers_win(
    transport: MakeTransport, name: str, value: str, autojump_clock: MockClock
) -> None:
    """An explicit header replaces the one from the URL or another option."""
    request = await asked(transport, additional_headers={name: value})
    assert request.headers.get_all(name) == [value]


async def test_compression_is_offered_unless_not_wanted(autojump_clock: MockClock) -> None:
    """permessage-deflate is offered by default, and not with ``compression=None``."""
    offered = await asked(NativeTransport)
    assert "permessage-deflate" in offered.headers["Sec-WebSocket-Extensions"]
    assert (
        "Sec-WebSocket-Extensions" not in (await asked(NativeTransport, compression=None)).headers
    )


# Good answers.


@on_both
@pytest.mark.parametrize("headers", [[], ["Sec-WebSocket-Protocol: b"]])
async def test_subprotocol(
    transport: MakeTransport, headers: list[str], autojump_clock: MockClock
) -> None:
    """The server's choice is ``conn.subprotocol``; choosing none is None."""
    async with (
        memory_server(upgrading([], *headers)) as stream,
        connect(URL, transport=transport(), stream=stream, subprotocols=["a", "b"]) as conn,
    ):
        assert conn.subprotocol == ("b" if headers else None)


@on_both
@pytest.mark.parametrize("connection", ["Upgrade", "upgrade", "keep-alive, Upgrade"])
async def test_scenario_35_letter_case_and_lists(
    transport: MakeTransport, connection: str, autojump_clock: MockClock
) -> None:
    """Upgrade and Connection are tokens in any case, Connection a list of them."""
    for protocol in ("websocket", "WebSocket", "WEBSOCKET"):

        async def script(stream: trio.abc.Stream, protocol: str = protocol) -> None:
            request = await read_request(stream)
            await stream.send_all(upgrade(request, connection=connection, protocol=protocol))
            await close(stream)

        async with (
            memory_server(script) as stream,
            connect(URL, transport=transport(), stream=stream) as conn,
        ):
            assert conn.handshake is not None


@on_both
async def test_response_headers(transport: MakeTransport, autojump_clock: MockClock) -> None:
    """The handshake has all received headers, repeated ones and non-ASCII bytes included."""
    headers = ["Set-Cookie: a=1", "Set-Cookie: b=2", "X-Odd: caf\xe9", "X-Empty:"]
    async with (
        memory_server(upgrading([], *headers)) as stream,
        connect(URL, transport=transport(), stream=stream) as conn,
    ):
        assert conn.handshake is not None
        got = conn.handshake.response_headers
    assert got.get_all("Set-Cookie") == ["a=1", "b=2"]
    assert got["X-Odd"] == "caf\xe9"
    assert got["X-Empty"] == ""


@on_both
@pytest.mark.parametrize("cut", [1, 7, 150, 1000])
async def test_scenario_34_frames_right_behind_the_101(
    transport: MakeTransport, cut: int, autojump_clock: MockClock
) -> None:
    """Frames that come with the 101 are delivered, however the bytes are cut into packets."""

    async def script(stream: trio.abc.Stream) -> None:
        data = upgrade(await read_request(stream)) + text("early") + text("bird") + CLOSE_1000
        for start in range(0, len(data), cut):
            await stream.send_all(data[start : start + cut])
            await trio.sleep(0.001)
        await stream.receive_some()

    async with (
        memory_server(script) as stream,
        connect(URL, transport=transport(), stream=stream) as conn,
    ):
        assert [message async for message in conn] == ["early", "bird"]
