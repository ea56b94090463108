"""Arguments of ``serve()`` that cannot be: refused at the call, in words that say what can."""

from __future__ import annotations

from typing import Any

import pytest

from tests.server.helpers import Echo
from trioglock import Connection, InvalidOption, MemoryListener, Socket, serve


class Needy(Socket[None]):
    def __init__(self, needed: int) -> None: ...


def a_function(conn: Connection[None]) -> None: ...


async def an_async_function(*args: object) -> None: ...


async def no_handler() -> None: ...


BAD_TARGETS = {
    "an instance": (Echo(), "write serve\\(Echo, ...\\)"),
    "another class": (dict, "Socket class or an async handler"),
    "no callable": ("echo", "Socket class or an async handler"),
    "a plain handler": (a_function, "async def handler"),
    "a handler without argument": (no_handler, "async def handler"),
    "a class with arguments": (Needy, "takes no arguments"),
}


@pytest.mark.parametrize(("target", "words"), BAD_TARGETS.values(), ids=list(BAD_TARGETS))
def test_a_target_that_cannot_run_is_refused_at_once(target: Any, words: str) -> None:
    """The error says what a target is."""
    with pytest.raises(InvalidOption, match=words):
        serve(target, "127.0.0.1", 0)


BAD_OPTIONS: dict[str, dict[str, Any]] = {
    "say where to listen": {"port": None},
    "given: port, unix_path": {"unix_path": "there"},
    "host is a str": {"host": 5},
    "port is a whole number": {"port": "80"},
    "port is at most": {"port": 65536},
    "backlog is at least": {"backlog": 0},
    "ssl_context is": {"ssl_context": "cert.pem"},
    "origins is a list": {"origins": "https://example.org"},
    "is no origin": {"origins": ["example.org"]},
    "an origin is a str": {"origins": [5]},
    "subprotocols is a list": {"subprotocols": "chat"},
    "select_subprotocol is a function": {"select_subprotocol": "chat"},
    "compression is": {"compression": "gzip"},
    "select_subprotocol is a plain function": {"select_subprotocol": an_async_function},
    "process_request is a function": {"process_request": {"/health": "ok"}},
    "max_connections is at least": {"max_connections": 0},
    "max_handshakes is at least": {"max_handshakes": 0},
    "max_header_size is at least": {"max_header_size": 1},
    "open_timeout is more": {"open_timeout": 0},
    "shutdown_timeout is more": {"shutdown_timeout": -1},
    "close_timeout is more": {"close_timeout": 0},
    "max_size is at least": {"max_size": 0},
    "overflow is": {"overflow": "burst"},
    "transport is a ServerTransport": {"transport": object()},
}


@pytest.mark.parametrize("words", BAD_OPTIONS)
def test_a_bad_option_is_refused_at_once(words: str) -> None:
    """The error names the option and what is allowed."""
    options: dict[str, Any] = {"host": "127.0.0.1", "port": 0, **BAD_OPTIONS[words]}
    with pytest.raises(InvalidOption, match=words):
        serve(Echo, **options)


@pytest.mark.parametrize(
    "options",
    [
        {"host": "127.0.0.1", "unix_path": "/run/echo"},
        {"reuse_port": True, "unix_path": "/run/echo"},
        {"host": "127.0.0.1", "listeners": [MemoryListener()]},
        {"backlog": 5, "listeners": [MemoryListener()]},
    ],
)
def test_an_option_of_another_place_is_refused_at_once(options: Any) -> None:
    """It would be ignored, and the server listen elsewhere than its caller believes."""
    with pytest.raises(InvalidOption, match=r"go with a port|of no use"):
        serve(Echo, **options)


@pytest.mark.parametrize(
    ("listeners", "words"), [(5, "a list"), ([5], "a listener is"), ([], "no listener")]
)
def test_bad_listeners_are_refused_at_once(listeners: Any, words: str) -> None:
    """Only trio's listeners are."""
    with pytest.raises(InvalidOption, match=words):
        serve(Echo, listeners=listeners)
