"""Secrets never appear in logs, traces, reprs and exceptions.

The tests pass secrets in URLs, headers, subprotocols, proxies, options and states, on both sides,
in successful and failing cases. Everything that the library shows is recorded and searched.
"""

from __future__ import annotations

import base64
import itertools
import logging
import pprint
import socket as sockets
import traceback
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
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

SECRET = "s3cr3t"
"""A part of every secret of these tests."""

USER, PASSWORD = f"user-{SECRET}", f"pass/{SECRET}?#"
USER_INFO = f"{quote(USER, safe='')}:{quote(PASSWORD, safe='')}@"
HEADERS = {
    "Authorization": f"Bearer {SECRET}-token",
    "Cookie": f"id={SECRET}; theme=dark; sid={SECRET}",
    "X-Api-Key": SECRET,
    "X-Auth-Token": SECRET,
}
QUERY = f"token={SECRET}&room=7&listenKey={SECRET}"
TOKEN = f"base64url.bearer.phx.{SECRET}"

SECRETS = {
    SECRET,
    *(
        base64.b64encode(text.encode()).decode().rstrip("=")
        for text in (SECRET, f"{USER}:{PASSWORD}", f"{USER}:", f"x{SECRET}", f"xx{SECRET}")
    ),
    quote(PASSWORD, safe=""),
}

TRANSPORTS: list[Callable[[], Transport]] = [NativeTransport, TrioWebsocketTransport]
both = pytest.mark.parametrize("transport", TRANSPORTS, ids=["native", "trio-websocket"])


def with_secrets(url: str, path: str = "feed") -> str:
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{USER_INFO}{rest.rstrip('/')}/{path}?{QUERY}"


class Output:
    """Everything that the library shows."""

    def __init__(self) -> None:
        self.entries: list[str] = []

    def record(self, *things: object) -> None:
        for thing in things:
            self.entries += [repr(thing), pprint.pformat(thing)]
            if not isinstance(thing, str | bytes | ConnectionInfo | Request):
                self.entries.append(str(thing))
            if isinstance(thing, BaseException):
                self.entries += traceback.format_exception(thing)

    def record_event(self, event: Event) -> None:
        # The frames of events are not redacted.
        if not isinstance(event, FrameSent | FrameReceived | HookReplied):
            self.record(event)

    async def expect_error(self, attempt: Awaitable[object]) -> BaseException:
        """Await something that raises, record the exception and return it."""
        try:
            with trio.fail_after(300):
                await attempt
        except Exception as error:
            self.record(error)
            return error
        raise AssertionError("nothing was raised")


