"""The opening handshake: which clients are accepted, with which terms, and refusals."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pytest
import trio

from tests.server.helpers import (
    Echo,
    MakeTransport,
    logged,
    on_both,
    plain_request,
    request,
    serving,
)
from trioglock import (
    Connection,
    HandshakeRefused,
    NativeTransport,
    Request,
    Response,
    ServeOptions,
    TrioWebsocketTransport,
)


async def refusal(path: str = "/", /, *, ask: Any = None, **options: Any) -> HandshakeRefused:
    """The refusal of a trioglock client by a server with these options."""
    async with serving(Echo, **options) as site:
        with pytest.raises(HandshakeRefused) as caught:
            async with site.dial(path, **(ask or {})):
                raise AssertionError
    return caught.value


# Origins. 43: a page of another origin connects (cross-site WebSocket hijacking).

ORIGINS: Sequence[Any] = ["https://example.org", re.compile(r"https://[a-z]+\.example\.net")]


@on_both
async def test_scenario_43_a_page_of_another_origin_is_refused_with_403(
    transport: MakeTransport, caplog: pytest.LogCaptureFixture
) -> None:
    """With origins configured, foreign pages and clients without an origin are refused."""
    caplog.set_level("INFO")
    foreign = {"origin": "https://evil.example"}
    error = await refusal(origins=ORIGINS, ask=foreign, transport=transport())
    assert error.status == 403
    assert [line.split(": ", 1)[1] for line in logged(caplog)] == [
        "refused: 403 invalid Origin header: https://evil.example"
    ]
    for origin in (
        "null",
        "https://example.org.evil",
        "https://a.b.example.net",
        "http://example.org",
    ):
        assert (await refusal(origins=ORIGINS, ask={"origin": origin})).status == 403
    assert (await refusal(origins=ORIGINS)).status == 403


@pytest.mark.parametrize("origin", ["https://example.org", "https://shop.example.net"])
async def test_a_page_of_ours_is_let_in(origin: str) -> None:
    """An exact origin, or a pattern that matches it fully."""
    async with serving(Echo, origins=ORIGINS) as site, site.dial(origin=origin) as conn:
        await conn.send("in")
        assert await conn.receive() == "in"


SENT = {
    "https://example.org": [
        "HTTPS://Example.ORG",
        "https://example.org:443",
        "https://example.org:",
    ],
    "http://example.org:443": ["http://example.org:0443"],
    "http://xn--fa-hia.test": ["http://fa\u00df.test:80"],
    "http://[2001:db8::a]:8020": ["http://[2001:DB8:0::A]:8020"],
    "https://example.org.": ["https://example.org."],
    "chrome-extension://abcdef": ["Chrome-Extension://abcdef"],
    "file://": ["file://"],
    "null": ["null"],
}


@pytest.mark.parametrize(("sent", "written"), SENT.items())
async def test_fault_11_origins_are_normalized(sent: str, written: list[str]) -> None:
    """They match the form in which browsers send them (RFC 6454, section 6.2)."""
    for origin in written:
        async with serving(Echo, origins=[origin]) as site:
            async with site.dial(origin=sent) as conn:
                await conn.ping()
            with pytest.raises(HandshakeRefused):
                async with site.dial(origin="https://evil.example"):
                    raise AssertionError


async def test_none_among_the_origins_lets_in_clients_that_are_no_browsers() -> None:
    """Such clients send no Origin header."""
    async with serving(Echo, origins=[*ORIGINS, None]) as site, site.dial() as conn:
        await conn.ping()


async def test_without_origins_any_page_may_connect() -> None:
    """The default of the RFC."""
    async with serving(Echo) as site, site.dial(origin="https://evil.example") as conn:
        await conn.ping()


# Subprotocols.


async def test_the_server_prefers_its_own_order() -> None:
    """The first of its list that the client offers."""
    async with (
        serving(Echo, subprotocols=["c", "b", "a"]) as site,
        site.dial(subprotocols=["a", "b"]) as conn,
    ):
        assert conn.subprotocol == "b"


@pytest.mark.parametrize("offered", [[], ["x"]])
async def test_a_client_that_offers_none_of_the_subprotocols_gets_400(offered: list[str]) -> None:
    """As with websockets: a server that lists subprotocols wants one of them."""
    error = await refusal(subprotocols=["a", "b"], ask={"subprotocols": offered})
    assert error.status == 400
    assert b"subprotocol" in error.body


@on_both
async def test_a_function_may_choose_the_subprotocol(transport: MakeTransport) -> None:
    """It gets the request and the offered names."""

    def select(asked: Request, offered: Sequence[str]) -> str | None:
        return offered[-1] if asked.path == "/last" and offered else None

    options: ServeOptions = {"select_subprotocol": select, "transport": transport()}
    async with serving(Echo, **options) as site:
        async with site.dial("/last", subprotocols=["a", "b"]) as conn:
            assert conn.subprotocol == "b"
        async with site.dial("/other", subprotocols=["a", "b"]) as conn:
            assert conn.subprotocol is None


@pytest.mark.parametrize("wrong", ["unheard-of", 5])
async def test_a_function_cannot_choose_what_was_not_offered(
    wrong: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """That is an error of the server: 500, and the log shows the returned value."""
    error = await refusal(select_subprotocol=lambda *_: wrong, ask={"subprotocols": ["a"]})
    assert error.status == 500
    assert len(logged(caplog, "ERROR")) == 1
    assert f"not {wrong!r}" in caplog.text


# Compression.


async def test_compression_is_agreed_on_where_both_want_it() -> None:
    """Not with None, nor with trio-websocket."""
    settings: list[tuple[ServeOptions, tuple[str, ...]]] = [
        ({}, ("permessage-deflate",)),
        ({"compression": None}, ()),
        ({"transport": TrioWebsocketTransport()}, ()),
    ]
    for options, extensions in settings:
        async with serving(Echo, **options) as site, site.dial() as conn:
            assert conn.handshake is not None
            assert conn.handshake.extensions == extensions
            for _ in range(3):
                await conn.send("the same again " * 100)
                assert await conn.receive() == "the same again " * 100
            assert (conn.statistics().bytes_received < 1500) is bool(extensions)


# Plain HTTP.


def respond(asked: Request) -> Response | None:
    match asked.path:
        case "/health":
            return Response(200, "ok\n")
        case "/page":
            return Response(200, "<p>hello", {"Content-Type": "text/html; charset=utf-8"})
        case "/bytes":
            return Response(body=b"\0\1")
        case "/gone":
            return Response(204)
        case "/secret" if "authorization" not in asked.headers:
            return Response(401, "who are you?", {"WWW-Authenticate": "Basic"})
        case "/query":
            return Response(200, f"{asked.method} {asked.query} {asked.peer}|{asked.secure}")
    return None


async def test_process_request_answers_in_plain_http() -> None:
    """A health check, a page, bytes: a full response, then the connection ends."""
    async with serving(Echo, process_request=respond) as site:
        health = await site.ask(plain_request("/health"))
        assert (health.status, health.body) == (200, b"ok\n")
        assert health.headers == {
            "content-type": "text/plain; charset=utf-8",
            "connection": "close",
            "content-length": "3",
        }
        page = await site.ask(plain_request("/page"))
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert page.body == b"<p>hello"
        data = await site.ask(plain_request("/bytes"))
        assert data.headers["content-type"] == "application/octet-stream"
        gone = await site.ask(plain_request("/gone"))
        assert (gone.status, gone.body) == (204, b"")
        assert "content-length" not in gone.headers
        query = await site.ask(plain_request("/query?a=1&b=2"))
        assert query.body == b"GET a=1&b=2 |False"


async def test_a_head_request_gets_the_head_alone() -> None:
    """As load balancers send it."""
    async with serving(Echo, process_request=respond) as site:
        head = await site.ask(plain_request("/health", "HEAD"))
        assert (head.status, head.body, head.headers["content-length"]) == (200, b"", "3")


@on_both
async def test_process_request_lets_in_whom_it_does_not_answer(transport: MakeTransport) -> None:
    """401 for those without credentials, a WebSocket for the others."""
    async with serving(Echo, process_request=respond, transport=transport()) as site:
        with pytest.raises(HandshakeRefused) as caught:
            async with site.dial("/secret"):
                raise AssertionError
        assert caught.value.status == 401
        assert caught.value.headers["www-authenticate"] == "Basic"
        assert caught.value.body == b"who are you?"
        async with site.dial("/secret", additional_headers={"Authorization": "me"}) as conn:
            await conn.ping()


async def test_process_request_may_be_async(autojump_clock: object) -> None:
    """Its time counts against open_timeout."""

    async def slow(asked: Request) -> Response | None:
        await trio.sleep(float(asked.query))
        return None

    async with serving(Echo, process_request=slow, open_timeout=5) as site:
        async with site.dial("/?4") as conn:
            await conn.ping()
        began = trio.current_time()
        client = await site.raw()
        await client.send(request("/?6"))
        assert await client.everything() == b""
        assert trio.current_time() - began == 5


@pytest.mark.parametrize("result", ["ok", 200, (200, "ok")])
async def test_process_request_must_return_a_response(
    result: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Anything else is an error of the server, explained in the log."""
    error = await refusal(process_request=lambda _: result)
    assert error.status == 500
    assert "must return a Response or None" in caplog.text


