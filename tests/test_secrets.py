"""Secrets go down every path, and come out nowhere: not in a log, a trace, a repr, an exception.

Each journey gives the library secrets as a program does: in URLs, headers, subprotocols, proxies,
options, states, on both sides, where all goes well and where it does not. Whatever could be shown
is noted on the way, and all of it is searched.
"""

from __future__ import annotations

import base64
import itertools
import logging
import pprint
import socket as sockets
import traceback
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, cast
from urllib.parse import quote

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.transports.proxies import HTTPProxy, SOCKSProxy
from tests.transports.servers import answering, close, read_request, response, serving, upgrade
from trioglock import (
    Backoff,
    BrokerError,
    BrokerUnavailable,
    Close,
    Connection,
    ConnectionInfo,
    Disconnect,
    HandshakeFailed,
    Headers,
    MemoryListener,
    NativeTransport,
    Ping,
    PreparedMessage,
    Reconnect,
    Request,
    Response,
    Socket,
    Transport,
    TrioWebsocketTransport,
    connect,
    serve,
)
from trioglock.options import DialOptions
from trioglock.protocols import gossip, phoenix
from trioglock.pubsub import Hub, RedisBroker, publish
from trioglock.telemetry import Event, FrameReceived, FrameSent, HookReplied, listen
from trioglock.testing import MockGossipServer, MockPhoenixServer, MockServer, echo

WORD = "s3cr3t"
"""In every secret of these tests."""

USER, PASSWORD = f"user-{WORD}", f"pass/{WORD}?#"
USER_INFO = f"{quote(USER, safe='')}:{quote(PASSWORD, safe='')}@"
HEADERS = {
    "Authorization": f"Bearer {WORD}-token",
    "Cookie": f"id={WORD}; theme=dark; sid={WORD}",
    "X-Api-Key": WORD,
    "X-Auth-Token": WORD,
}
QUERY = f"token={WORD}&room=7&listenKey={WORD}"
TOKEN = f"base64url.bearer.phx.{WORD}"

NEEDLES = {
    WORD,
    *(
        base64.b64encode(text.encode()).decode().rstrip("=")
        for text in (WORD, f"{USER}:{PASSWORD}", f"{USER}:", f"x{WORD}", f"xx{WORD}")
    ),
    quote(PASSWORD, safe=""),
}

TRANSPORTS: list[Callable[[], Transport]] = [NativeTransport, TrioWebsocketTransport]
both = pytest.mark.parametrize("transport", TRANSPORTS, ids=["native", "trio-websocket"])


def with_secrets(url: str, path: str = "feed") -> str:
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{USER_INFO}{rest.rstrip('/')}/{path}?{QUERY}"


class Diary:
    """All that somebody could have seen."""

    def __init__(self) -> None:
        self.entries: list[str] = []

    def note(self, *things: object) -> None:
        for thing in things:
            self.entries += [repr(thing), pprint.pformat(thing)]
            if not isinstance(thing, str | bytes | ConnectionInfo | Request):
                self.entries.append(str(thing))
            if isinstance(thing, BaseException):
                self.entries += traceback.format_exception(thing)

    def hear(self, event: Event) -> None:
        # Frames are what they are: whoever shows them answers for them.
        if not isinstance(event, FrameSent | FrameReceived | HookReplied):
            self.note(event)

    async def failing(self, journey: Awaitable[object]) -> BaseException:
        """Go on a journey that ends in an exception, and note it."""
        try:
            with trio.fail_after(10):
                await journey
        except Exception as error:
            self.note(error)
            return error
        raise AssertionError("nothing was raised")