@pytest.fixture
def output(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> Any:
    """Record events and logs of all levels, and search everything at the end."""
    caplog.set_level(logging.DEBUG)
    for name in ("trioglock", "trioglock.trace", "websockets", "trio-websocket", "wsproto"):
        caplog.set_level(logging.DEBUG, logger=name)
    output = Output()
    with listen(output.record_event):
        yield output
    assert output.entries
    formatter = logging.Formatter("%(name)s %(message)s")
    logged = [formatter.format(record) for record in caplog.get_records("call")]
    seen = [*output.entries, *logged, *capfd.readouterr()]
    found = {secret: text for text in seen for secret in SECRETS if secret in text}
    assert not found, "\n".join(f"{secret} in {text}" for secret, text in found.items())


class RecordingSocket(Socket[dict[str, str]]):
    """Records the arguments of its hooks, and has a secret in its state."""

    def __init__(self, output: Output) -> None:
        self.output = output

    def init_stream(self, info: ConnectionInfo) -> dict[str, str]:
        self.output.record(info, info.request_headers, info.response_headers)
        return {"password": SECRET, "shown": "yes"}

    def format_status(self, state: dict[str, str]) -> Any:
        return {"shown": state["shown"]}

    def handle_disconnect(self, reason: Disconnect, state: Any) -> tuple[None, Any]:
        self.output.record(reason)
        return None, state

    def terminate(self, reason: Disconnect, state: Any) -> None:
        self.output.record(reason)


async def _open(
    function: Callable[..., AbstractAsyncContextManager[object]], *args: Any, **options: Any
) -> None:
    async with function(*args, **options):
        pass


async def _enter(*args: Any, **options: Any) -> None:
    await _open(connect, *args, trace=True, **{"proxy": None, **options})


# Successful cases.


@both
async def test_a_connection(
    transport: Callable[[], Transport], output: Output, autojump_clock: MockClock
) -> None:
    """Its repr, report and trace, the arguments of its hooks, and the exceptions after its end."""
    async with MockServer(echo, memory=True) as server:
        server.accept_with({"Set-Cookie": f"sid={SECRET}"})
        async with connect(
            with_secrets(server.url),
            RecordingSocket(output),
            transport=transport(),
            stream=server.open_stream,
            additional_headers=HEADERS,
            subprotocols=["phoenix", TOKEN],
            trace=True,
        ) as conn:
            output.record(conn, conn.handshake, conn.statistics(), conn.status_report())
            assert "'shown': 'yes'" in str(conn.status_report())
            await conn.send("hello")
            await conn.receive()
        error = await output.expect_error(conn.send("too late"))
        output.record(error, conn, conn.status_report())
        # Nothing is redacted on the wire.
        assert conn.handshake is not None
        assert conn.handshake.request_headers["X-Api-Key"] == SECRET
        assert conn.url.endswith(QUERY)


async def test_messages_with_secrets(output: Output, autojump_clock: MockClock) -> None:
    """The trace hides members of JSON and header lines with the names of secrets."""
    frames = [
        f'{{"event": "login", "password": "{SECRET}"}}',
        f'{{"client_secret":"{SECRET}","x":1}}',
        f"Authorization: Bearer {SECRET}",
        f'{{"token": "{SECRET * 40}"}}'.encode(),
    ]
    async with (
        MockServer(echo, memory=True) as server,
        connect(server.url, stream=server.open_stream, trace=True) as conn,
    ):
        for frame in frames:
            await conn.send(frame)
            assert await conn.receive() == frame
    output.record(conn)


async def test_a_report_without_the_state(output: Output, autojump_clock: MockClock) -> None:
    """A format_status that raises or is async shows nothing of the state."""

    class Raising(RecordingSocket):
        def format_status(self, state: dict[str, str]) -> Any:
            raise ValueError(state["password"])

    class Async(RecordingSocket):
        async def format_status(self, state: dict[str, str]) -> Any:
            return state

    for socket in (Raising(output), Async(output)):
        async with (
            MockServer(echo, memory=True) as server,
            connect(server.url, socket, stream=server.open_stream) as conn,
        ):
            output.record(conn.status_report())
            assert "not shown: format_status" in str(conn.status_report())


async def test_reconnecting(output: Output, autojump_clock: MockClock) -> None:
    """Functions for URLs and headers, decisions of hooks, and refused attempts."""
    numbers = itertools.count()

    class Deciding(RecordingSocket):
        def handle_disconnect(self, reason: Disconnect, state: Any) -> tuple[Any, Any]:
            decision = Reconnect(url=with_secrets(server.url), additional_headers=HEADERS, delay=1)
            self.output.record(reason, decision, decision.url and "", decision.additional_headers)
            return decision, state

    async with MockServer(memory=True) as server:
        server.reject(
            503, headers={"Set-Cookie": f"a={SECRET}", "Location": f"wss://h/?t={SECRET}"}
        )

        async def url() -> str:
            return with_secrets(server.url, f"feed{next(numbers)}")

        async with connect(
            url,
            Deciding(output),
            stream=server.open_stream,
            additional_headers=lambda: HEADERS,
            reconnect=Backoff(jitter="none"),
            trace=True,
        ) as conn:
            peer = await server.accept()
            await peer.abort()
            await server.accept()
            output.record(conn, conn.status_report())
            conn.abort()


# Failures.


@pytest.mark.parametrize(
    "url",
    [
        f"http://{USER}:{SECRET}@h/?token={SECRET}",
        f"wss://{USER}:{SECRET}@/?token={SECRET}",
        f"wss://{USER}:pa/{SECRET}@h:port/?token={SECRET}",
        f"wss://{USER}:{SECRET}@h:0/?token={SECRET}",
        f"wss://{USER}:{SECRET}@h/?token={SECRET}#frag",
        f"wss://{USER}:{SECRET}@h/?token={SECRET} space",
        f"{USER}:{SECRET}@h/?token={SECRET}",
        f"wss://{USER}:{SECRET}@[::1/?token={SECRET}",
        f"//{USER}:{SECRET}@h",
        f"wss://h/?{SECRET}\n",
        f"wss://{'x' * 70}.h/?token={SECRET}",
        f"wss://{USER}:{SECRET}@".encode(),
        {"url": f"wss://{USER}:{SECRET}@h"},
    ],
)
async def test_invalid_urls(url: Any, output: Output) -> None:
    """As an argument, from a function, as a decision, and with Phoenix and Gossip."""

    async def late() -> Any:
        return url

    of_gossip = {"client_id": "id", "client_secret": SECRET, "channels": gossip.ChannelsCallbacks()}
    for attempt in (
        _enter(url),
        _enter(late),
        _open(phoenix.connect, url, reconnect=False),
        _open(gossip.connect, url=url, reconnect=False, **of_gossip),
    ):
        await output.expect_error(attempt)
    try:
        output.record(Reconnect(url=url))
    except ValueError as error:
        output.record(error)


BAD_OPTIONS: list[dict[str, Any]] = [
    {"additional_headers": {"Authorization": f"Bearer {SECRET}\r\nX: y"}},
    {"additional_headers": {"Authorization": SECRET.encode()}},
    {"additional_headers": {f"bad name {'x'}": SECRET}},
    {"additional_headers": [("Authorization", SECRET, "three")]},
    {"additional_headers": f"Authorization: {SECRET}"},
    {"additional_headers": {"Sec-WebSocket-Key": SECRET}},
    {"subprotocols": [f"{TOKEN}=="]},
    {"subprotocols": [TOKEN, TOKEN]},
    {"subprotocols": TOKEN},
    {"proxy": f"ftp://{USER}:{SECRET}@proxy:1"},
    {"proxy": f"http://{USER}:pa/{SECRET}@proxy:port"},
    {"proxy": f"http://{USER}:{SECRET}@proxy:1/?token={SECRET} "},
    {"origin": f"https://h/?t={SECRET}\n"},
]


@pytest.mark.parametrize("options", BAD_OPTIONS, ids=lambda options: next(iter(options)))
async def test_invalid_options(options: dict[str, Any], output: Output) -> None:
    """The message does not contain the value."""
    await output.expect_error(_enter("ws://h/", **options))


@both
@pytest.mark.parametrize(
    "answer",
    [
        response("403 Forbidden", f"Set-Cookie: sid={SECRET}", "Content-Length: 6")
        + SECRET.encode(),
        response("302 Found", f"Location: wss://{USER}:{SECRET}@127.0.0.1:1/?token={SECRET}"),
        response("302 Found", f"Location: ftp://{USER}:{SECRET}@h/?token={SECRET}"),
        response("302 Found", f"Location: wss://{USER}:pa/{SECRET}@h:port/?token={SECRET}"),
        response("200 OK", f"Location: wss://h/?token={SECRET}"),
        f"HTTP/1.1 101 Switching Protocols\r\nSet-Cookie sid={SECRET}\r\n\r\n".encode(),
        f"Set-Cookie: sid={SECRET}\r\n\r\n".encode(),
        b"",
    ],
    ids=["403", "gone", "scheme", "malformed", "200", "no colon", "no HTTP", "hung up"],
)
async def test_invalid_responses(
    transport: Callable[[], Transport], answer: bytes, output: Output
) -> None:
    """The exceptions show neither the request nor the secrets of the response."""
    async with serving(answering(answer)) as port:
        error = await output.expect_error(
            _enter(
                with_secrets(f"ws://127.0.0.1:{port}"),
                RecordingSocket(output),
                transport=transport(),
                additional_headers=HEADERS,
                subprotocols=[TOKEN],
            )
        )
        output.record(HandshakeFailed(error=error))  # type: ignore[arg-type]


@pytest.mark.parametrize("failure", ["no listener", "no name", "no TLS", "silence"])
async def test_network_failures(failure: str, output: Output, unused_port: int) -> None:
    """No listener, an unknown name, no TLS, no response."""

    async def silent(stream: trio.abc.Stream) -> None:
        await trio.sleep_forever()

    async def plain(stream: trio.abc.Stream) -> None:
        await stream.send_all(b"no TLS here")

    script = silent if failure == "silence" else plain
    async with serving(script) as port:
        url = {
            "no listener": f"ws://127.0.0.1:{unused_port}",
            "no name": "ws://name.invalid",
            "no TLS": f"wss://127.0.0.1:{port}",
            "silence": f"ws://127.0.0.1:{port}",
        }[failure]
        policy = Backoff(initial=0.01, max_attempts=2)
        await output.expect_error(
            _enter(
                with_secrets(url),
                RecordingSocket(output),
                additional_headers=HEADERS,
                open_timeout=0.3 if failure == "silence" else 5,
                reconnect=policy,
            )
        )


@pytest.fixture
def unused_port() -> int:
    """A port without a listener."""
    with sockets.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.mark.parametrize("kind", ["http", "refusing", "absent", "socks5", "socks refusing"])
async def test_proxies(kind: str, output: Output, unused_port: int) -> None:
    """The credentials of a proxy that connects, refuses, or cannot be reached."""
    credentials = f"{USER}:{SECRET}"
    status = b"407 Proxy Authentication Required" if kind == "refusing" else b"200 OK"
    async with AsyncExitStack() as stack:
        behind = await stack.enter_async_context(serving(answering(b"")))
        proxy: Any = HTTPProxy(behind, status)
        if kind.startswith("socks"):
            proxy = SOCKSProxy(behind, user=credentials.encode(), refuse="refusing" in kind)
        port = await stack.enter_async_context(serving(proxy))
        scheme = "socks5" if kind.startswith("socks") else "http"
        address = f"{scheme}://{credentials}@127.0.0.1:{unused_port if kind == 'absent' else port}"
        await output.expect_error(
            _enter(with_secrets("ws://h.invalid"), proxy=address, open_timeout=5)
        )


async def test_an_exception_of_a_hook(output: Output, autojump_clock: MockClock) -> None:
    """Its message contains the repr of the connection."""

    class Failing(RecordingSocket):
        def handle_receive(self, frame: Any, state: Any) -> Any:
            raise RuntimeError(f"failed on {self.conn!r} by {self.conn.handshake!r}")

        conn: Connection[Any]

    socket = Failing(output)

    async def attempt() -> None:
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

    await output.expect_error(attempt())


MANY: Any = HEADERS
ONE: Any = SECRET

WRONG_KINDS: dict[str, Callable[[], object]] = {
    "headers as socket": lambda: connect("ws://h/", MANY),
    "transport": lambda: connect("ws://h/", transport=MANY),
    "stream": lambda: connect("ws://h/", stream=cast("Any", with_secrets("unix://h"))),
    "reconnect": lambda: connect("ws://h/", reconnect=MANY),
    "a whole header": lambda: Headers([(f"Authorization: Bearer {SECRET}", "")]),
    "a reason": lambda: Close(1000, MANY),
    "a code": lambda: Close(ONE),
    "a payload": lambda: Ping(ONE),
    "a status": lambda: Response(MANY),
    "client_secret": lambda: gossip.connect(
        client_id="id", client_secret=ONE.encode(), channels=gossip.ChannelsCallbacks()
    ),
    "a listener": lambda: listen(MANY),
    "Phoenix, an odd host": lambda: phoenix.connect(f"wss://{USER}:{SECRET}@h\u2100/"),
    "Phoenix, odd params": lambda: phoenix.connect("wss://h", params={"token": f"{SECRET}\ud800"}),
    "Phoenix, an odd token": lambda: phoenix.connect("wss://h", auth_token=f"{SECRET}\ud800"),
    "user information": lambda: connect(f"wss://{USER}:{SECRET}\ud800@h"),
    "a proxy": lambda: connect("ws://h", proxy=f"http://{USER}:{SECRET}\ud800@h"),
    "Redis, bytes": lambda: RedisBroker(cast("Any", f"redis://:{SECRET}@h".encode())),
    "Redis, no scheme": lambda: RedisBroker(f"{SECRET}@localhost:6379"),
    "Redis, a slash": lambda: RedisBroker(f"redis://{USER}:{SECRET}/x@h"),
    "Redis, an odd host": lambda: RedisBroker(f"redis://{USER}:{SECRET}@h\u2100/"),
    "Redis, odd": lambda: RedisBroker(f"redis://{USER}:{SECRET}\ud800@h"),
}


@pytest.mark.parametrize("name", WRONG_KINDS)
def test_values_of_the_wrong_type(name: str, output: Output) -> None:
    """A secret as an argument where another type is expected."""
    with pytest.raises(ValueError) as caught:
        WRONG_KINDS[name]()
    output.record(caught.value)


def test_reprs_of_values_with_secrets(output: Output) -> None:
    """The arguments of Phoenix and of transports."""
    output.record(
        phoenix.Connect(url=with_secrets("wss://h"), params={"id": SECRET, "n": {"x": [SECRET]}}),
        phoenix.Connect(params=partial(dict, token=SECRET)),
        DialOptions(
            url=with_secrets("wss://h"),
            subprotocols=("chat", TOKEN),
            proxy=with_secrets("http://h"),
        ),
    )
    assert repr(phoenix.Connect()) == "Connect(url=None, params=None, delay=0)"


@both
@pytest.mark.parametrize("chosen", [TOKEN, f"x{TOKEN}", f"{TOKEN}, chat"])
async def test_a_token_as_the_subprotocol(
    transport: Callable[[], Transport], chosen: str, output: Output
) -> None:
    """Browsers send tokens as subprotocols, and servers may select them."""

    async def script(stream: trio.abc.Stream) -> None:
        request = await read_request(stream)
        await stream.send_all(upgrade(request, f"Sec-WebSocket-Protocol: {chosen}"))
        await close(stream)

    async def attempt(port: int) -> None:
        async with connect(
            f"ws://127.0.0.1:{port}",
            RecordingSocket(output),
            transport=transport(),
            subprotocols=["chat", TOKEN],
            trace=True,
        ) as conn:
            assert conn.subprotocol == TOKEN
            output.record(conn.handshake, conn.status_report())

    async with serving(script) as port:
        if chosen == TOKEN:
            await attempt(port)
        else:
            error = await output.expect_error(attempt(port))
            assert "a subprotocol that was not offered: " in str(error)


@both
async def test_the_reason_phrase_of_a_refusal(
    transport: Callable[[], Transport], output: Output
) -> None:
    """A server may quote the request in it."""
    phrase = f"Forbidden /feed?code={SECRET} " + "x" * 5000
    async with serving(answering(response(f"403 {phrase}"))) as port:
        error = await output.expect_error(_enter(f"ws://127.0.0.1:{port}", transport=transport()))
    assert "403 Forbidden /feed" in str(error)
    assert len(str(error)) < 1100


# Servers.

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
    """Records what a server passes to its functions."""

    output: Output

    async def handler(self, conn: Connection[Any]) -> None:
        self.output.record(conn, conn.handshake, conn.status_report())
        raise LookupError(f"of the handler of {conn!r}")

    def process_request(self, request: Request) -> Response | None:
        self.output.record(request, request.headers)
        return Response(403, "no") if request.path == "/no" else None


@both
@pytest.mark.parametrize("path", ["feed", "no", "bad path\x01"])
async def test_a_server(
    transport: Any, path: str, output: Output, autojump_clock: MockClock
) -> None:
    """Its logs, requests, exceptions of handlers, and refused requests."""
    accepting = Accepting(output)
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
            f"GET /?token={SECRET}\x01 HTTP/1.1\r\nHost: h\r\n\r\n",
            f"GET /?token={SECRET} HTTP/1.1\r\nHost: h\r\nAuthorization Bearer {SECRET}\r\n\r\n",
            f"POST /?token={SECRET} HTTP/1.1\r\nHost: h\r\nCookie: a={SECRET}\r\n\r\n",
            f"GET /?token={SECRET} HTTP/1.1\r\nHost: h h\r\nCookie: a={SECRET}\r\n\r\n",
            f"GET /?token={SECRET} HTTP/9.9\r\n\r\n",
            UPGRADE.format(protocols=f"chat, {SECRET}=="),
        ):
            stream = await listener.open_stream()
            await stream.send_all(raw.encode())
            with trio.move_on_after(5):
                while await stream.receive_some():
                    pass
            await stream.aclose()
    output.record("over")


