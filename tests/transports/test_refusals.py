"""Failed opening handshakes: garbage, silence, disconnects and refusals.

Both transports read the response with the same function, so bodies are tested on one of them.
"""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from tests.cases import case_of
from tests.transports.servers import (
    MakeTransport,
    Script,
    answering,
    connect_error,
    hold,
    on_both,
    read_request,
    response,
    upgrade,
)
from trioglock import (
    ConnectFailed,
    HandshakeRefused,
    InvalidHandshake,
    NativeTransport,
    OpenTimeout,
    TrioWebsocketTransport,
)

# Bad answers.


def changed(*changes: tuple[bytes, bytes], headers: tuple[str, ...] = ()) -> Script:
    """A script that sends a modified 101 and stays connected."""

    async def script(stream: trio.abc.Stream) -> None:
        data = upgrade(await read_request(stream), *headers)
        for old, new in changes:
            assert old in data
            data = data.replace(old, new)
        await stream.send_all(data)
        await hold(stream)

    return script


def staying(data: bytes) -> Script:
    """A script that answers this and stays."""

    async def script(stream: trio.abc.Stream) -> None:
        await answering(data)(stream)
        await hold(stream)

    return script


def endless(data: bytes) -> Script:
    """A script that sends a head without an end."""

    async def script(stream: trio.abc.Stream) -> None:
        await answering(b"HTTP/1.1 101 Switching Protocols\r\n")(stream)
        while True:
            await stream.send_all(data)

    return script


def long_line(start: bytes) -> Script:
    """A script that sends a line of 10 MB."""

    async def script(stream: trio.abc.Stream) -> None:
        await answering(start)(stream)
        for _ in range(160):
            await stream.send_all(b"x" * 2**16)
        await hold(stream)

    return script


UPGRADE = b"Upgrade: websocket\r\n"
CONNECTION = b"Connection: Upgrade\r\n"
# Both transports read the head with the same function.
MALFORMED = {
    "endless headers": endless(b"X-Filler: " + b"x" * 1000 + b"\r\n"),
    "endless small headers": endless(b"X: y\r\n" * 100),
    "a status line of 10 MB": long_line(b"HTTP/1.1 101 "),
    "a header of 10 MB": long_line(b"HTTP/1.1 101 Switching Protocols\r\nX: "),
    "HTTP/2": staying(b"HTTP/2 101\r\n\r\n"),
    "header without colon": changed((UPGRADE, b"Upgrade websocket\r\n" + UPGRADE)),
    "header name with a space": changed((UPGRADE, b"X Y: z\r\n" + UPGRADE)),
    "NUL in a header": changed((UPGRADE, b"X: a\0b\r\n" + UPGRADE)),
    "garbage": staying(bytes(range(32, 127)) + b"\r\n\r\n"),
    "binary garbage": staying(bytes(range(256)) * 40),
    "bare line feeds": staying(b"HTTP/1.1 101 Switching Protocols\nUpgrade: websocket\n\n"),
    "status that is no number": staying(b"HTTP/1.1 abc Switching\r\n\r\n"),
    "status 99": staying(b"HTTP/1.1 099 Low\r\n\r\n"),
    "HTTP/1.0": changed((b"HTTP/1.1", b"HTTP/1.0")),
    "SSH": staying(b"SSH-2.0-OpenSSH_9.6\r\n"),
}
INVALID = {
    "wrong Accept": changed((b"Sec-WebSocket-Accept: ", b"Sec-WebSocket-Accept: AA")),
    "no Accept": changed((b"Sec-WebSocket-Accept", b"X-Accept")),
    "no Upgrade": changed((UPGRADE, b"")),
    "Upgrade to something else": changed((UPGRADE, b"Upgrade: h2c\r\n")),
    "no Connection": changed((CONNECTION, b"")),
    "Connection: close": changed((CONNECTION, b"Connection: close\r\n")),
    "unrequested subprotocol": changed(headers=("Sec-WebSocket-Protocol: chat",)),
    "unknown extension": changed(headers=("Sec-WebSocket-Extensions: x-magic",)),
    "extension that is none": changed(headers=("Sec-WebSocket-Extensions: ;;=",)),
}


