"""Options are checked at the call that gives them; errors name the option and allowed values."""

from __future__ import annotations

import inspect
import math
import re
import ssl
from collections.abc import Callable
from typing import Any, get_type_hints

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.cases import case_of
from trioglock import (
    ConnectOptions,
    Headers,
    InvalidOption,
    InvalidURL,
    MemoryTransport,
    ServeOptions,
    connect,
    serve,
)
from trioglock.asgi import ASGIOptions, WebSocketApp
from trioglock.client.connect import ClientOptions
from trioglock.options import (
    USER_AGENT,
    DialOptions,
    FlowKeywords,
    FlowOptions,
    ServerFlowOptions,
    check_headers,
    check_seconds,
    check_subprotocols,
    check_whole,
)
from trioglock.server.admission import HandshakeOptions
from trioglock.server.bind import BindOptions
from trioglock.server.serve import ServerOptions
from trioglock.transports import UpgradeOptions

URL = "wss://server.test/"
SECONDS = ["open_timeout", "close_timeout", "ping_interval", "ping_timeout", "write_timeout"]
OVERFLOWS = "'wait', 'drop_oldest', 'drop_newest' or 'close'"

BAD = [
    *((name, value, f"{name} must be a number of seconds or None, not") for name in SECONDS
      for value in ("10", True, [1], 1j)),
    *((name, value, f"{name} must be more than 0 seconds, or None, not") for name in SECONDS
      for value in (0, -1, 0.0, math.nan, -math.inf)),
    ("open_timeout", 10**400, "open_timeout must be more than 0 seconds, or None"),
    *((name, value, f"{name} must be a whole number, not")
      for name in ("max_size", "max_queue", "write_limit", "max_redirects")
      for value in ("10", 1.0, True)),
    *((name, None, f"{name} must be a whole number, not None")
      for name in ("write_limit", "max_redirects")),
    *((name, 0, f"{name} must be at least 1, not 0")
      for name in ("max_size", "max_queue", "write_limit")),
    ("max_redirects", -1, "max_redirects must be at least 0, not -1"),
    *(("overflow", value, f"overflow must be {OVERFLOWS}, not {value!r}")
      for value in ("drop", None)),
    ("compression", "gzip", "compression must be 'deflate', a trioglock.Deflate or None, not"),
    ("compression", True, "compression must be 'deflate', a trioglock.Deflate or None, not True"),
    ("proxy", False, "proxy must be True, None or a URL, not"),
    ("proxy", 8080, "proxy must be True, None or a URL, not"),
    ("proxy", b"http://u:hunter2@p", "proxy must be True, None or a URL, not"),
    ("ssl_context", True, "ssl_context must be an ssl.SSLContext or None, not True"),
    ("server_hostname", 5, "server_hostname must be a str, not 5"),
    ("stream", "tcp", "stream must be a trio stream or a function, not 'tcp'"),
    ("origin", 5, "origin.* str, not int"),
    ("origin", "http://x\r\nEvil: 1", "origin.* line break"),
    ("user_agent_header", b"x", "user_agent_header.* str, not bytes"),
    ("user_agent_header", "x\nEvil: 1", "user_agent_header.* line break"),
    ("additional_headers", 5, "additional_headers: "),
    ("additional_headers", "name", "additional_headers: a header must be a pair of name and value"),
    ("additional_headers", {"a b": "c"}, "additional_headers: 'a b' is not a valid header name"),
    ("additional_headers", {"A": "b\r\n"}, "additional_headers: .* line break"),
    *(("additional_headers", {name: "x"}, f"additional_headers: {name} is set by the opening")
      for name in ("Connection", "UPGRADE", "sec-websocket-key", "Sec-WebSocket-Protocol")),
    ("subprotocols", "chat", "subprotocols must be a list of names, not the str 'chat'"),
    ("subprotocols", 5, "subprotocols must be a list of names, not 5"),
    ("subprotocols", ["a", "a"], "subprotocols must not contain duplicates"),
    *(("subprotocols", ["ok", name], "is not a valid subprotocol name")
      for name in ("", "a b", "a,b", "é", 5, None)),
    ("transport", "native", "transport must be a trioglock Transport, not 'native'"),
]  # fmt: skip


