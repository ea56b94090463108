"""Invalid or oversized requests: each gets its status and one log line."""

from __future__ import annotations

import pytest

from tests.server.helpers import Echo, logged, plain_request, request, serving
from trioglock import TrioWebsocketTransport

BAD_REQUESTS: dict[str, tuple[bytes, int]] = {
    "a post": (plain_request("/", "POST"), 405),
    "a body": (plain_request("/", "POST", "Content-Length: 5") + b"hello", 400),
    "a chunked body": (plain_request("/", "POST", "Transfer-Encoding: chunked"), 400),
    "HTTP/1.0": (request().replace(b"HTTP/1.1", b"HTTP/1.0"), 505),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "no key": (request(Sec_WebSocket_Key=None), 400),
    "a short key": (request(Sec_WebSocket_Key="c2hvcnQ="), 400),
    "no base64": (request(Sec_WebSocket_Key="!!!"), 400),
    "another version": (request(Sec_WebSocket_Version="12"), 400),
    "no host": (request(Host=None), 400),
    "a bad host": (request(Host="user@elsewhere"), 400),
    "two hosts": (request(X="1\r\nHost: other"), 400),
    "an absolute target": (request("http://elsewhere/"), 400),
    "control characters in the target": (request("/a\x01\x1b[2J"), 400),
    "a bad extension": (request(Sec_WebSocket_Extensions="=;="), 400),
    "words": (b"HELO there\r\n\r\n", 400),
    "HTTP/1.2": (request().replace(b"HTTP/1.1", b"HTTP/1.2"), 400),
    "empty lines first": (b"\r\n\r\n" + request(), 400),
    "an obsolete line fold": (request(X="1\r\n 2"), 400),
    "a space before the colon": (request().replace(b"Upgrade: w", b"Upgrade : w"), 400),
    "length and chunks": (
        plain_request("/", "POST", "Content-Length: 3", "Transfer-Encoding: chunked"),
        400,
    ),
    "two lengths": (plain_request("/", "POST", "Content-Length: 0", "Content-Length: 1"), 400),
    # RFC 9110, section 9.1; methods are case-sensitive.
    "an unknown method": (plain_request("/", "BREW"), 501),
    "a method in lower case": (plain_request("/", "get"), 501),
    "a method of another protocol": (plain_request("/", "DESCRIBE"), 501),
    "an unknown method without a target": (b"BREW HTTP/1.1\r\n\r\n", 400),
    "an unknown method in a long line": (plain_request(f"/{'x' * 9000}", "BREW"), 400),
    "a method that is not a token": (plain_request("/", "BR(EW"), 400),
    "no name": (request().replace(b"Upgrade: w", b": w"), 400),
    "a TLS greeting": (b"\x16\x03\x01\x02\x00\x01", 400),
    "bare line feeds": (request().replace(b"\r\n", b"\n"), 400),
    "a long request line": (request(f"/{'x' * 9000}"), 414),
    "a long header": (request(X="x" * 9000), 431),
    "many headers": (request(**{f"x{n}": "y" for n in range(200)}), 431),
    "a head without end": (b"GET / HTTP/1.1\r\n" + (b"X: " + b"y" * 1000 + b"\r\n") * 100, 431),
    "a large head": (request(**{f"x{n}": "y" * 1000 for n in range(40)}), 431),
}


@pytest.mark.parametrize(("data", "status"), BAD_REQUESTS.values(), ids=list(BAD_REQUESTS))
async def test_a_bad_request_is_told_why(
    data: bytes, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    """The matching status, one line in the log, and the next client is served."""
    caplog.set_level("INFO")
    async with serving(Echo) as site:
        answer = await site.ask(data)
        assert answer.status == status
        assert answer.body
        assert len(logged(caplog)) == 1
        assert f"refused: {status}" in logged(caplog)[0]
        async with site.dial() as conn:
            await conn.ping()


@pytest.mark.parametrize("size", [299, 300, 301])
async def test_the_limit_of_the_head_is_exact(size: int) -> None:
    """Bytes behind the head do not count."""
    head = request(X="x" * (size - len(request(X=""))))
    assert len(head) == size
    async with serving(Echo, max_header_size=300) as site:
        client = await site.raw()
        await client.send(head + b"\x89\x80\0\0\0\0" * 50)
        status = int((await client.head()).split()[1])
        assert status == (101 if size <= 300 else 431)
        await client.stream.aclose()


async def test_what_the_library_of_a_transport_refuses_by_itself_ends(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """trio-websocket cannot read such a header; the connection ends, and the next is served."""
    caplog.set_level("INFO")
    async with serving(Echo, transport=TrioWebsocketTransport(), max_connections=1) as site:
        client = await site.raw()
        await client.send(request(Sec_WebSocket_Extensions="caf\xe9"))
        assert b"101" not in await client.everything()
        async with site.dial() as conn:
            await conn.ping()
    [line] = logged(caplog)
    assert "connection lost" in line


async def test_a_log_line_cannot_be_forged(caplog: pytest.LogCaptureFixture) -> None:
    """Text of a client stays on its log line."""
    caplog.set_level("INFO")
    async with serving(Echo, origins=[]) as site:
        await site.ask(b"GET /\n\x1b[2Jforged HTTP/9\r\n\r\n")
        await site.ask(request(Origin="https://a\x85forged"))
    for line in logged(caplog):
        assert line.isprintable()