async def test_an_invalid_selection_of_a_subprotocol(
    output: Output, autojump_clock: MockClock
) -> None:
    """The message names the offered subprotocols without the token."""
    listener = MemoryListener()
    async with serve(
        Accepting(output).handler,
        listeners=[listener],
        select_subprotocol=lambda request, offered: "other",
    ):
        await output.expect_error(
            _enter("ws://h/", stream=listener.open_stream, subprotocols=["chat", TOKEN])
        )


# Protocols and brokers.


@both
async def test_phoenix(
    transport: Callable[[], Transport], output: Output, autojump_clock: MockClock
) -> None:
    """Params, auth_token, the payload of a join, and invalid params and tokens."""
    async with MockPhoenixServer(memory=True) as server:
        async with phoenix.connect(
            server.url,
            params={"user_token": SECRET, "nested": {"secret": SECRET}},
            auth_token=f"xx{SECRET}",
            stream=server.open_stream,
            transport=transport(),
            trace=True,
        ) as socket:
            channel = await socket.join("room:1", {"token": SECRET})
            output.record(socket, channel, socket.connection, socket.connection.status_report())
        for bad in ({"params": [("token", SECRET)]}, {"auth_token": SECRET.encode()},
                    {"params": {"token": object()}}, {"auth_token": f"{SECRET}???"}):  # fmt: skip
            options: Any = bad
            await output.expect_error(
                _open(phoenix.connect, server.url, stream=server.open_stream, **options)
            )


