"""Successful opening handshakes: the request, and accepted responses."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Unpack

import pytest
import trio
from trio.testing import MockClock

from tests.transports.servers import (
    CLOSE_1000,
    URL,
    MakeTransport,
    Request,
    answering,
    close,
    connect_error,
    hold,
    memory_server,
    on_both,
    read_request,
    response,
    text,
    upgrade,
    upgrading,
)
from trioglock import (
    ConnectOptions,
    HandshakeRefused,
    InvalidHandshake,
    NativeTransport,
    connect,
)


async def asked(transport: MakeTransport, /, **options: Unpack[ConnectOptions]) -> Request:
    """The request that these options produce."""
    requests: list[Request] = []
    url = "ws://user:password@memory.test/feed?since=1"
    async with memory_server(upgrading(requests)) as stream:
        options["transport"], options["stream"] = transport(), stream
        async with connect(url, **options):
            pass
    return requests[0]


# The response.

EARLY_HINTS = response("103 Early Hints", "Link: </style.css>; rel=preload")
NO_REASON = (b"101 Switching Protocols", b"101")


@on_both
@pytest.mark.parametrize(
    "interim",
    [
        response("100 Continue"),
        response("102 Processing") + EARLY_HINTS,
        EARLY_HINTS * 16,
        response("199"),
    ],
)
@pytest.mark.parametrize("size", [1, 10, 10_000])
async def test_fault_13_interim_responses_are_skipped(
    interim: bytes, size: int, transport: MakeTransport, autojump_clock: MockClock
) -> None:
    """RFC 9110, section 15.2; in one chunk with the response, or in pieces."""

    async def script(stream: trio.abc.Stream) -> None:
        data = interim + upgrade(await read_request(stream)) + text("hello")
        for start in range(0, len(data), size):
            await stream.send_all(data[start : start + size])
        await close(stream)

    async with (
        memory_server(script) as stream,
        connect(URL, stream=stream, transport=transport()) as conn,
    ):
        assert conn.handshake is not None
        assert "Link" not in conn.handshake.response_headers
        assert await conn.receive() == "hello"


async def test_fault_13_before_a_refusal(autojump_clock: MockClock) -> None:
    """The status and the headers are those of the last response."""
    script = answering(EARLY_HINTS + response("401 Who?", "X: y", "Content-Length: 2", body=b"no"))
    error, _ = await connect_error(script)
    assert isinstance(error, HandshakeRefused)
    assert (error.status, error.body, error.headers["X"]) == (401, b"no", "y")


@on_both
@pytest.mark.parametrize(
    "interim",
    [EARLY_HINTS * 17, response("103 Hints", f"Link: {'x' * 9_000}") * 5, b"HTTP/1.1 103"],
    ids=["too many", "too large", "incomplete"],
)
async def test_fault_13_interim_responses_are_limited(
    interim: bytes, transport: MakeTransport, autojump_clock: MockClock
) -> None:
    """In number, and in size together with the response."""

    async def script(stream: trio.abc.Stream) -> None:
        data = upgrade(await read_request(stream))
        await stream.send_all(interim + data)
        await hold(stream)

    error, seconds = await connect_error(script, transport)
    assert isinstance(error, InvalidHandshake)
    assert seconds < 1


@on_both
@pytest.mark.parametrize(
    "headers",
    [("Set-Cookie: " + "x" * 30_000,), [f"X-{n}: y" for n in range(1000)]],
    ids=["one long header", "many headers"],
)
async def test_fault_16_only_the_whole_head_of_a_response_is_limited(
    headers: Sequence[str], transport: MakeTransport, autojump_clock: MockClock
) -> None:
    """By ``max_header_size``, in a 101 as well as in a refusal."""
    requests: list[Request] = []
    async with (
        memory_server(upgrading(requests, *headers)) as stream,
        connect(URL, stream=stream, transport=transport()) as conn,
    ):
        assert conn.handshake is not None
        assert len(conn.handshake.response_headers) >= len(headers)
    error, _ = await connect_error(answering(response("401 No", *headers)), transport)
    assert isinstance(error, HandshakeRefused)
    script = answering(response("101 Switching Protocols", *headers))
    error, _ = await connect_error(script, transport, max_header_size=5_000)
    assert isinstance(error, InvalidHandshake)
    assert "larger than 5000 bytes; increase max_header_size to allow more" in str(error)


@on_both
@pytest.mark.parametrize("value", ["", " ", "\t ", ",", " ,,"])
async def test_fault_17_what_is_empty_in_a_response_is_read_as_absent(
    value: str, transport: MakeTransport, autojump_clock: MockClock
) -> None:
    """Lists without an element, and the reason."""
    headers = (f"Sec-WebSocket-Protocol:{value}", f"sec-websocket-extensions:{value}")

    async def script(stream: trio.abc.Stream) -> None:
        await stream.send_all(upgrade(await read_request(stream), *headers).replace(*NO_REASON))
        await close(stream)

    for offered in ([], ["a"]):
        async with (
            memory_server(script) as stream,
            connect(URL, stream=stream, transport=transport(), subprotocols=offered) as conn,
        ):
            assert conn.subprotocol is None
            assert conn.handshake is not None
            assert conn.handshake.extensions == ()


@on_both
async def test_fault_36_a_server_that_expects_tls(
    transport: MakeTransport, autojump_clock: MockClock
) -> None:
    """It answers a ``ws://`` URL with an alert."""
    error, _ = await connect_error(answering(b"\x15\x03\x01\x00\x02\x02\x46"), transport)
    assert isinstance(error, InvalidHandshake)
    assert "the server expects TLS: use a wss:// URL" in str(error)


@pytest.mark.parametrize("more", ["", "; server_no_context_takeover", "; x"])
async def test_fault_18_a_window_of_eight_bits_is_accepted(
    more: str, autojump_clock: MockClock
) -> None:
    """The offer allows any (RFC 7692, section 7.1.2.2); messages are then sent uncompressed."""
    received = b""

    async def script(stream: trio.abc.Stream) -> None:
        nonlocal received
        agreed = f"permessage-deflate; client_max_window_bits=8{more}"
        request = await read_request(stream)
        await stream.send_all(upgrade(request, f"Sec-WebSocket-Extensions: {agreed}"))
        received = bytes(await stream.receive_some())
        # "Hello", compressed (RFC 7692, section 7.2.3.1).
        await stream.send_all(b"\xc1\x07\xf2\x48\xcd\xc9\xc9\x07\x00")
        await close(stream)

    if more == "; x":
        error, _ = await connect_error(script)
        assert isinstance(error, InvalidHandshake)
        return
    async with memory_server(script) as stream, connect(URL, stream=stream) as conn:
        assert conn.handshake is not None
        assert conn.handshake.extensions == ("permessage-deflate",)
        await conn.send("x" * 100)
        assert await conn.receive() == "Hello"
    assert received[:2] == b"\x81\xe4"  # without RSV1


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
