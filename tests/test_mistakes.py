"""Mistakes of users, and the first line of the message: it says what to write instead."""

from __future__ import annotations

import asyncio
import datetime as dt
import functools
import inspect
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from tests.cases import case_of
from tests.transports.servers import authority, client_context, server_context
from trioglock import (
    Backoff,
    Connection,
    InvalidOption,
    NativeTransport,
    Reconnect,
    Reply,
    Socket,
    connect,
    run,
    serve,
    serve_forever,
    supervise,
)
from trioglock.asgi import WebSocketApp
from trioglock.channels import Channels
from trioglock.codecs import JSON
from trioglock.protocols import gossip, phoenix
from trioglock.pubsub import Hub, MemoryBroker
from trioglock.routing import EventSocket, Router
from trioglock.testing import FaultProxy, MockGossipServer, MockPhoenixServer, MockServer

URL = "ws://localhost:1/"

Code = Callable[[], Awaitable[object]]

MISTAKES: dict[str, tuple[Code, str]] = {}


def says(text: str) -> Callable[[Code], Code]:
    """Add a function that makes a mistake, with the first line of the message."""

    def add(code: Code) -> Code:
        MISTAKES[getattr(code, "__name__")] = (code, text)  # noqa: B009 - not every callable has one
        return code

    return add


def calls(name: str, text: str, call: Callable[[], object]) -> None:
    """Add a call that makes a mistake."""

    async def code() -> None:
        made = call()
        if inspect.isawaitable(made):
            await made

    MISTAKES[name] = (code, text)


@asynccontextmanager
async def connected(socket: Socket[Any] | None = None) -> AsyncIterator[Any]:
    async with (
        MockServer(memory=True) as server,
        connect(server.url, socket or Socket(), stream=server.open_stream) as conn,
    ):
        yield conn


# Options of other libraries, and misspelt ones.

OPTIONS = {
    "headers": "did you mean 'additional_headers'?",
    "extra_headers": "did you mean 'additional_headers'?",
    "timeout": "did you mean 'open_timeout'?",
    "receive_timeout": "use trio.fail_after() around receive()",
    "ssl": "did you mean 'ssl_context'?",
    "sslopt": "did you mean 'ssl_context'?",
    "ping": "did you mean 'ping_interval'?",
    "max_msg_size": "did you mean 'max_size'?",
    "message_queue_size": "did you mean 'max_queue'?",
    "compress": "did you mean 'compression'?",
    "protocols": "did you mean 'subprotocols'?",
    "reconect": "did you mean 'reconnect'?",
    "zzz": "help(CALL) lists the options",
}


async def handler(conn: Any) -> None:
    """A handler of a server."""


FUNCTIONS: dict[str, Any] = {
    "connect": functools.partial(connect, URL),
    "run": functools.partial(run, URL, Socket()),
    "phoenix.connect": functools.partial(phoenix.connect, URL),
    "phoenix.run": functools.partial(phoenix.run, URL, phoenix.ChannelClient()),
    "gossip.connect": functools.partial(gossip.connect, URL, client_id="", client_secret=""),
}

for function, partial in FUNCTIONS.items():
    for option, hint in OPTIONS.items():
        if option == "timeout" and function.startswith("phoenix"):
            continue
        calls(
            f"{function}({option}=)",
            f"{function}() got an unexpected option '{option}'; {hint.replace('CALL', function)}",
            functools.partial(partial, **{option: 1}),
        )

# Functions that are called rather than passed, and what they return.


async def fetch() -> Any:
    """Fetch headers, for example."""


NOT_PASSED = ": pass the function fetch without calling it"
PAIRS = "a dict or a list of pairs"
SOURCES: list[tuple[str, Any, str, str]] = [
    ("url", connect, "a str", ""),
    ("additional_headers", functools.partial(connect, URL), PAIRS, "; return {} for none"),
    ("url", phoenix.connect, "a str", ""),
    ("params", functools.partial(phoenix.connect, URL), "a mapping", "; return {} for none"),
    ("auth_token", functools.partial(phoenix.connect, URL), "a non-empty str", ""),
]


async def enter_block(opening: Callable[[], Any]) -> None:
    async with opening():
        pass