async def test_gossip(output: Output, autojump_clock: MockClock) -> None:
    """The client secret, accepted and refused."""
    for known in (True, False):
        async with MockGossipServer(memory=True) as server:
            server.clients["client-id"] = (SECRET if known else "another", "Game")

            async def attempt() -> None:
                async with gossip.connect(
                    client_id="client-id",
                    client_secret=SECRET,
                    channels=gossip.ChannelsCallbacks(),
                    url=server.url,
                    stream=server.open_stream,
                    trace=True,
                ) as client:
                    output.record(client)

            if known:
                await attempt()
            else:
                await output.expect_error(attempt())
    output.record("over")


async def test_redis(output: Output, unused_port: int) -> None:
    """The credentials of a Redis server that cannot be reached."""
    broker = RedisBroker(f"redis://{USER}:{SECRET}@127.0.0.1:{unused_port}/0", open_timeout=0.3)
    hub = Hub(broker=broker)
    output.record(broker, hub)
    error = await output.expect_error(hub.__aenter__())
    assert isinstance(error, BrokerUnavailable)
    for url in (
        f"http://{USER}:{SECRET}@h",
        f"redis://{USER}:pa/{SECRET}@h:port",
        f"redis://{USER}:{SECRET}@h:1/x",
        f"redis+cluster://{USER}:pa/{SECRET}@h",
        f"redis+cluster://{USER}:{SECRET}@h:port,h/1",
        f"redis+cluster://{USER}:{SECRET}@h?other={SECRET}",
        f"redis+sentinel://{USER}:pa/{SECRET}@h/mymaster",
        f"redis+sentinel://{USER}:{SECRET}@h:port/mymaster",
        f"redis+sentinel://{USER}:{SECRET}@h/mymaster?sentinel_password={SECRET}&other={SECRET}",
        f"redis+sentinel://{USER}:{SECRET}@h/mymaster/{SECRET}",
    ):
        try:
            RedisBroker(url)
        except Exception as error:
            output.record(error)


