"""A mapping of paths to targets."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect as library_connect

from tests.cases import case_of
from tests.server.helpers import Echo, MakeTransport, logged, on_both, plain_request, serving
from trioglock import (
    Connection,
    ConnectionInfo,
    HandshakeRefused,
    InvalidOption,
    MemoryListener,
    Reply,
    Request,
    Response,
    Socket,
    serve,
)
from trioglock.asgi import WebSocketApp
from trioglock.channels import Channel, Channels
from trioglock.codecs import JSON
from trioglock.protocols import phoenix
from trioglock.pubsub import Hub

PAGE = Response(200, "<h1>hello</h1>", {"Content-Type": "text/html"})


class Room(Channel[None]):
    def join(self, topic: str, payload: Any, user: Any) -> tuple[Any, None]:
        return {}, None


def saying(word: str) -> Any:
    """A handler that sends one word and the rest of the path."""

    async def handler(conn: Connection[None]) -> None:
        await conn.send(f"{word} {conn.http_request.subpath}")

    return handler


class Named(Socket[None]):
    """Sends the rest of the path."""

    def handle_connect(self, info: ConnectionInfo, state: None) -> tuple[object, None]:
        return Reply(f"socket {info.http_request.subpath}"), state


@on_both
async def test_targets_of_every_kind_share_a_port(
    transport: MakeTransport, autojump_clock: object
) -> None:
    hub = Hub()
    channels = Channels({"room:*": Room}, hub=hub)
    targets = {
        "/live/*": hub.socket,
        "/socket/websocket": channels.socket,
        "/class": Named,
        "/factory": lambda: Named(),
        "/handler": saying("handler"),
        "/": PAGE,
    }
    async with hub, serving(targets, transport=transport()) as site:
        async with site.dial("/live/news") as live, site.dial("/live/") as everyone:
            await hub.publish("a", "news")
            await hub.publish("b", "sports")
            await hub.publish("c")
            assert [await live.receive(), await live.receive()] == ["a", "c"]
            assert await everyone.receive() == "c"
        for path, expected in (
            ("/class?x=1", "socket class"),
            ("/factory", "socket factory"),
            ("/handler", "handler handler"),
        ):
            async with site.dial(path) as conn:
                assert await conn.receive() == expected
        url = "ws://memory.test/socket/websocket"
        async with phoenix.connect(url, stream=site.listener.open_stream) as client:
            await client.join("room:1")
        page = await site.ask(plain_request("/"))
        assert (page.status, page.body) == (200, b"<h1>hello</h1>")


async def test_the_exact_path_wins_then_the_longest_prefix(autojump_clock: object) -> None:
    targets = {
        "/*": saying("all"),
        "/a/*": saying("a"),
        "/a/b/*": saying("b"),
        "/a/b/exact": saying("exact"),
    }
    expected = {
        "/": "all ",
        "/a": "all a",
        "/a/": "a ",
        "/a/x%2Fy?q=/a/b/": "a x%2Fy",
        "/a/bb/c": "a bb/c",
        "/a/b/c/d": "b c/d",
        "/a/b/exact": "exact a/b/exact",
        "/a/b/exact?x": "exact a/b/exact",
        "/a/b/exact/": "b exact/",
    }
    async with serving(targets) as site:
        for path, word in expected.items():
            async with site.dial(path) as conn:
                assert await conn.receive() == word


async def test_other_paths_get_404(
    autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "trioglock.server")
    async with serving({"/live/*": Echo, "/page": PAGE}) as site:
        for path in ("/", "/live", "/Live/x", "/page/", "//live/x", "/l%69ve/x"):
            with pytest.raises(HandshakeRefused) as refused:
                async with site.dial(path):
                    pass
            assert refused.value.status == 404
            assert (await site.ask(plain_request(path))).status == 404
    assert all("nothing is served at this path" in line for line in logged(caplog))


async def test_plain_http_gets_the_response_of_its_path(autojump_clock: object) -> None:
    async with serving({"/": PAGE, "/live/*": Echo}) as site:
        head = await site.ask(plain_request("/", "HEAD"))
        assert (head.status, head.body) == (200, b"")
        assert head.headers["content-length"] == "14"
        refused = await site.ask(plain_request("/", "DELETE"))
        assert (refused.status, refused.headers["allow"]) == (405, "GET, HEAD")
        assert (await site.ask(plain_request("/live/x"))).status == 426
        with pytest.raises(HandshakeRefused) as ignored:
            async with site.dial("/"):
                pass
        assert ignored.value.status == 200  # RFC 9110, section 7.8: the upgrade is ignored


async def test_process_request_comes_first_and_knows_the_rest_of_the_path(
    autojump_clock: object,
) -> None:
    def check(request: Request) -> Response | None:
        if request.path == "/health":
            return Response(200, "ok")
        request.data["prefix"] = request.prefix
        return Response(403) if request.subpath == "secret" else None

    async def handler(conn: Connection[None]) -> None:
        await conn.send(conn.http_request.data["prefix"])

    targets = {"/live/*": handler, "/secret": handler}
    async with serving(targets, process_request=check) as site:
        assert (await site.ask(plain_request("/health"))).body == b"ok"
        for path in ("/live/secret", "/secret"):
            with pytest.raises(HandshakeRefused) as refused:
                async with site.dial(path):
                    pass
            assert refused.value.status == 403
        async with site.dial("/live/news") as conn:
            assert await conn.receive() == "/live/"


async def test_subprotocols_belong_to_the_target(autojump_clock: object) -> None:
    """Channels select ``phoenix``; other targets follow the options of the server."""
    hub = Hub()
    channels = Channels({"room:*": Room}, hub=hub)
    targets = {"/socket/websocket": channels.socket, "/echo": Echo}
    offered = ["phoenix", "mine"]
    cases: list[tuple[Any, list[str | None]]] = [
        ({}, ["phoenix", None]),
        ({"subprotocols": ["mine"]}, ["mine", "mine"]),
    ]
    paths = ["/socket/websocket?vsn=2.0.0", "/echo"]
    async with hub:
        for options, chosen in cases:
            async with serving(targets, **options) as site:
                for path, name in zip(paths, chosen, strict=True):
                    async with site.dial(path, subprotocols=offered) as conn:
                        assert conn.subprotocol == name


class Needy(Socket[None]):
    def __init__(self, hub: Hub) -> None:
        self.hub = hub


def page(request: Request) -> Response:
    return PAGE


BAD: list[tuple[Any, str]] = [
    ({}, "the mapping is empty"),
    ({1: Echo}, "a path must be a str, not 1"),
    ({"": Echo}, "must start with '/'"),
    ({"live/*": Echo}, r"'live/\*' is not the path of a target: it must start with '/'"),
    ({"*": Echo}, "must start with '/'"),
    ({"/live*": Echo}, r"follows the last '/', as in '/live/\*'"),
    ({"/*/live": Echo}, r"follows the last '/', as in '/live/\*'"),
    ({"/live/**": Echo}, r"follows the last '/', as in '/live/\*'"),
    ({"/live?x": Echo}, r"leave out the query, and read it from conn\.http_request\.query"),
    (
        {"/room/{id}": Echo},
        r"parameters are not supported: use '/\*' and conn\.http_request\.subpath",
    ),
    ({"/café/*": Echo}, r"percent-encoded, as in '/caf%C3%A9/\*'"),
    ({"/a b": Echo}, "percent-encoded, as in '/a%20b'"),
    ({"/100%": Echo}, "percent-encoded"),
    ({"/a": Echo()}, "'/a': every connection needs its own Socket"),
    ({"/a": Hub()}, r"'/a': target must be .* as in hub\.socket"),
    ({"/a": "page"}, "'/a': target must be"),
    ({"/a": {"/b": Echo}}, "'/a': target must be"),
    ({"/a": Needy}, "'/a': .*Needy cannot be called"),
    ({"/a": page}, "a Response or process_request answers plain HTTP"),
]


def test_bad_paths_and_targets_are_refused_by_the_call() -> None:
    for targets, reason in BAD:
        with case_of(targets):
            with pytest.raises(InvalidOption, match=reason):
                serve(targets, listeners=[MemoryListener()])
            with pytest.raises(InvalidOption, match=reason):
                WebSocketApp(targets)


def test_the_options_are_checked_for_each_target() -> None:
    hub = Hub()
    channels = Channels({"room:*": Room}, hub=hub)
    targets: Any = {"/echo": Echo, "/socket/websocket": channels.socket}
    with pytest.raises(InvalidOption, match=r"'/socket/websocket': .* cannot have a codec"):
        serve(targets, listeners=[MemoryListener()], codec=JSON())
    mixed: Any = {"/handler": saying("hi"), "/": PAGE, "/echo": Echo}
    with pytest.raises(InvalidOption, match="the hooks of a Socket need whole messages"):
        serve(mixed, listeners=[MemoryListener()], fragments=True)
    del mixed["/echo"]
    serve(mixed, listeners=[MemoryListener()], fragments=True)


async def test_later_changes_of_the_mapping_have_no_effect(autojump_clock: object) -> None:
    targets = {"/echo": Echo}
    async with serving(targets) as site:
        targets.clear()
        async with site.dial("/echo") as conn:
            await conn.send("x")
            assert await conn.receive() == "x"


async def test_the_client_of_another_library() -> None:
    def run(port: int) -> tuple[object, int]:
        with library_connect(f"ws://127.0.0.1:{port}/live/news") as client:
            text = client.recv()
        with (
            pytest.raises(InvalidStatus) as refused,
            library_connect(f"ws://127.0.0.1:{port}/other"),
        ):
            pass
        return text, refused.value.response.status_code

    with trio.fail_after(300):
        async with serve({"/live/*": saying("live")}, "127.0.0.1", 0) as server:
            assert server.port is not None
            assert await trio.to_thread.run_sync(run, server.port) == ("live news", 404)