def call_source(call: Any, option: str) -> Callable[[], object]:
    return lambda: call(**{option: fetch()})


def return_from_source(call: Any, option: str, value: object) -> Code:
    async def enter() -> None:
        async with (
            MockServer(memory=True) as server,
            call(**{option: lambda: value}, stream=server.open_stream, reconnect=False),
        ):
            pass

    return enter


for option, call, allowed, none in SOURCES:
    name = f"{option} of {getattr(call, 'func', call).__module__}"
    text = (
        f"{option} must be {allowed}, or a function that returns one, not a coroutine{NOT_PASSED}"
    )
    calls(f"{name}: called", text, call_source(call, option))
    wrong = f"the function passed as {option} must return {allowed}, not"
    MISTAKES[f"{name}: None"] = return_from_source(call, option, None), f"{wrong} None{none}"
    MISTAKES[f"{name}: int"] = return_from_source(call, option, 5), f"{wrong} int"
MISTAKES["additional_headers: str"] = (
    return_from_source(functools.partial(connect, URL), "additional_headers", "Bearer x"),
    f"the function passed as additional_headers must return {PAIRS}, not str",
)


async def no_stream() -> None:
    """Return nothing."""


STREAMS = "the function passed as stream must be async and return a trio stream"
NO_STREAMS: list[tuple[Any, str]] = [
    (no_stream, ", not None"),
    (lambda: None, ": it is not async"),
]
for made, why in NO_STREAMS:
    MISTAKES[f"stream{why}"] = (
        functools.partial(enter_block, functools.partial(connect, URL, stream=made)),
        f"{STREAMS}{why}",
    )

FUNCTIONS_ONLY: list[tuple[str, Callable[[Any], object]]] = [
    ("stream must be a trio stream or a function", lambda it: connect(URL, stream=it)),
    ("retryable must be a function", lambda it: Backoff(retryable=it)),
    ("process_request must be a function", lambda it: serve(handler, process_request=it)),
    ("select_subprotocol must be a function", lambda it: serve(handler, select_subprotocol=it)),
    (
        "target must be a Socket class or an async handler",
        lambda it: serve(it, "127.0.0.1", 0),
    ),
    ("connect must be a function", lambda it: Channels({}, hub=Hub(), connect=it)),
]


def check_called(create: Callable[[Any], object]) -> None:
    try:
        create(fetch())
    except InvalidOption as error:
        raise InvalidOption(re.sub(r" at 0x\w+", "", str(error))) from None


for text, create in FUNCTIONS_ONLY:
    calls(
        f"{text}: called",
        f"{text}, not <coroutine object fetch>{NOT_PASSED}",
        functools.partial(check_called, create),
    )

calls(
    "headers of Reconnect",
    "additional_headers: headers must be a dict or a list of pairs, not function",
    lambda: Reconnect(additional_headers=fetch),  # type: ignore[arg-type]
)

BROKERS = "use the option of the broker, as in Hub(broker=MemoryBroker(history=5))"
for option in ("history", "history_seconds"):
    for function, one in (("Hub", Hub), ("serve", functools.partial(serve, handler))):
        calls(
            f"{function}({option}=)",
            f"{function}() got an unexpected option '{option}'; {BROKERS}",
            functools.partial(one, **{option: 5}),  # type: ignore[arg-type]
        )

MORE_OPTIONS: list[tuple[str, Any, str, str]] = [
    ("serve", functools.partial(serve, handler), "max_clients", "max_connections"),
    ("serve", functools.partial(serve, handler), "ssl", "ssl_context"),
    ("serve", functools.partial(serve, handler), "sock", "listeners"),
    ("serve_forever", functools.partial(serve_forever, handler), "cors", "origins"),
    ("WebSocketApp", functools.partial(WebSocketApp, handler), "max_queues", "max_queue"),
    ("Hub", Hub, "redis", "broker"),
    ("Hub", Hub, "max_queued_bytes", "max_queue_bytes"),
    ("supervise", supervise, "max_restart", "max_restarts"),
    ("supervise", supervise, "period", "within"),
    ("phoenix.connect", functools.partial(phoenix.connect, URL), "parms", "params"),
]

for function, partial, option, hint in MORE_OPTIONS:
    calls(
        f"{function}({option}=)",
        f"{function}() got an unexpected option '{option}'; did you mean '{hint}'?",
        functools.partial(partial, **{option: 1}),
    )