INVALID_RESPONSES: list[tuple[str, MakeTransport, Script]] = [
    *((name, NativeTransport, script) for name, script in (MALFORMED | INVALID).items()),
    *((f"trio-websocket, {name}", TrioWebsocketTransport, INVALID[name]) for name in INVALID),
]


async def test_scenario_39_an_invalid_response(autojump_clock: MockClock) -> None:
    """A response that is not a WebSocket handshake is InvalidHandshake immediately."""
    for name, transport, script in INVALID_RESPONSES:
        with case_of(name):
            error, seconds = await connect_error(script, transport)
            assert type(error) is InvalidHandshake
            assert str(error)
            assert seconds < 1


@on_both
async def test_scenario_39_a_subprotocol_that_was_not_offered(
    transport: MakeTransport, autojump_clock: MockClock
) -> None:
    """The server may only choose one of those that we know."""
    script = changed(headers=("Sec-WebSocket-Protocol: chat",))
    error, seconds = await connect_error(script, transport, subprotocols=["a", "b"])
    assert type(error) is InvalidHandshake
    assert seconds < 1


@on_both
@pytest.mark.parametrize(
    "part", [b"", b"HTTP/1", b"HTTP/1.1 101 Switching Protocols\r\n", b"HTTP/1.1 101 OK\r\nUpg"]
)
async def test_a_server_that_hangs_up(
    transport: MakeTransport, part: bytes, autojump_clock: MockClock
) -> None:
    """The end of the stream before the end of the headers is ConnectFailed immediately."""
    error, seconds = await connect_error(answering(part), transport)
    assert type(error) is ConnectFailed
    assert "closed the connection" in str(error)
    assert seconds < 1


@on_both
async def test_a_server_that_hangs_up_unasked(
    transport: MakeTransport, autojump_clock: MockClock
) -> None:
    """A stream that breaks before the request is sent is ConnectFailed."""

    async def script(stream: trio.abc.Stream) -> None:
        await stream.aclose()

    error, seconds = await connect_error(script, transport)
    assert type(error) is ConnectFailed
    assert seconds < 1


@on_both
async def test_scenario_39_a_101_that_never_ends(
    transport: MakeTransport, autojump_clock: MockClock
) -> None:
    """A server that trickles its headers, each in good time, does not extend ``open_timeout``."""

    async def script(stream: trio.abc.Stream) -> None:
        await answering(b"HTTP/1.1 101 Switching Protocols\r\nX: ")(stream)
        while True:
            await trio.sleep(1)
            await stream.send_all(b"x")

    error, seconds = await connect_error(script, transport, open_timeout=30)
    assert type(error) is OpenTimeout
    assert isinstance(error, TimeoutError)
    assert "30 seconds" in str(error)
    assert seconds == pytest.approx(30)


# Refusals.


@on_both
@pytest.mark.parametrize("status", [200, 204, 304, 400, 401, 403, 404, 429, 500, 503])
async def test_a_refusal_keeps_everything(
    transport: MakeTransport, status: int, autojump_clock: MockClock
) -> None:
    """Status, headers and body of a refusal are in the error, and the status in its text."""
    body = b"" if status in (204, 304) else b"no entry"
    script = answering(
        response(f"{status} Not Now", f"Content-Length: {len(body)}", "Retry-After: 7", body=body)
    )
    error, seconds = await connect_error(script, transport)
    assert type(error) is HandshakeRefused
    assert (error.status, error.body) == (status, body)
    assert error.headers["retry-after"] == "7"
    assert str(status) in str(error)
    assert seconds < 1


STUCK = {
    "length": response("503 Busy", "Content-Length: 1000", body=b"no entry"),
    "chunked": response("503 Busy", "Transfer-Encoding: chunked", body=b"8\r\nno entry\r\n"),
    "until the end": response("503 Busy", body=b"no entry"),
}
WHOLE = {
    "length": response("403 Forbidden", "Content-Length: 8", body=b"no entry"),
    "chunked": response(
        "403 Forbidden",
        "Transfer-Encoding: chunked",
        body=b"3\r\nno \r\n5;x=y\r\nentry\r\n0\r\nX-Trailer: z\r\n\r\n",
    ),
    "until the end": response("403 Forbidden", "Connection: close", body=b"no entry"),
    "HTTP/1.0": b"HTTP/1.0 403 Forbidden\r\n\r\nno entry",
}