@pytest.mark.parametrize("api", ["hub", "publish()"])
async def test_a_redis_error_that_quotes_the_command(api: str, output: Output) -> None:
    """A server where AUTH is disabled."""

    async def script(stream: trio.abc.Stream) -> None:
        async for _ in stream:
            quoted = f"with args beginning with: '{USER}' '{SECRET}'"
            await stream.send_all(f"-ERR unknown command 'AUTH', {quoted}\r\n".encode() * 9)

    async with serving(script) as port:
        url = f"redis://{USER}:{SECRET}@127.0.0.1:{port}/0"
        if api == "hub":
            error = await output.expect_error(Hub(broker=RedisBroker(url)).__aenter__())
        else:
            call = partial(publish, "x", url=url)
            error = await output.expect_error(trio.to_thread.run_sync(call))
    assert isinstance(error, BrokerError)
    assert "unknown command 'AUTH'" in str(error)


async def test_functions_with_secrets(output: Output, autojump_clock: MockClock) -> None:
    """Logs show the name of a listener, not its arguments or its object."""

    @dataclass
    class Reporter:
        token: str

        def report(self, _: object) -> None:
            raise LookupError

    def post(_: object, *, key: str) -> None:
        raise LookupError

    output.record("over")
    hub = Hub()
    with listen(Reporter(SECRET).report), listen(partial(post, key=SECRET)):
        async with MockServer(echo, memory=True) as server, hub:
            hub.on("news")(partial(post, key=SECRET))
            hub.on("news")(Reporter(SECRET).report)
            await hub.publish("x", "news")
            await _enter(server.url, stream=server.open_stream)


async def test_invalid_messages_and_results(output: Output, autojump_clock: MockClock) -> None:
    """Messages that cannot be sent, and a wrong result that contains the state."""

    class Wrong(RecordingSocket):
        def handle_send(self, message: Any, state: dict[str, str]) -> Any:
            return message, state, "one too many"

        def handle_receive(self, frame: Any, state: dict[str, str]) -> Any:
            return [state]

    async def attempt(socket: Socket[Any]) -> None:
        async with (
            MockServer(echo, memory=True) as server,
            connect(server.url, socket, stream=server.open_stream, trace=True) as conn,
        ):
            await output.expect_error(conn.send({"password": SECRET}))
            await conn.send_frame("x")
            await conn.wait_closed()

    await output.expect_error(attempt(Wrong(output)))
    async with (
        MockServer(echo, memory=True) as server,
        connect(server.url, stream=server.open_stream) as conn,
    ):
        await output.expect_error(conn.send({"password": SECRET}))
        await output.expect_error(conn.send_frame({"password": SECRET}))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="a data message must be") as caught:
        PreparedMessage({"password": SECRET})  # type: ignore[arg-type]
    output.record(caught.value)