async def test_without_process_request_plain_http_is_told_what_this_is() -> None:
    """426, as RFC 9110 defines it."""
    async with serving(Echo) as site:
        answer = await site.ask(plain_request())
        assert answer.status == 426
        assert answer.headers["upgrade"] == "websocket"


# How it may come.


async def test_a_request_may_come_byte_by_byte(autojump_clock: object) -> None:
    """However slowly, as long as it is complete in time."""
    async with serving(Echo) as site:
        client = await site.raw()
        for at in range(len(request())):
            await client.send(request()[at : at + 1])
            await trio.sleep(0.01)
        assert (await client.head()).startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
        await client.stream.aclose()


@on_both
async def test_frames_right_behind_the_request_are_read(transport: MakeTransport) -> None:
    """A client that does not wait for the 101 loses nothing."""
    async with serving(Echo, transport=transport()) as site:
        client = await site.raw()
        await client.send(request() + b"\x81\x82\0\0\0\0hi")
        await client.head()
        assert await client.frame() == (0x81, b"hi")
        await client.stream.aclose()


@pytest.mark.parametrize("value", ["keep-alive, Upgrade", "upgrade", "UPGRADE, te"])
async def test_connection_may_say_more_in_any_case(value: str) -> None:
    """35: ``Connection: keep-alive, Upgrade``, and any letter case of ``Upgrade``."""
    async with serving(Echo) as site:
        client = await site.raw()
        await client.send(request(Connection=value, Upgrade="WebSocket"))
        assert (await client.head()).startswith(b"HTTP/1.1 101 ")
        await client.stream.aclose()


async def test_a_handler_may_be_reached_by_both_transports_alike() -> None:
    """Both transports report the same handshake."""
    seen: list[Any] = []

    async def record(conn: Connection[None]) -> None:
        assert conn.handshake is not None
        seen.append((conn.url, conn.subprotocol, conn.handshake.request_headers))

    ask: Any = {"subprotocols": ["a"], "additional_headers": {"Sec-Fetch-Mode": "websocket"}}
    for transport in (NativeTransport(), TrioWebsocketTransport()):
        async with (
            serving(record, subprotocols=["a"], transport=transport) as site,
            site.dial("/x?y", compression=None, **ask) as conn,
        ):
            await conn.wait_closed()
    seen = [(url, chosen, headers.without("sec-websocket-key")) for url, chosen, headers in seen]
    assert seen[0] == seen[1]
    assert seen[0][:2] == ("ws://memory.test/x?y", "a")