def in_packets(data: bytes, size: int) -> Script:
    return answering(*(data[start : start + size] for start in range(0, len(data), size)))


# The body is whole, cut short, of an invalid length (RFC 9112, section 6.3), or absent.
REFUSALS: dict[str, tuple[Script, int, bytes]] = {
    **{
        f"{kind}, packets of {size}": (in_packets(data, size), 403, b"no entry")
        for kind, data in WHOLE.items()
        for size in (1, 5, 1000)
    },
    **{
        f"{kind}, cut short": (answering(STUCK[kind]), 503, b"no entry")
        for kind in ("length", "chunked")
    },
    **{
        f"length {length[:4]}": (
            answering(response("503 Busy", f"Content-Length: {length}", body=b"no entry")),
            503,
            b"",
        )
        for length in ("-1", "1e3", "9" * 5000, "\xb2")
    },
    **{
        f"{status}, the server stays": (staying(response(f"{status} So")), status, b"")
        for status in (204, 304)
    },
}


async def test_the_body_of_a_refusal(autojump_clock: MockClock) -> None:
    """The status is reported immediately, with the body as far as it can be read."""
    for name, (script, status, body) in REFUSALS.items():
        with case_of(name):
            error, seconds = await connect_error(script)
            assert type(error) is HandshakeRefused
            assert (error.status, error.body) == (status, body)
            assert seconds < 1


async def test_the_phrase_is_kept(autojump_clock: MockClock) -> None:
    """The text of the status line is in the error."""
    error, _ = await connect_error(answering(response("418 I'm a teapot", "Content-Length: 0")))
    assert isinstance(error, HandshakeRefused)
    assert error.phrase == "I'm a teapot"
    assert str(error).endswith("418 I'm a teapot")


@pytest.mark.parametrize("trickle", [False, True], ids=["silent", "trickling"])
@pytest.mark.parametrize("kind", STUCK)
async def test_a_body_that_never_ends(kind: str, trickle: bool, autojump_clock: MockClock) -> None:
    """The status of a refusal is not kept waiting for its body, nor lost with it."""

    async def script(stream: trio.abc.Stream) -> None:
        await answering(STUCK[kind])(stream)
        while trickle:
            await trio.sleep(0.5)
            await stream.send_all(b"1\r\nx\r\n" if kind == "chunked" else b"x")
        await hold(stream)

    error, seconds = await connect_error(script)
    assert type(error) is HandshakeRefused
    assert error.status == 503
    assert error.body.startswith(b"no entry")
    assert seconds <= 2.5


async def test_a_short_open_timeout_keeps_the_status(autojump_clock: MockClock) -> None:
    """A body that does not end in time is no OpenTimeout: the server has answered."""
    error, seconds = await connect_error(staying(STUCK["length"]), open_timeout=1)
    assert type(error) is HandshakeRefused
    assert (error.status, error.body) == (503, b"no entry")
    assert seconds < 1


@pytest.mark.parametrize("end", [b"zz\r\n", b"3\r\nno\r\n", b"-5\r\n", b"5" * 100])
async def test_bad_chunks(end: bytes, autojump_clock: MockClock) -> None:
    """A body that is framed wrongly is kept as far as it could be read."""
    error, seconds = await connect_error(staying(STUCK["chunked"] + end))
    assert type(error) is HandshakeRefused
    assert error.body.startswith(b"no entry")
    assert seconds <= 2.5


@pytest.mark.parametrize("kind", ["length", "until the end"])
async def test_a_body_of_many_megabytes(kind: str, autojump_clock: MockClock) -> None:
    """A huge body neither fills the memory nor hides the status."""

    async def script(stream: trio.abc.Stream) -> None:
        headers = ["Content-Length: 16777216"] if kind == "length" else []
        await answering(response("500 Oops", *headers))(stream)
        for _ in range(256):
            await stream.send_all(b"x" * 2**16)

    error, seconds = await connect_error(script)
    assert type(error) is HandshakeRefused
    assert error.status == 500
    assert error.body == b"x" * 2**20
    assert seconds <= 2.5