def test_a_bad_option_is_refused_at_the_call() -> None:
    """InvalidOption, a ValueError, names the option and what is allowed."""
    for name, value, text in BAD:
        options: dict[str, Any] = {name: value}
        with case_of(name, value):
            with pytest.raises(InvalidOption, match=text) as caught:
                connect(URL, **options)
            assert isinstance(caught.value, ValueError)
            assert "hunter2" not in str(caught.value)


def test_dropping_needs_a_limit() -> None:
    """A receive queue without a limit never overflows."""
    for overflow in ("drop_oldest", "drop_newest", "close"):
        with pytest.raises(InvalidOption, match=f"overflow='{overflow}' requires a max_queue"):
            connect(URL, max_queue=None, overflow=overflow)
    connect(URL, max_queue=None, overflow="wait")


def test_tls_options_need_wss() -> None:
    """They would be ignored silently otherwise."""
    with pytest.raises(InvalidOption, match="ssl_context and server_hostname need a wss:// URL"):
        connect("ws://server.test/", server_hostname="other.test")
    with pytest.raises(InvalidOption, match="need a wss:// URL"):
        connect("ws://server.test/", ssl_context=ssl.create_default_context())


async def test_every_good_option_passes() -> None:
    """The limits of what is allowed, and None."""
    near, far = trio.testing.memory_stream_pair()

    async def open_stream() -> trio.abc.Stream:
        return near

    goods: list[dict[str, Any]] = [
        *({name: seconds} for name in SECONDS for seconds in (None, 1, 0.001, math.inf, 10**9)),
        {"max_size": 1}, {"max_size": None}, {"max_queue": 1}, {"write_limit": 1},
        {"max_redirects": 0}, {"compression": None}, {"proxy": None}, {"proxy": True},
        {"proxy": "http://u:p@proxy.test:8080"}, {"stream": near}, {"stream": open_stream},
        {"origin": "https://x"}, {"origin": None}, {"user_agent_header": None},
        {"user_agent_header": "me"}, {"server_hostname": "x"},
        {"ssl_context": ssl.create_default_context()}, {"subprotocols": []},
        {"subprotocols": None}, {"additional_headers": None},
        *({"overflow": each} for each in ("wait", "drop_oldest", "drop_newest", "close")),
    ]  # fmt: skip
    for options in goods:
        connect(URL, **options)
    await near.aclose()
    await far.aclose()


def test_the_defaults() -> None:
    """Bounded in size and time, compressed, with a heartbeat."""
    dial, flow = DialOptions(url=URL), FlowOptions()
    assert (dial.max_size, dial.open_timeout, dial.compression) == (2**20, 10, "deflate")
    assert dial.user_agent_header == USER_AGENT
    assert USER_AGENT.startswith("trioglock/")
    assert (flow.ping_interval, flow.ping_timeout, flow.close_timeout) == (20, 20, 10)
    assert (flow.max_queue, flow.write_limit, flow.overflow) == (16, 2**16, "wait")


def test_headers_and_subprotocols_come_out_as_values() -> None:
    """Iterators are read once."""
    assert check_headers("x", None) == Headers()
    assert check_headers("x", iter([("A", "1"), ("A", "2")])).pairs() == (("A", "1"), ("A", "2"))
    assert check_subprotocols(None) == ()
    assert check_subprotocols(["v1.chat", "v2"]) == ("v1.chat", "v2")
    assert check_subprotocols(name for name in ("a", "b")) == ("a", "b")  # type: ignore[arg-type]


def test_numbers_are_checked_by_name() -> None:
    """Other packages check their options with the same functions."""
    check_seconds("delay", 0.5)
    check_seconds("delay", None)
    with pytest.raises(InvalidOption, match="delay must be more than 0 seconds"):
        check_seconds("delay", -0.5)
    check_whole("attempts", 3, least=3)
    check_whole("attempts", None, least=3)
    with pytest.raises(InvalidOption, match="attempts must be at least 3, not 2"):
        check_whole("attempts", 2, least=3)
    with pytest.raises(InvalidOption, match="attempts must be a whole number, not None"):
        check_whole("attempts", None, least=3, none=False)


# Keyword arguments.

CALLS: dict[str, tuple[Callable[..., Any], list[type], list[type]]] = {
    "connect": (connect, [ConnectOptions, FlowKeywords], [ClientOptions, DialOptions, FlowOptions]),
    "serve": (
        serve,
        [ServeOptions, FlowKeywords],
        [BindOptions, HandshakeOptions, UpgradeOptions, ServerOptions, ServerFlowOptions],
    ),
    "WebSocketApp": (WebSocketApp, [ASGIOptions], [UpgradeOptions, ServerFlowOptions]),
}