calls(
    "heartbeat=20",
    "heartbeat must be a MessageHeartbeat or None, not 20; for ping frames use ping_interval",
    lambda: connect(URL, heartbeat=20),  # type: ignore[arg-type]
)

# A class in place of an instance, and an instance in place of a class.

CLASSES: list[tuple[str, type, Callable[[Any], object]]] = [
    ("socket must be a trioglock.Socket", EventSocket, lambda kind: connect(URL, kind)),
    (
        "reconnect must be True, False or a Backoff",
        Backoff,
        lambda kind: connect(URL, reconnect=kind),
    ),
    (
        "transport must be a trioglock Transport",
        NativeTransport,
        lambda kind: connect(URL, transport=kind),
    ),
    ("codec must be an object with encode and decode", JSON, lambda kind: EventSocket(codec=kind)),
    ("router must be a Router", Router, EventSocket),
    (
        "broker must be a Broker such as RedisBroker(url)",
        MemoryBroker,
        lambda kind: Hub(broker=kind),
    ),
    (
        "channels must be a gossip.ChannelsCallbacks",
        gossip.ChannelsCallbacks,
        lambda kind: gossip.connect(client_id="i", client_secret="s", channels=kind),
    ),
]

for text, kind, create in CLASSES:
    calls(
        f"the class {kind.__name__}",
        f"{text}, not the class {kind.__name__}: write {kind.__name__}()",
        functools.partial(create, kind),
    )

calls(
    "serve(instance)",
    "every connection needs its own Socket: write serve(Socket, ...), "
    "or a function that creates one, such as lambda: Socket(...)",
    lambda: serve(Socket(), "127.0.0.1", 0),  # type: ignore[arg-type]
)
calls(
    "serve(hub)",
    "target must be a Socket class or an async handler, not <Hub trioglock, 0 subscribers>; "
    "pass its socket, as in hub.socket",
    lambda: serve(Hub(), "127.0.0.1", 0),  # type: ignore[arg-type]
)
calls(
    "serve(asgi_application)",
    "asgi_application is an ASGI application: run it with an ASGI server on trio, such as "
    "hypercorn --worker-class trio",
    lambda: serve(asgi_application, "127.0.0.1", 0),  # type: ignore[arg-type]
)


async def asgi_application(scope: Any, receive: Any, send: Any) -> None:
    """An application such as that of Starlette."""


class NoSuper(EventSocket[None]):
    def __init__(self) -> None:
        """Forget ``super().__init__()``."""


calls(
    "EventSocket without super().__init__()",
    "NoSuper.__init__() must call super().__init__() first",
    lambda: connect(URL, NoSuper()),
)

# Methods of other libraries.

for name, use in {
    "recv": "await receive()",
    "recv_streaming": "async with receive_fragments()",
    "get_message": "await receive()",
    "send_str": "await send(message)",
    "close": "await aclose(), or leave the block",
    "closed": "status",
    "remote_address": "handshake.peer",
}.items():

    async def code(name: str = name) -> None:
        async with connected() as conn:
            getattr(conn, name)

    MISTAKES[f"conn.{name}"] = (code, f"Connection has no {name!r}: use {use}")


@says("'send' needs the block: use async with connect(...) as ...:")
async def no_block() -> None:
    conn: Any = connect(URL)
    await conn.send("hello")


@says("use: async with phoenix.connect(...) as ...:")
async def awaited_phoenix() -> None:
    await phoenix.connect(URL)  # type: ignore[misc]


@says("coroutine 'Connection.send' was never awaited")
async def missing_await() -> None:
    async with connected() as conn:
        with pytest.warns(RuntimeWarning) as caught:
            conn.send("hello")
        raise caught[0].message  # type: ignore[misc]


# Results and messages.

