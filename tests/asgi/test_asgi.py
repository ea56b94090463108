"""The same Socket inside an ASGI application, on Hypercorn's trio worker and without a network."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
from hypercorn.config import Config
from hypercorn.trio import serve as hypercorn_serve
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route, WebSocketRoute
from trio.testing import MockClock

from trioglock import (
    Close,
    Connection,
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
    ConnectionInfo,
    HandshakeRefused,
    InvalidFrame,
    InvalidOption,
    Rate,
    Reply,
    Response,
    Socket,
    UsageError,
    connect,
)
from trioglock.asgi import WebSocketApp
from trioglock.pubsub import Hub

SECONDS = 15


class Counting(Socket[int]):
    """Replies its state."""

    def init_stream(self, info: ConnectionInfo) -> int:
        self.url = info.url
        return 0

    def handle_receive(self, frame: Any, state: int) -> tuple[Any, int]:
        match frame:
            case "url":
                return Reply(self.url), state
            case "close":
                return Close(4001, "as you wish"), state
            case "fail":
                raise RuntimeError("bad day")
            case bytes():
                return Reply(frame * 2), state + 1
            case _:
                return Reply(f"{state} {frame}"), state + 1


async def say_hello(conn: Connection[None]) -> None:
    """A handler."""
    await conn.send("hello")
    assert await conn.receive() == "and you"


@asynccontextmanager
async def running(app: Any, *, graceful_timeout: float = 3) -> AsyncIterator[str]:
    """Hypercorn with an application, on a free port; ``host:port``."""
    config = Config()
    config.graceful_timeout = graceful_timeout
    config.bind = ["127.0.0.1:0"]
    config.loglevel = "WARNING"
    stop = trio.Event()
    with trio.fail_after(SECONDS):
        async with trio.open_nursery() as nursery:
            start = partial(hypercorn_serve, app, config, shutdown_trigger=stop.wait)
            [bound] = await nursery.start(start)
            yield bound.rpartition("/")[2]
            stop.set()


async def get(where: str, method: str = "GET") -> bytes:
    """The whole response to a plain request."""
    address, _, path = where.partition("/")
    host, _, port = address.partition(":")
    head = f"{method} /{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    async with await trio.open_tcp_stream(host, int(port)) as stream:
        await stream.send_all(head.encode())
        return b"".join([part async for part in stream])


async def page(request: Request) -> PlainTextResponse:
    return PlainTextResponse("the page")


async def test_fault_05_a_client_is_subscribed_before_it_knows_that_it_is_open() -> None:
    """The ASGI server accepts it after ``init_stream``."""
    hub = Hub()
    async with hub, running(WebSocketApp(hub.socket)) as where:
        for _ in range(10):
            async with connect(f"ws://{where}/news") as conn:
                await hub.publish("text", channel="news")
                assert await conn.receive() == "text"


async def test_beside_the_routes_of_starlette() -> None:
    """A page, a Socket, a handler and a hub in one application."""
    hub = Hub()
    app = Starlette(
        routes=[
            Route("/", page),
            WebSocketRoute("/count/{x:path}", WebSocketApp(Counting)),
            WebSocketRoute("/hello", WebSocketApp(say_hello)),
            Mount("/", WebSocketApp(hub.socket)),
        ]
    )
    async with hub, running(app) as where:
        assert b"the page" in await get(where)
        async with connect(f"ws://{where}/count/a%2Fb?c=d", compression=None) as conn:
            for text in ("one", "two", "url"):
                await conn.send(text)
            got = [await conn.receive() for _ in range(3)]
            assert got == ["0 one", "1 two", f"ws://{where}/count/a%2Fb?c=d"]
            await conn.send(b"\x00" * 50_000)
            assert await conn.receive() == b"\x00" * 100_000
            await conn.send("close")
            with pytest.raises(ConnectionClosedError, match="4001 as you wish"):
                await conn.receive()
        async with connect(f"ws://{where}/hello") as conn:
            assert await conn.receive() == "hello"
            await conn.send("and you")
            with pytest.raises(ConnectionClosedOK) as caught:
                await conn.receive()
            assert caught.value.code == 1000
        async with connect(f"ws://{where}/news") as conn:
            while not hub.statistics().subscribers:
                await trio.sleep(0.001)
            await hub.publish("to the page", channel="news")
            assert await conn.receive() == "to the page"


async def test_a_target_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    """Its client gets 1011, it is logged, and the next one is served."""
    async with running(WebSocketApp(Counting)) as where:
        with caplog.at_level(logging.ERROR, "trioglock.server"):
            async with connect(f"ws://{where}/") as conn:
                await conn.send("fail")
                with pytest.raises(ConnectionClosedError, match="1011"):
                    await conn.receive()
        assert "bad day" in caplog.text
        async with connect(f"ws://{where}/") as conn:
            await conn.send("x")
            assert await conn.receive() == "0 x"


async def test_fragments_are_not_part_of_asgi() -> None:
    async def handler(conn: Connection[None]) -> None:
        async def items() -> AsyncIterator[str]:
            yield "a"

        with pytest.raises(InvalidFrame, match="cannot send async iterables"):
            await conn.send(items())
        await conn.send("whole")

    async with (
        running(WebSocketApp(handler)) as where,
        connect(f"ws://{where}/") as conn,
    ):
        assert await conn.receive() == "whole"


async def test_who_is_let_in() -> None:
    """Origins and subprotocols: others get 403."""
    app = WebSocketApp(Counting, subprotocols=["v2", "v1"], origins=["https://a.example", None])
    async with running(app) as where:
        url = f"ws://{where}/"
        async with connect(url, subprotocols=["v1", "v2"], origin="https://a.example") as conn:
            assert conn.subprotocol == "v2"
        async with connect(url, subprotocols=["v1"]) as conn:
            assert conn.subprotocol == "v1"
        bad: list[dict[str, Any]] = [
            {"subprotocols": ["v3"]},
            {},
            {"subprotocols": ["v1"], "origin": "https://b.example"},
        ]
        for options in bad:
            with pytest.raises(HandshakeRefused) as caught:
                async with connect(url, **options):
                    pass
            assert caught.value.status == 403


async def test_plain_http_is_told_what_this_is() -> None:
    """426, if the application runs without a framework."""
    async with running(WebSocketApp(Counting)) as where:
        answer = await get(where)
        assert answer.startswith(b"HTTP/1.1 426")
        assert b"accepts only WebSocket" in answer


async def test_paths() -> None:
    hub = Hub()
    page = Response(200, "<h1>hello</h1>", {"Content-Type": "text/html"})
    app = WebSocketApp({"/live/*": hub.socket, "/hello": say_hello, "/": page})
    async with hub, running(app) as where:
        async with connect(f"ws://{where}/live/news") as conn:
            await hub.publish("new", "news")
            assert await conn.receive() == "new"
        async with connect(f"ws://{where}/hello") as conn:
            assert await conn.receive() == "hello"
            await conn.send("and you")
        for path in ("/other", "/"):
            with pytest.raises(HandshakeRefused) as refused:
                async with connect(f"ws://{where}{path}"):
                    pass
            assert refused.value.status == 403
        answer = await get(where)
        assert answer.startswith(b"HTTP/1.1 200")
        assert b"content-type: text/html" in answer
        assert b"<h1>hello</h1>" in answer
        assert (await get(f"{where}/live/x")).startswith(b"HTTP/1.1 426")
        assert (await get(f"{where}/other")).startswith(b"HTTP/1.1 404")
        assert (await get(where, "DELETE")).startswith(b"HTTP/1.1 405")
        assert b"hello" not in await get(where, "HEAD")


async def test_paths_below_a_mount() -> None:
    """The patterns do not include the path of the mount."""
    hub = Hub()
    app = Starlette(routes=[Mount("/app", WebSocketApp({"/live/*": hub.socket}))])
    async with hub, running(app) as where:
        async with connect(f"ws://{where}/app/live/news") as conn:
            await hub.publish("new", "news")
            assert await conn.receive() == "new"
        with pytest.raises(HandshakeRefused):
            async with connect(f"ws://{where}/live/news"):
                pass


async def test_the_pattern_of_all_paths_leaves_out_the_mount() -> None:
    """Unlike a single target, whose paths include it."""
    hub = Hub()
    app = Starlette(
        routes=[
            Mount("/live", WebSocketApp({"/*": hub.socket})),
            Mount("/", WebSocketApp(hub.socket)),
        ]
    )
    async with (
        hub,
        running(app) as where,
        connect(f"ws://{where}/live/news") as one,
        connect(f"ws://{where}/all/news") as other,
    ):
        await hub.publish("new", channel="news")
        await hub.publish("all", channel="all/news")
        assert (await one.receive(), await other.receive()) == ("new", "all")


# Without a network: a server with unusual events.


class Server:
    """A scripted ASGI server."""

    def __init__(self, **scope: Any) -> None:
        self.scope: dict[str, Any] = {
            "type": "websocket",
            "path": "/ü",
            "headers": [(b"host", b"example.org")],
            "subprotocols": [],
            **scope,
        }
        self.sent: list[Any] = []
        self.post, self.events = trio.open_memory_channel[Any](100)
        self.gone = False
        self.post.send_nowait({"type": "websocket.connect"})

    async def send(self, event: Any) -> None:
        await trio.lowlevel.checkpoint()
        if self.gone:
            raise OSError("gone")
        self.sent.append(event)

    async def run(self, app: WebSocketApp) -> None:
        with trio.fail_after(SECONDS):
            await app(self.scope, self.events.receive, self.send)


@pytest.mark.parametrize(("code", "expected"), [(1000, 1000), (1005, 1005), (1006, 1006)])
async def test_the_client_closes(code: int, expected: int, autojump_clock: MockClock) -> None:
    """With a code, without a code, or by disconnecting."""
    ends: list[object] = []

    async def handler(conn: Connection[None]) -> None:
        ends.append(conn.handshake and conn.handshake.url)
        await conn.wait_closed()
        ends.append(conn.close_code)

    server = Server()
    server.post.send_nowait({"type": "websocket.disconnect", "code": code})
    await server.run(WebSocketApp(handler))
    assert ends == ["ws://example.org/%C3%BC", expected]
    assert server.sent == [{"type": "websocket.accept", "subprotocol": None}]


async def test_the_request_of_a_connection(autojump_clock: MockClock) -> None:
    seen: list[object] = []

    async def handler(conn: Connection[None]) -> None:
        request = conn.http_request
        seen.extend([request.path, request.query, request.headers["host"], request.peer])
        seen.extend([request.secure, request.data])

    server = Server()
    server.scope |= {"query_string": b"a=1", "client": ("192.0.2.1", 5000), "scheme": "wss"}
    await server.run(WebSocketApp(handler))
    assert seen == ["/%C3%BC", "a=1", "example.org", "192.0.2.1:5000", True, {}]


@pytest.mark.parametrize(
    ("root", "raw"),
    [
        ("/app", b"/app/live/x"),
        ("/app/", b"/app/live/x"),
        ("/app", b"/%61pp/live/x"),
        ("/@app", b"/@app/live/x"),
        ("/a:b", b"/a:b/live/x"),
        ("/é", b"/%c3%a9/live/x"),
        ("/a/b", b"/a/b/live/x"),
        ("/app", b"/live/x"),  # of a server that leaves out the root
        ("", b"/live/x"),
    ],
)
async def test_the_mount_may_be_encoded_in_any_way(
    root: str, raw: bytes, autojump_clock: MockClock
) -> None:
    rests: list[str | None] = []

    async def handler(conn: Connection[None]) -> None:
        assert conn.http_request is not None
        rests.append(conn.http_request.subpath)

    await Server(root_path=root, raw_path=raw).run(WebSocketApp({"/live/*": handler}))
    assert rests == ["x"]


async def test_paths_beside_the_mount_are_not_below_it(autojump_clock: MockClock) -> None:
    async def handler(conn: Connection[None]) -> None: ...

    for raw in (b"/application/x", b"/app", b"/App/x"):
        server = Server(root_path="/app", raw_path=raw)
        await server.run(WebSocketApp({"/x": handler}))
        assert server.sent == [{"type": "websocket.close", "code": 1008}]


async def test_the_bytes_of_text_are_limited(autojump_clock: MockClock) -> None:
    """As UTF-8."""
    times: list[float] = []

    async def handler(conn: Connection[None]) -> None:
        async for _ in conn:
            times.append(trio.current_time())  # noqa: PERF401 - a list would not show when

    server = Server()
    for _ in range(2):
        server.post.send_nowait({"type": "websocket.receive", "text": "😀" * 1000})
    server.post.send_nowait({"type": "websocket.disconnect", "code": 1000})
    await server.run(WebSocketApp(handler, byte_rate=Rate(1000, per=1)))
    assert times == pytest.approx([times[0], times[0] + 3], abs=0.1)


async def test_messages_are_limited(autojump_clock: MockClock) -> None:
    """Only messages: the ASGI server answers pings."""
    times: list[float] = []

    async def handler(conn: Connection[None]) -> None:
        async for _ in conn:
            times.append(trio.current_time())  # noqa: PERF401 - a list would not show when

    server = Server()
    for _ in range(3):
        server.post.send_nowait({"type": "websocket.receive", "text": "x"})
    server.post.send_nowait({"type": "websocket.disconnect", "code": 1000})
    await server.run(WebSocketApp(handler, message_rate=Rate(1, per=2)))
    assert times == pytest.approx([times[0], times[0] + 2, times[0] + 4])


SERVERS = [
    ("https", ("a.example", 80), "wss://a.example:80/x"),
    ("wss", ("a.example", 80), "wss://a.example:80/x"),
    ("http", ("::1", 80), "ws://[::1]:80/x"),
    ("ws", ("/run/app.sock", None), "ws://localhost/x"),
    (None, None, "ws://localhost/x"),
]


@pytest.mark.parametrize(("scheme", "server", "url"), SERVERS)
async def test_fault_19_the_url_is_that_of_a_websocket(
    scheme: str | None, server: Any, url: str, autojump_clock: MockClock
) -> None:
    """Also if the scope has the scheme of HTTP."""
    urls: list[str] = []

    async def handler(conn: Connection[None]) -> None:
        urls.append(conn.url)

    scope = {"path": "/x", "headers": [], "server": server}
    if scheme is not None:
        scope["scheme"] = scheme
    await Server(**scope).run(WebSocketApp(handler))
    assert urls == [url]


@pytest.mark.parametrize(
    "code", [{"code": 1000}, {"code": 1005}, {"code": None}, {}, {"code": 1006}]
)
async def test_fault_32_the_loop_of_a_handler(
    code: dict[str, int | None], autojump_clock: MockClock
) -> None:
    """It ends with a normal close, also without a code; 1006 is a lost connection."""
    ends: list[type[BaseException] | None] = []

    async def handler(conn: Connection[None]) -> None:
        try:
            async for _ in conn:
                pass
        except ConnectionClosed as error:
            ends.append(type(error))
        else:
            ends.append(None)

    server = Server()
    server.post.send_nowait({"type": "websocket.disconnect", **code})
    await server.run(WebSocketApp(handler))
    assert ends == [ConnectionClosedError if code.get("code") == 1006 else None]


@pytest.mark.parametrize("host", ["x/private?", "x#", "[x", "a@b", "", "[1]", "x:99999"])
async def test_fault_09_a_host_cannot_change_the_path(host: str, autojump_clock: MockClock) -> None:
    """With an invalid Host header, the URL has the address of the server."""
    urls: list[str] = []

    async def handler(conn: Connection[None]) -> None:
        urls.append(conn.url)

    headers = [(b"host", host.encode())]
    await Server(path="/public", headers=headers, server=("a.example", 80)).run(
        WebSocketApp(handler)
    )
    assert urls == ["ws://a.example:80/public"]


async def test_the_client_is_gone_while_we_send(autojump_clock: MockClock) -> None:
    """An exception of the server ends only the connection."""

    async def handler(conn: Connection[None]) -> None:
        server.gone = True
        await conn.send("too late")
        await conn.wait_closed()

    server = Server()
    await server.run(WebSocketApp(handler, close_timeout=1))
    assert len(server.sent) == 1


async def test_a_cancelled_application_leaves_immediately(autojump_clock: MockClock) -> None:
    """As an ASGI server does that shuts down."""
    server = Server()
    with trio.move_on_after(3) as scope:
        await server.run(WebSocketApp(Counting))
    assert scope.cancelled_caught
    assert [event["type"] for event in server.sent] == ["websocket.accept", "websocket.close"]


async def test_pings_are_the_servers_business(autojump_clock: MockClock) -> None:
    """Frames that ASGI cannot express are left out; messages with both keys are accepted."""

    async def handler(conn: Connection[None]) -> None:
        with trio.move_on_after(1):
            await conn.ping()
        await conn.send(await conn.receive())
        message = await conn.receive()
        assert isinstance(message, bytes)
        await conn.send(bytearray(message))

    server = Server()
    server.post.send_nowait({"type": "websocket.receive", "text": "", "bytes": None})
    server.post.send_nowait({"type": "websocket.receive", "bytes": b"x"})
    await server.run(WebSocketApp(handler))
    assert server.sent[1:] == [
        {"type": "websocket.send", "text": ""},
        {"type": "websocket.send", "bytes": b"x"},
        {"type": "websocket.close", "code": 1000, "reason": ""},
    ]


async def test_lifespan(autojump_clock: MockClock) -> None:
    """An application without a framework confirms startup and shutdown."""
    server = Server(type="lifespan")
    server.events.receive_nowait()
    for name in ("startup", "shutdown"):
        server.post.send_nowait({"type": f"lifespan.{name}"})
    await server.run(WebSocketApp(Counting))
    assert [event["type"] for event in server.sent] == [
        "lifespan.startup.complete",
        "lifespan.shutdown.complete",
    ]


def test_without_trio() -> None:
    """A server on asyncio raises a UsageError that names trio."""
    call = WebSocketApp(Counting)({"type": "websocket"}, None, None)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="hypercorn -k trio"):
        call.send(None)


@pytest.mark.parametrize(
    "options", [{"target": 5}, {"max_queue": 0}, {"origins": "https://x"}, {"subprotocols": "v1"}]
)
def test_bad_arguments(options: dict[str, Any]) -> None:
    """Each raises immediately."""
    with pytest.raises(InvalidOption):
        WebSocketApp(**{"target": Counting, **options})