DIFFERENT = {"subprotocols", "codec"}
"""Options that a dataclass normalizes, so that its type is narrower, or that are generic."""


@pytest.mark.parametrize(("_", "keywords", "kinds"), CALLS.values(), ids=list(CALLS))
def test_keyword_arguments_and_dataclasses_agree(
    _: Any, keywords: list[type], kinds: list[type]
) -> None:
    """Each key is a field of a dataclass, with the same type."""
    types = get_type_hints(keywords[0])
    fields: dict[str, Any] = {"trace": bool}
    for kind in reversed(kinds):
        fields |= get_type_hints(kind)
    assert types.keys() <= fields.keys()
    for name in types.keys() - DIFFERENT:
        assert types[name] == fields[name], name
    if keywords[0] is not ASGIOptions:
        assert fields.keys() - {"url"} == types.keys()


@pytest.mark.parametrize(("_", "keywords", "kinds"), CALLS.values(), ids=list(CALLS))
def test_every_keyword_argument_is_documented(
    _: Any, keywords: list[type], kinds: list[type]
) -> None:
    """The docstrings of the TypedDicts have an entry for each key, in the same order."""
    documented = [
        name
        for kind in keywords
        for name in re.findall(r"^ {4}(\w+): ", inspect.getdoc(kind) or "", re.MULTILINE)
    ]
    assert sorted(documented) == sorted(keywords[0].__annotations__)


@pytest.mark.parametrize("name", ["connect", "serve"])
def test_signature_and_docstring_show_every_option(name: str) -> None:
    """For help(), editors and the documentation."""
    call, keywords, _ = CALLS[name]
    parameters = inspect.signature(call).parameters
    assert keywords[0].__annotations__.keys() <= parameters.keys()
    assert "options" not in parameters
    assert parameters["ping_interval"].default == 20
    assert parameters["open_timeout"].annotation == "float | None"
    assert parameters["ping_interval"].annotation == float | None
    for option in keywords[0].__annotations__:
        assert f"\n    {option}: " in (call.__doc__ or "")


@pytest.mark.parametrize("name", CALLS)
def test_a_wrong_name_gets_a_suggestion(name: str) -> None:
    """TypeError, at the call."""

    async def handler(conn: Any) -> None: ...

    first: Any = URL if name == "connect" else handler
    with pytest.raises(TypeError, match=rf"{name}\(\) .* 'write_limits'; .* 'write_limit'\?"):
        CALLS[name][0](first, write_limits=5)
    with pytest.raises(TypeError, match=r"unexpected option 'zzzz'; help\("):
        CALLS[name][0](first, zzzz=5)


async def test_options_reach_the_transport(autojump_clock: MockClock) -> None:
    """Given or by default; only a URL is needed."""
    transport = MemoryTransport()
    async with connect(URL, transport=transport) as conn:
        await transport.accept()
        assert conn.url == URL
    async with connect(
        URL,
        transport=transport,
        additional_headers={"authorization": "Bearer x"},
        subprotocols=["chat"],
        compression=None,
        open_timeout=1,
        close_timeout=1,
        ping_interval=None,
    ):
        await transport.accept()
    plain, custom = transport.dialed
    assert (plain.subprotocols, plain.compression, plain.open_timeout) == ((), "deflate", 10)
    assert (custom.subprotocols, custom.compression, custom.open_timeout) == (("chat",), None, 1)
    assert custom.additional_headers["Authorization"] == "Bearer x"


@pytest.mark.parametrize(
    "url",
    [
        "ws://u:hunter2@[::1/", "ws://u:hunter2@ho\u2100st/", "ws://u:hunter2@h:99999/",
        "ws://u:hunter2@h:port/", "ws://u:hunter2@h/#part", "http://u:hunter2@h/",
        "ws://u:hunter2@/", "//u:hunter2@h/", "ws://u:hunter2@h/a b", "ws://u:hunter2@x@h:0/",
        "wss:u:hunter2@h", "u:hunter2@h/", "ws://u:hunter2@" + "x" * 70 + ".test/",
        b"ws://u:hunter2@h/",
    ],
)  # fmt: skip
def test_a_bad_url_is_refused_without_its_password(url: Any) -> None:
    """The error describes the problem without the password."""
    with pytest.raises(InvalidURL) as caught:
        connect(url)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
