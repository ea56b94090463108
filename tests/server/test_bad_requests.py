"""Invalid or oversized requests: each gets its status and one log line."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.cases import case_of
from tests.server.helpers import (
    Echo,
    MakeTransport,
    logged,
    on_both,
    plain_request,
    request,
    serving,
)
from trioglock import Connection, Request, TrioWebsocketTransport
from trioglock.pubsub import Hub

BAD_REQUESTS: dict[str, tuple[bytes, int]] = {
    "a post": (plain_request("/", "POST"), 405),
    "a body": (plain_request("/", "POST", "Content-Length: 5") + b"hello", 400),
    "a chunked body": (plain_request("/", "POST", "Transfer-Encoding: chunked"), 400),
    "HTTP/1.0": (request().replace(b"HTTP/1.1", b"HTTP/1.0"), 505),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "no key": (request(Sec_WebSocket_Key=None), 400),
    "a short key": (request(Sec_WebSocket_Key="c2hvcnQ="), 400),
    "no base64": (request(Sec_WebSocket_Key="!!!"), 400),
    "another version": (request(Sec_WebSocket_Version="12"), 426),
    "no host": (request(Host=None), 400),
    "a bad host": (request(Host="user@elsewhere"), 400),
    "an IPv6 address that is none": (request(Host="[1]"), 400),
    "another host in the target": (request("http://elsewhere/"), 400),
    "another port in the target": (request("https://memory.test:80/"), 400),
    "a user in the target": (request("http://user@memory.test/"), 400),
    "no host in the target": (request("http:///"), 400),
    "a target of another scheme": (request("ftp://memory.test/"), 400),
    "two hosts": (request(X="1\r\nHost: other"), 400),
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
    "an unknown method in a long line": (plain_request(f"/{'x' * 40000}", "BREW"), 400),
    "a method that is not a token": (plain_request("/", "BR(EW"), 400),
    "no name": (request().replace(b"Upgrade: w", b": w"), 400),
    "a TLS greeting": (b"\x16\x03\x01\x02\x00\x01", 400),
    "bare line feeds": (request().replace(b"\r\n", b"\n"), 400),
    "a long request line": (request(f"/{'x' * 40000}"), 414),
    "a long header": (request(X="x" * 40000), 431),
    "many headers": (request(**{f"x{n}": "y" for n in range(4000)}), 431),
    "a head without end": (b"GET / HTTP/1.1\r\n" + (b"X: " + b"y" * 1000 + b"\r\n") * 100, 431),
    "a large head": (request(**{f"x{n}": "y" * 1000 for n in range(40)}), 431),
}


async def test_a_bad_request_is_told_why(caplog: pytest.LogCaptureFixture) -> None:
    """The matching status, one line in the log, and the next client is served."""
    caplog.set_level("INFO")
    for name, (data, status) in BAD_REQUESTS.items():
        with case_of(name):
            caplog.clear()
            async with serving(Echo) as site:
                answer = await site.ask(data)
                assert answer.status == status
                assert answer.body
                assert len(logged(caplog)) == 1
                assert f"refused: {status}" in logged(caplog)[0]
                async with site.dial() as conn:
                    await conn.ping()


HOSTS = ["[1]", "[", "a]b", "[::1%25x]", "a:99999", "a:x", "\xe4", "a/b"]


@pytest.mark.parametrize("host", HOSTS)
async def test_fault_09_a_malformed_host_is_refused(
    host: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A hub, and a page, never see it: 400 and one line at level INFO."""
    caplog.set_level("DEBUG")
    hub = Hub()
    async with hub, serving(hub.socket) as site:
        assert (await site.ask(request("/news", Host=host))).status == 400
        [line] = logged(caplog)
        assert "refused: 400 invalid Host header" in line
        assert logged(caplog, "INFO") == [line]


@on_both
@pytest.mark.parametrize("version", ["12", "8", "14", "13, 8", "x", ""])
async def test_fault_14_another_version_gets_426_with_the_supported_one(
    version: str, transport: MakeTransport
) -> None:
    """RFC 6455, section 4.2.2; and a request that is no upgrade learns it, too."""
    async with serving(Echo, transport=transport()) as site:
        for data in (request(Sec_WebSocket_Version=version), plain_request()):
            answer = await site.ask(data)
            assert answer.status == 426
            assert answer.headers["sec-websocket-version"] == "13"
            assert answer.headers["upgrade"] == "websocket"
            assert answer.headers["connection"] == "close, Upgrade"


@on_both
@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("http://memory.test/chat?x=http://y", "/chat?x=http://y"),
        ("HTTPS://Memory.Test/chat", "/chat"),
        ("ws://memory.test/", "/"),
        ("wss://memory.test", "/"),
        ("http://memory.test?x", "/?x"),
        ("http://memory.test:80/", "/"),
        ("https://memory.test:0443/", "/"),
    ],
)
async def test_fault_15_an_absolute_target_is_accepted(
    target: str, path: str, transport: MakeTransport
) -> None:
    """RFC 9112, section 3.2.2; hooks and ``process_request`` get the path."""
    targets = []

    def process(asked: Request) -> None:
        targets.append(asked.target)

    async def handler(conn: Connection[None]) -> None:
        targets.append(conn.url)

    async with serving(handler, transport=transport(), process_request=process) as site:
        client = await site.raw()
        await client.send(request(target))
        assert (await client.head()).startswith(b"HTTP/1.1 101 ")
        assert await client.close_code() == 1000
        await client.stream.aclose()
    assert targets == [path, f"ws://memory.test{path}"]


@on_both
@pytest.mark.parametrize(
    "headers",
    [{"Cookie": "x" * 30_000}, {f"x{n}": "y" for n in range(150)}, {}],
    ids=["one long header", "many headers", "a long target"],
)
async def test_fault_16_only_the_whole_head_is_limited(
    headers: dict[str, str], transport: MakeTransport
) -> None:
    """By ``max_header_size``, as documented, and not by the library of a transport."""
    target = "/" if headers else f"/{'x' * 30_000}"
    async with serving(Echo, transport=transport()) as site:
        client = await site.raw()
        await client.send(request(target, **headers))
        assert (await client.head()).startswith(b"HTTP/1.1 101 ")
        await client.stream.aclose()


@on_both
@pytest.mark.parametrize("value", ["", " ", "\t", ",", " , ,"])
async def test_fault_17_an_empty_header_is_read_as_absent(
    value: str, transport: MakeTransport
) -> None:
    """``Sec-WebSocket-Protocol`` and ``Sec-WebSocket-Extensions`` are lists."""
    offered = []

    def select(asked: Request, names: Sequence[str]) -> None:
        offered.append((*names, asked.headers.get("Sec-WebSocket-Protocol")))

    headers = {"Sec_WebSocket_Protocol": value, "sec_websocket_extensions": value}
    async with serving(Echo, transport=transport(), select_subprotocol=select) as site:
        client = await site.raw()
        await client.send(request(**headers))
        head = await client.head()
        assert head.startswith(b"HTTP/1.1 101 ")
        assert b"sec-websocket-protocol" not in head.lower()
        assert b"extensions" not in head.lower()
        await client.stream.aclose()
    assert offered == [(None,)]


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