for hook, cause, shape, result in [
    ("init_stream", None, "the state", "Reply('x')"),
    ("handle_connect", None, "a tuple (result, state)", "Reply('x')"),
    ("handle_receive", "receive", "a tuple (result, state)", "Reply('x')"),
    ("handle_cast", "cast", "a tuple (result, state)", "Reply('x')"),
    ("handle_call", "call", "a tuple (reply, state) or (reply, result, state)", "Reply('x')"),
]:

    async def swapped(hook: str = hook, cause: str | None = cause) -> None:
        def returns(self: object, *given: Any) -> Any:
            return Reply("x") if hook == "init_stream" else (given[-1], Reply("x"))

        kind: Any = type("Swapped", (Socket,), {hook: returns})
        async with (
            MockServer(memory=True) as server,
            connect(server.url, kind(), stream=server.open_stream) as conn,
        ):
            if cause == "receive":
                await server.send("x")
            elif cause == "cast":
                conn.cast("x")
            elif cause == "call":
                await conn.call("x")
            await trio.sleep_forever()

    MISTAKES[f"{hook} swapped"] = (
        swapped,
        f"Swapped.{hook} must return {shape}, in this order: {result} is not a state",
    )


@says(
    "a frame must be str, bytes-like, PreparedMessage, Ping, Pong or Close, not dict: {'a': 1}; "
    "encode it, for example with json.dumps(), or override handle_send"
)
async def a_dict() -> None:
    async with connected() as conn:
        await conn.send({"a": 1})


class Sends(Socket[Connection[Any]]):
    def init_stream(self, info: Any) -> Any:
        return info.connection

    async def handle_cast(self, message: Any, state: Any) -> Any:
        await state.send("x")


@says(
    "send() cannot be used inside a hook of the same connection, because it would wait for that "
    "hook: return Reply(...), Close(...) or Deliver(...), or use cast()"
)
async def send_in_a_hook() -> None:
    async with connected(Sends()) as conn:
        conn.cast("x")
        await trio.sleep_forever()


# The network.


@says("an in-memory server has no network address: pass stream=server.open_stream")
async def forgotten_stream() -> None:
    async with MockServer(memory=True) as server, connect(server.url, reconnect=True):
        pass


@says("cannot connect to localhost:1: Connection refused; is the server running, and on this port?")
async def server_is_down() -> None:
    async with connect("ws://localhost:1"):
        pass


@says("cannot connect to nowhere.invalid:80: RESOLVER; check the host name")
async def no_such_host() -> None:
    async with connect("ws://nowhere.invalid"):
        pass


TLS = "TLS handshake with HOST: [SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: "
TRUST = (
    "; if you trust the issuer of the certificate, pass "
    "ssl_context=ssl.create_default_context(cafile=...)"
)


async def over_tls(host: str, server: ssl.SSLContext | None, client: ssl.SSLContext) -> None:
    async with (
        serve(Socket, "127.0.0.1", 0, ssl_context=server) as served,
        connect(f"wss://{host}:{served.port}/", ssl_context=client),
    ):
        pass


@says(
    TLS.replace("HOST", "localhost")
    + "Hostname mismatch, certificate is not valid for 'localhost'. (_ssl.c:LINE); "
    "connect to a name in the certificate, or pass such a name as server_hostname"
)
async def another_host() -> None:
    await over_tls("localhost", server_context(), client_context())


@says(TLS.replace("HOST", "127.0.0.1") + "self-signed certificate (_ssl.c:LINE)" + TRUST)
async def self_signed() -> None:
    ca = authority()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with ca.cert_pem.tempfile() as cert, ca.private_key_pem.tempfile() as key:
        server.load_cert_chain(cert, key)
    await over_tls("127.0.0.1", server, ssl.create_default_context())


@says(
    TLS.replace("HOST", "127.0.0.1")
    + "certificate has expired (_ssl.c:LINE); the server needs a new certificate"
)
async def expired() -> None:
    yesterday = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority().issue_cert("127.0.0.1", not_after=yesterday).configure_cert(server)
    await over_tls("127.0.0.1", server, client_context())


@says(
    "TLS handshake with 127.0.0.1: NOT-TLS (_ssl.c:LINE); "
    "the server does not use TLS on this port: write ws:// instead of wss://"
)
async def wss_without_tls() -> None:
    await over_tls("127.0.0.1", None, ssl.create_default_context())


@says(
    "the server closed the connection instead of answering the handshake; "
    "check the URL; it may have to begin with wss://"
)
async def ws_with_tls() -> None:
    async with (
        serve(Socket, "127.0.0.1", 0, ssl_context=server_context()) as served,
        connect(f"ws://127.0.0.1:{served.port}/"),
    ):
        pass