@pytest.fixture
def diary(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> Any:
    """Notes events and logs of all levels, and searches everything at the end."""
    caplog.set_level(logging.DEBUG)
    for name in ("trioglock", "trioglock.trace", "websockets", "trio-websocket", "wsproto"):
        caplog.set_level(logging.DEBUG, logger=name)
    diary = Diary()
    with listen(diary.hear):
        yield diary
    assert diary.entries
    formatter = logging.Formatter("%(name)s %(message)s")
    logged = [formatter.format(record) for record in caplog.get_records("call")]
    seen = [*diary.entries, *logged, *capfd.readouterr()]
    found = {needle: text for text in seen for needle in NEEDLES if needle in text}
    assert not found, "\n".join(f"{needle} in {text}" for needle, text in found.items())


class Noting(Socket[dict[str, str]]):
    """Notes what its hooks get, and has a secret in its state."""

    def __init__(self, diary: Diary) -> None:
        self.diary = diary

    def init_stream(self, info: ConnectionInfo) -> dict[str, str]:
        self.diary.note(info, info.request_headers, info.response_headers)
        return {"password": WORD, "shown": "yes"}

    def format_status(self, state: dict[str, str]) -> Any:
        return {"shown": state["shown"]}

    def handle_disconnect(self, reason: Disconnect, state: Any) -> tuple[None, Any]:
        self.diary.note(reason)
        return None, state

    def terminate(self, reason: Disconnect, state: Any) -> None:
        self.diary.note(reason)


async def _enter(*args: Any, **options: Any) -> None:
    options.setdefault("proxy", None)
    async with connect(*args, trace=True, **options):
        pass


# Where all goes well.


@both
async def test_a_connection_that_works(
    transport: Callable[[], Transport], diary: Diary, autojump_clock: MockClock
) -> None:
    """Its repr, its reports, its trace; what its hooks see; what it says when it is closed."""
    async with MockServer(echo, memory=True) as server:
        server.accept_with({"Set-Cookie": f"sid={WORD}"})
        async with connect(
            with_secrets(server.url),
            Noting(diary),
            transport=transport(),
            stream=server.open_stream,
            additional_headers=HEADERS,
            subprotocols=["phoenix", TOKEN],
            trace=True,
        ) as conn:
            diary.note(conn, conn.handshake, conn.statistics(), conn.status_report())
            assert "'shown': 'yes'" in str(conn.status_report())
            await conn.send("hello")
            await conn.receive()
        error = await diary.failing(conn.send("too late"))
        diary.note(error, conn, conn.status_report())
        # What was sent is what was meant to be: nothing was redacted on the wire.
        assert conn.handshake is not None
        assert conn.handshake.request_headers["X-Api-Key"] == WORD
        assert conn.url.endswith(QUERY)


async def test_secrets_in_messages_that_say_so(diary: Diary, autojump_clock: MockClock) -> None:
    """The trace hides the values of JSON members and parameters whose names tell."""
    frames = [
        f'{{"event": "login", "password": "{WORD}"}}',
        f'{{"client_secret":"{WORD}","x":1}}',
        f"op=auth&access_token={WORD}&x=1",
        f"Authorization: Bearer {WORD}",
        f'{{"token": "{WORD * 40}"}}'.encode(),
    ]
    async with (
        MockServer(echo, memory=True) as server,
        connect(server.url, stream=server.open_stream, trace=True) as conn,
    ):
        for frame in frames:
            await conn.send(frame)
            assert await conn.receive() == frame
    diary.note(conn)


async def test_a_report_hides_what_the_hook_hides_even_if_it_fails(
    diary: Diary, autojump_clock: MockClock
) -> None:
    """A format_status that raises, or is async by mistake, shows nothing of the state."""

    class Raising(Noting):
        def format_status(self, state: dict[str, str]) -> Any:
            raise ValueError(state["password"])

    class Async(Noting):
        async def format_status(self, state: dict[str, str]) -> Any:
            return state

    for socket in (Raising(diary), Async(diary)):
        async with (
            MockServer(echo, memory=True) as server,
            connect(server.url, socket, stream=server.open_stream) as conn,
        ):
            diary.note(conn.status_report())
            assert "not shown: format_status" in str(conn.status_report())


async def test_reconnecting_with_fresh_secrets(diary: Diary, autojump_clock: MockClock) -> None:
    """Functions that give URLs and headers, decisions of hooks, attempts that are refused."""
    numbers = itertools.count()

    class Deciding(Noting):
        def handle_disconnect(self, reason: Disconnect, state: Any) -> tuple[Any, Any]:
            decision = Reconnect(url=with_secrets(server.url), additional_headers=HEADERS, delay=1)
            self.diary.note(reason, decision, decision.url and "", decision.additional_headers)
            return decision, state

    async with MockServer(memory=True) as server:
        server.reject(503, headers={"Set-Cookie": f"a={WORD}", "Location": f"wss://h/?t={WORD}"})

        async def url() -> str:
            return with_secrets(server.url, f"feed{next(numbers)}")

        async with connect(
            url,
            Deciding(diary),
            stream=server.open_stream,
            additional_headers=lambda: HEADERS,
            reconnect=Backoff(jitter="none"),
            trace=True,
        ) as conn:
            peer = await server.accept()
            await peer.abort()
            await server.accept()
            diary.note(conn, conn.status_report())
            conn.abort()


# Where it does not.


@pytest.mark.parametrize(
    "url",
    [
        f"http://{USER}:{WORD}@h/?token={WORD}",
        f"wss://{USER}:{WORD}@/?token={WORD}",
        f"wss://{USER}:pa/{WORD}@h:port/?token={WORD}",
        f"wss://{USER}:{WORD}@h:0/?token={WORD}",
        f"wss://{USER}:{WORD}@h/?token={WORD}#frag",
        f"wss://{USER}:{WORD}@h/?token={WORD} space",
        f"{USER}:{WORD}@h/?token={WORD}",
        f"wss://{USER}:{WORD}@[::1/?token={WORD}",
        f"//{USER}:{WORD}@h",
        f"wss://h/?{WORD}\n",
        f"wss://{'x' * 70}.h/?token={WORD}",
        f"wss://{USER}:{WORD}@".encode(),
        {"url": f"wss://{USER}:{WORD}@h"},
    ],
)
async def test_urls_that_are_none(url: Any, diary: Diary) -> None:
    """At the call, from a function, as a hook's decision, and as Phoenix and Gossip take them."""

    async def late() -> Any:
        return url

    async def to_phoenix() -> None:
        async with phoenix.connect(url, reconnect=False):
            pass

    async def to_gossip() -> None:
        async with gossip.connect(
            client_id="id", client_secret=WORD, channels=gossip.ChannelsCallbacks(), url=url, reconnect=False
        ):
            pass

    for journey in (_enter(url), _enter(late), to_phoenix(), to_gossip()):
        await diary.failing(journey)
    try:
        diary.note(Reconnect(url=url))
    except ValueError as error:
        diary.note(error)


BAD_OPTIONS: list[dict[str, Any]] = [
    {"additional_headers": {"Authorization": f"Bearer {WORD}\r\nX: y"}},
    {"additional_headers": {"Authorization": WORD.encode()}},
    {"additional_headers": {f"bad name {'x'}": WORD}},
    {"additional_headers": [("Authorization", WORD, "three")]},
    {"additional_headers": f"Authorization: {WORD}"},
    {"additional_headers": {"Sec-WebSocket-Key": WORD}},
    {"subprotocols": [f"{TOKEN}=="]},
    {"subprotocols": [TOKEN, TOKEN]},
    {"subprotocols": TOKEN},
    {"proxy": f"ftp://{USER}:{WORD}@proxy:1"},
    {"proxy": f"http://{USER}:pa/{WORD}@proxy:port"},
    {"proxy": f"http://{USER}:{WORD}@proxy:1/?token={WORD} "},
    {"origin": f"https://h/?t={WORD}\n"},
]


@pytest.mark.parametrize("options", BAD_OPTIONS, ids=lambda options: next(iter(options)))
async def test_bad_options(options: dict[str, Any], diary: Diary) -> None:
    """The error says what is wrong, and not with what."""
    await diary.failing(_enter("ws://h/", **options))


@both
@pytest.mark.parametrize(
    "answer",
    [
        response("403 Forbidden", f"Set-Cookie: sid={WORD}", "Content-Length: 6") + WORD.encode(),
        response("302 Found", f"Location: wss://{USER}:{WORD}@127.0.0.1:1/?token={WORD}"),
        response("302 Found", f"Location: ftp://{USER}:{WORD}@h/?token={WORD}"),
        response("302 Found", f"Location: wss://{USER}:pa/{WORD}@h:port/?token={WORD}"),
        response("200 OK", f"Location: wss://h/?token={WORD}"),
        f"HTTP/1.1 101 Switching Protocols\r\nSet-Cookie sid={WORD}\r\n\r\n".encode(),
        f"Set-Cookie: sid={WORD}\r\n\r\n".encode(),
        b"",
    ],
    ids=["403", "gone", "scheme", "malformed", "200", "no colon", "no HTTP", "hung up"],
)
async def test_answers_that_are_none(
    transport: Callable[[], Transport], answer: bytes, diary: Diary
) -> None:
    """What a server says in refusing, and what the client had said, stays between them."""
    async with serving(answering(answer)) as port:
        error = await diary.failing(
            _enter(
                with_secrets(f"ws://127.0.0.1:{port}"),
                Noting(diary),
                transport=transport(),
                additional_headers=HEADERS,
                subprotocols=[TOKEN],
            )
        )
        diary.note(HandshakeFailed(error=error))  # type: ignore[arg-type]


@pytest.mark.parametrize("where", ["nobody", "no name", "no TLS", "silence"])
async def test_networks_that_fail(where: str, diary: Diary, nobody: int) -> None:
    """Nobody listens, no such name, no TLS, no answer."""

    async def silent(stream: trio.abc.Stream) -> None:
        await trio.sleep_forever()

    async def plain(stream: trio.abc.Stream) -> None:
        await stream.send_all(b"no TLS here")

    script = silent if where == "silence" else plain
    async with serving(script) as port:
        url = {
            "nobody": f"ws://127.0.0.1:{nobody}",
            "no name": "ws://name.invalid",
            "no TLS": f"wss://127.0.0.1:{port}",
            "silence": f"ws://127.0.0.1:{port}",
        }[where]
        policy = Backoff(initial=0.01, max_attempts=2)
        await diary.failing(
            _enter(
                with_secrets(url),
                Noting(diary),
                additional_headers=HEADERS,
                open_timeout=0.3 if where == "silence" else 5,
                reconnect=policy,
            )
        )


@pytest.fixture
def nobody() -> int:
    """A port that nobody listens on."""
    with sockets.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.mark.parametrize("kind", ["http", "refusing", "absent", "socks5", "socks refusing"])
async def test_proxies(kind: str, diary: Diary, nobody: int) -> None:
    """User and password of a proxy, that lets us through, refuses, or is not there."""
    credentials = f"{USER}:{WORD}"
    status = b"407 Proxy Authentication Required" if kind == "refusing" else b"200 OK"
    async with AsyncExitStack() as stack:
        behind = await stack.enter_async_context(serving(answering(b"")))
        proxy: Any = HTTPProxy(behind, status)
        if kind.startswith("socks"):
            proxy = SOCKSProxy(behind, user=credentials.encode(), refuse="refusing" in kind)
        port = await stack.enter_async_context(serving(proxy))
        scheme = "socks5" if kind.startswith("socks") else "http"
        address = f"{scheme}://{credentials}@127.0.0.1:{nobody if kind == 'absent' else port}"
        await diary.failing(_enter(with_secrets("ws://h.invalid"), proxy=address, open_timeout=5))


async def test_hooks_that_fail(diary: Diary, autojump_clock: MockClock) -> None:
    """A crash, with the connection at hand: its repr is in many an error."""

    class Failing(Noting):
        def handle_receive(self, frame: Any, state: Any) -> Any:
            raise RuntimeError(f"failed on {self.conn!r} by {self.conn.handshake!r}")

        conn: Connection[Any]

    socket = Failing(diary)

    async def journey() -> None:
        async with (
            MockServer(echo, memory=True) as server,
            connect(
                with_secrets(server.url),
                socket,
                stream=server.open_stream,
                additional_headers=HEADERS,
                trace=True,
            ) as socket.conn,
        ):
            await socket.conn.send("x")
            await socket.conn.wait_closed()

    await diary.failing(journey())


MANY: Any = HEADERS
ONE: Any = WORD

WRONG_KINDS: dict[str, Callable[[], object]] = {
    "headers as socket": lambda: connect("ws://h/", MANY),
    "transport": lambda: connect("ws://h/", transport=MANY),
    "stream": lambda: connect("ws://h/", stream=cast("Any", with_secrets("unix://h"))),
    "reconnect": lambda: connect("ws://h/", reconnect=MANY),
    "a whole header": lambda: Headers([(f"Authorization: Bearer {WORD}", "")]),
    "a reason": lambda: Close(1000, MANY),
    "a code": lambda: Close(ONE),
    "a payload": lambda: Ping(ONE),
    "a status": lambda: Response(MANY),
    "client_secret": lambda: gossip.connect(
        client_id="id", client_secret=ONE.encode(), channels=gossip.ChannelsCallbacks()
    ),
    "a listener": lambda: listen(MANY),
    "Phoenix, an odd host": lambda: phoenix.connect(f"wss://{USER}:{WORD}@h\u2100/"),
    "Phoenix, odd params": lambda: phoenix.connect("wss://h", params={"token": f"{WORD}\ud800"}),
    "Phoenix, an odd token": lambda: phoenix.connect("wss://h", auth_token=f"{WORD}\ud800"),
    "user information": lambda: connect(f"wss://{USER}:{WORD}\ud800@h"),
    "a proxy": lambda: connect("ws://h", proxy=f"http://{USER}:{WORD}\ud800@h"),
    "Redis, bytes": lambda: RedisBroker(cast("Any", f"redis://:{WORD}@h".encode())),
    "Redis, no scheme": lambda: RedisBroker(f"{WORD}@localhost:6379"),
    "Redis, a slash": lambda: RedisBroker(f"redis://{USER}:{WORD}/x@h"),
    "Redis, an odd host": lambda: RedisBroker(f"redis://{USER}:{WORD}@h\u2100/"),
    "Redis, odd": lambda: RedisBroker(f"redis://{USER}:{WORD}\ud800@h"),
}


@pytest.mark.parametrize("name", WRONG_KINDS)
def test_values_of_the_wrong_kind(name: str, diary: Diary) -> None:
    """A secret where something else belongs, and what no library that is asked can read."""
    with pytest.raises(ValueError) as caught:
        WRONG_KINDS[name]()
    diary.note(caught.value)


def test_values_that_have_secrets(diary: Diary) -> None:
    """They can be shown: what a callback of Phoenix returns, what a transport is given."""
    diary.note(
        phoenix.Connect(url=with_secrets("wss://h"), params={"id": WORD, "n": {"x": [WORD]}}),
        phoenix.Connect(params=partial(dict, token=WORD)),
        DialOptions(
            url=with_secrets("wss://h"),
            subprotocols=("chat", TOKEN),
            proxy=with_secrets("http://h"),
        ),
    )
    assert repr(phoenix.Connect()) == "Connect(url=None, params=None, delay=0)"


@both
@pytest.mark.parametrize("chosen", [TOKEN, f"x{TOKEN}", f"{TOKEN}, chat"])
async def test_a_server_that_chooses_the_token(
    transport: Callable[[], Transport], chosen: str, diary: Diary
) -> None:
    """As browsers make it necessary, tokens travel with the subprotocols; servers echo them."""

    async def script(stream: trio.abc.Stream) -> None:
        request = await read_request(stream)
        await stream.send_all(upgrade(request, f"Sec-WebSocket-Protocol: {chosen}"))
        await close(stream)

    async def journey(port: int) -> None:
        async with connect(
            f"ws://127.0.0.1:{port}",
            Noting(diary),
            transport=transport(),
            subprotocols=["chat", TOKEN],
            trace=True,
        ) as conn:
            assert conn.subprotocol == TOKEN
            diary.note(conn.handshake, conn.status_report())

    async with serving(script) as port:
        if chosen == TOKEN:
            await journey(port)
        else:
            error = await diary.failing(journey(port))
            assert "a subprotocol that was not offered: " in str(error)


@both
async def test_what_a_refusal_says(transport: Callable[[], Transport], diary: Diary) -> None:
    """In the words of the status line, a server may tell back what it was told."""
    phrase = f"Forbidden /feed?code={WORD} token={WORD} " + "x" * 5000
    async with serving(answering(response(f"403 {phrase}"))) as port:
        error = await diary.failing(_enter(f"ws://127.0.0.1:{port}", transport=transport()))
    assert "403 Forbidden /feed" in str(error)
    assert len(str(error)) < 1100


# The side of a server.

UPGRADE = """GET / HTTP/1.1\r
Host: h\r
Upgrade: websocket\r
Connection: Upgrade\r
Sec-WebSocket-Version: 13\r
Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r
Sec-WebSocket-Protocol: {protocols}\r
\r
"""


@dataclass
class Accepting:
    """What a server is given to look at."""

    diary: Diary

    async def handler(self, conn: Connection[Any]) -> None:
        self.diary.note(conn, conn.handshake, conn.status_report())
        raise LookupError(f"of the handler of {conn!r}")

    def process_request(self, request: Request) -> Response | None:
        self.diary.note(request, request.headers)
        return Response(403, "no") if request.path == "/no" else None


@both
@pytest.mark.parametrize("path", ["feed", "no", "bad path\x01"])
async def test_a_server(transport: Any, path: str, diary: Diary, autojump_clock: MockClock) -> None:
    """Its logs, what it is asked, handlers that raise, requests that are refused."""
    accepting = Accepting(diary)
    listener = MemoryListener()
    async with serve(
        accepting.handler,
        listeners=[listener],
        transport=transport(),
        process_request=accepting.process_request,
        select_subprotocol=lambda request, offered: None,
        trace=True,
    ):
        with suppress(Exception):
            async with connect(
                with_secrets("ws://h", path),
                stream=listener.open_stream,
                additional_headers=HEADERS,
                subprotocols=[TOKEN],
            ) as conn:
                await conn.wait_closed()
        for raw in (
            f"GET /?token={WORD}\x01 HTTP/1.1\r\nHost: h\r\n\r\n",
            f"GET /?token={WORD} HTTP/1.1\r\nHost: h\r\nAuthorization Bearer {WORD}\r\n\r\n",
            f"POST /?token={WORD} HTTP/1.1\r\nHost: h\r\nCookie: a={WORD}\r\n\r\n",
            f"GET /?token={WORD} HTTP/1.1\r\nHost: h h\r\nCookie: a={WORD}\r\n\r\n",
            f"GET /?token={WORD} HTTP/9.9\r\n\r\n",
            UPGRADE.format(protocols=f"chat, {WORD}=="),
        ):
            stream = await listener.open_stream()
            await stream.send_all(raw.encode())
            with trio.move_on_after(5):
                while await stream.receive_some():
                    pass
            await stream.aclose()
    diary.note("over")


async def test_a_wrong_choice_of_a_subprotocol(diary: Diary, autojump_clock: MockClock) -> None:
    """The error names what was offered, but not the token among it."""
    listener = MemoryListener()
    async with serve(
        Accepting(diary).handler,
        listeners=[listener],
        select_subprotocol=lambda request, offered: "other",
    ):
        await diary.failing(
            _enter("ws://h/", stream=listener.open_stream, subprotocols=["chat", TOKEN])
        )


# Protocols and brokers.


@both
async def test_phoenix(
    transport: Callable[[], Transport], diary: Diary, autojump_clock: MockClock
) -> None:
    """Params, auth_token, the payload of a join; joins that are refused; a token that cannot be."""
    async with MockPhoenixServer(memory=True) as server:
        async with phoenix.connect(
            server.url,
            params={"user_token": WORD, "nested": {"secret": WORD}},
            auth_token=f"xx{WORD}",
            stream=server.open_stream,
            transport=transport(),
            trace=True,
        ) as socket:
            channel = await socket.join("room:1", {"token": WORD})
            diary.note(socket, channel, socket.connection, socket.connection.status_report())
        for bad in ({"params": [("token", WORD)]}, {"auth_token": WORD.encode()},
                    {"params": {"token": object()}}, {"auth_token": f"{WORD}???"}):  # fmt: skip

            async def journey(options: Any = bad) -> None:
                async with phoenix.connect(server.url, stream=server.open_stream, **options):
                    pass

            await diary.failing(journey())


async def test_gossip(diary: Diary, autojump_clock: MockClock) -> None:
    """The client's secret, accepted and refused."""
    for known in (True, False):
        async with MockGossipServer(memory=True) as server:
            server.clients["client-id"] = (WORD if known else "another", "Game")

            async def journey() -> None:
                async with gossip.connect(
                    client_id="client-id",
                    client_secret=WORD,
                    channels=gossip.ChannelsCallbacks(),
                    url=server.url,
                    stream=server.open_stream,
                    trace=True,
                ) as client:
                    diary.note(client)

            if known:
                await journey()
            else:
                await diary.failing(journey())
    diary.note("over")


async def test_redis(diary: Diary, nobody: int) -> None:
    """User and password of a Redis server that is not there, or not one."""
    broker = RedisBroker(f"redis://{USER}:{WORD}@127.0.0.1:{nobody}/0", open_timeout=0.3)
    hub = Hub(broker=broker)
    diary.note(broker, hub)
    error = await diary.failing(hub.__aenter__())
    assert isinstance(error, BrokerUnavailable)
    for url in (
        f"http://{USER}:{WORD}@h",
        f"redis://{USER}:pa/{WORD}@h:port",
        f"redis://{USER}:{WORD}@h:1/x",
    ):
        try:
            RedisBroker(url)
        except Exception as error:
            diary.note(error)


@pytest.mark.parametrize("way", ["hub", "publish()"])
async def test_a_redis_that_quotes_what_it_is_sent(way: str, diary: Diary) -> None:
    """One that does not know AUTH, as it is renamed where many share a server."""

    async def script(stream: trio.abc.Stream) -> None:
        async for _ in stream:
            quoted = f"with args beginning with: '{USER}' '{WORD}'"
            await stream.send_all(f"-ERR unknown command 'AUTH', {quoted}\r\n".encode() * 9)

    async with serving(script) as port:
        url = f"redis://{USER}:{WORD}@127.0.0.1:{port}/0"
        if way == "hub":
            error = await diary.failing(Hub(broker=RedisBroker(url)).__aenter__())
        else:
            call = partial(publish, "x", url=url)
            error = await diary.failing(trio.to_thread.run_sync(call))
    assert isinstance(error, BrokerError)
    assert "unknown command 'AUTH'" in str(error)


async def test_functions_that_have_secrets(diary: Diary, autojump_clock: MockClock) -> None:
    """A listener is called by its name in the log, not with its arguments or its owner."""

    @dataclass
    class Reporter:
        token: str

        def report(self, _: object) -> None:
            raise LookupError

    def post(_: object, *, key: str) -> None:
        raise LookupError

    diary.note("over")
    hub = Hub()
    with listen(Reporter(WORD).report), listen(partial(post, key=WORD)):
        async with MockServer(echo, memory=True) as server, hub:
            hub.on("news")(partial(post, key=WORD))
            hub.on("news")(Reporter(WORD).report)
            await hub.publish("x", "news")
            await _enter(server.url, stream=server.open_stream)


async def test_messages_and_results_of_the_wrong_shape(
    diary: Diary, autojump_clock: MockClock
) -> None:
    """What cannot be sent, and what a hook returned with a state that has a password."""

    class Wrong(Noting):
        def handle_send(self, message: Any, state: dict[str, str]) -> Any:
            return message, state, "one too many"

        def handle_receive(self, frame: Any, state: dict[str, str]) -> Any:
            return [state]

    async def journey(socket: Socket[Any]) -> None:
        async with (
            MockServer(echo, memory=True) as server,
            connect(server.url, socket, stream=server.open_stream, trace=True) as conn,
        ):
            await diary.failing(conn.send({"password": WORD}))
            await conn.send_frame("x")
            await conn.wait_closed()

    await diary.failing(journey(Wrong(diary)))
    async with (
        MockServer(echo, memory=True) as server,
        connect(server.url, stream=server.open_stream) as conn,
    ):
        await diary.failing(conn.send({"password": WORD}))
        await diary.failing(conn.send_frame({"password": WORD}))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="a data message is") as caught:
        PreparedMessage({"password": WORD})  # type: ignore[arg-type]
    diary.note(caught.value)