@says("limit exceeded by the peer: 1009 a message is larger than max_size (10 bytes)")
async def max_size() -> None:
    async with (
        MockServer(memory=True) as server,
        connect(server.url, stream=server.open_stream, max_size=10) as conn,
    ):
        await server.send("more than ten")
        await conn.receive()


@says(f"payload must be a JSON value, or a function that returns one, not a coroutine{NOT_PASSED}")
async def called_payload() -> None:
    async with (
        MockPhoenixServer(memory=True) as server,
        phoenix.connect(server.url, stream=server.open_stream) as socket,
    ):
        await socket.join("room:1", fetch())


@says(
    "the server refused to join 'room:crash': {'reason': 'join crashed'}; "
    "the server failed: see the server's log"
)
async def crashed_join() -> None:
    async with (
        MockPhoenixServer(memory=True) as server,
        phoenix.connect(server.url, stream=server.open_stream) as socket,
    ):
        await socket.join("room:crash")


@says(
    "the server refused to join 'room:forbidden': {'reason': 'unauthorized'}; "
    "check the topic and the payload of the join"
)
async def refused_topic() -> None:
    async with (
        MockPhoenixServer(memory=True) as server,
        phoenix.connect(server.url, stream=server.open_stream) as socket,
    ):
        await socket.join("room:forbidden")


# The table.

VARYING = [
    (r"\(_ssl\.c:\d+\)", "(_ssl.c:LINE)"),
    (r"self signed", "self-signed"),
    (r"(?<=nowhere.invalid:80: )[^;]*", "RESOLVER"),
    (
        r"\[SSL: (WRONG_VERSION_NUMBER|PACKET_LENGTH_TOO_LONG|RECORD_LAYER_FAILURE)\][^(]*",
        "NOT-TLS ",
    ),
]
"""Texts of Python, OpenSSL and the system, which differ between versions."""


async def test_fault_36_the_first_line_says_what_to_do() -> None:
    for mistake, (code, text) in MISTAKES.items():
        with case_of(mistake):
            with trio.fail_after(300), pytest.raises(Exception) as caught:
                await code()
            error = caught.value
            first = str(error).splitlines()[0]
            for pattern, replacement in VARYING:
                first = re.sub(pattern, replacement, first)
            assert first == text


ENTERED: dict[str, Callable[[], Any]] = {
    "connect": lambda: connect(URL),
    "serve": lambda: serve(handler, "127.0.0.1", 0),
    "phoenix.connect": lambda: phoenix.connect(URL),
    "gossip.connect": lambda: gossip.connect(
        client_id="i", client_secret="s", channels=gossip.ChannelsCallbacks()
    ),
    "Hub": Hub,
    "MockServer": MockServer,
    "MockPhoenixServer": MockPhoenixServer,
    "MockGossipServer": MockGossipServer,
    "FaultProxy": lambda: FaultProxy(URL),
}
CALLED: dict[str, Callable[[], Awaitable[object]]] = {
    "run": lambda: run(URL, Socket()),
    "Hub": lambda: Hub().run(),
    "serve_forever": lambda: serve_forever(handler, "127.0.0.1", 0),
    "supervise": lambda: supervise(functools.partial(trio.sleep, 1)),
    "phoenix.run": lambda: phoenix.run(URL, phoenix.ChannelClient()),
}


async def enter(manager: Any) -> None:
    async with manager:
        pass


@pytest.mark.parametrize("name", ENTERED)
def test_fault_33_a_block_needs_trio(name: str) -> None:
    """Under asyncio the error says how to start trio, without an error of trio's own."""
    with pytest.raises(Exception, match=r"needs trio: .* trio.run.*hypercorn") as caught:
        asyncio.run(enter(ENTERED[name]()))
    assert str(caught.value).startswith((f"{name}(...)", "MockServer(...)"))


@pytest.mark.parametrize("name", CALLED)
def test_fault_33_a_call_needs_trio(name: str) -> None:
    with pytest.raises(Exception, match=rf"{name}\(\.\.\.\) needs trio"):
        asyncio.run(CALLED[name]())  # type: ignore[arg-type]
