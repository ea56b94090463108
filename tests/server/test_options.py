"""Invalid arguments of ``serve()``: the call raises an error with the allowed values."""

from __future__ import annotations

import re
import socket
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.cases import case_of
from tests.server.helpers import Echo
from trioglock import Connection, InvalidOption, MemoryListener, Socket, serve
from trioglock.transports import open_unix


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
def test_a_target_that_cannot_run_is_refused_immediately(target: Any, words: str) -> None:
    """The error describes a target."""
    with pytest.raises(InvalidOption, match=words):
        serve(target, "127.0.0.1", 0)


BAD_OPTIONS: dict[str, dict[str, Any]] = {
    "exactly one of port, unix_path and listeners": {"port": None},
    "not port and unix_path": {"unix_path": "there"},
    "host must be a str": {"host": 5},
    "port must be a whole number": {"port": "80"},
    "port must be at most": {"port": 65536},
    "backlog must be at least": {"backlog": 0},
    "ssl_context must be": {"ssl_context": "cert.pem"},
    "origins must be a list": {"origins": "https://example.org"},
    "is not an origin": {"origins": ["example.org"]},
    "an origin must be a str": {"origins": [5]},
    "subprotocols must be a list": {"subprotocols": "chat"},
    "select_subprotocol must be a function": {"select_subprotocol": "chat"},
    "compression must be": {"compression": "gzip"},
    "select_subprotocol must be a plain function": {"select_subprotocol": an_async_function},
    "process_request must be a function": {"process_request": {"/health": "ok"}},
    "max_connections must be at least": {"max_connections": 0},
    "max_handshakes must be at least": {"max_handshakes": 0},
    "max_connections_per_address must be": {"max_connections_per_address": "many"},
    "max_handshakes_per_address must be": {"max_handshakes_per_address": 0},
    "max_header_size must be at least": {"max_header_size": 1},
    "open_timeout must be more": {"open_timeout": 0},
    "shutdown_timeout must be more": {"shutdown_timeout": -1},
    "close_timeout must be more": {"close_timeout": 0},
    "max_size must be at least": {"max_size": 0},
    "overflow must be": {"overflow": "burst"},
    "transport must be a ServerTransport": {"transport": object()},
}


NEVER_SENT = [
    "https://example.org/",
    "https://example.org/app",
    "https://user@example.org",
    "https://*.example.org",
    "*",
    "wss://example.org",
    "https://",
    "https://exam ple.org",
    "https://[::1",
    "https://example.org:99999",
    "https://127.1",
    "https://a..b",
    "NULL",
    "",
    re.compile(rb"https://.*"),
]


@pytest.mark.parametrize("origin", NEVER_SENT)
def test_fault_11_an_origin_that_no_browser_sends(origin: Any) -> None:
    """It is refused, because it would be silently dead."""
    with pytest.raises(InvalidOption, match=r"origin that browsers send|an origin must be"):
        serve(Echo, "127.0.0.1", 0, origins=[origin])


def test_a_bad_option_is_refused_immediately() -> None:
    """The error names the option and what is allowed."""
    for words, bad in BAD_OPTIONS.items():
        with case_of(words):
            options: dict[str, Any] = {"host": "127.0.0.1", "port": 0, **bad}
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
def test_an_option_of_another_place_is_refused_immediately(options: Any) -> None:
    """It would be ignored, and the server would listen at another address."""
    with pytest.raises(InvalidOption, match=r"require a port|does not apply"):
        serve(Echo, **options)


@pytest.mark.parametrize(
    ("listeners", "words"),
    [(5, "must be a list"), ([5], "a listener must be"), ([], "must not be empty")],
)
def test_bad_listeners_are_refused_immediately(listeners: Any, words: str) -> None:
    """They must be trio listeners."""
    with pytest.raises(InvalidOption, match=words):
        serve(Echo, listeners=listeners)


async def test_a_listener_cannot_be_served_twice(tmp_path: Path) -> None:
    """The first server has closed it; the second would wait for clients that cannot connect."""
    listeners: list[Any] = [MemoryListener(), *await trio.open_tcp_listeners(0, host="127.0.0.1")]
    if hasattr(socket, "AF_UNIX"):
        listeners.append(await open_unix(tmp_path / "echo.sock"))
    async with serve(Echo, listeners=listeners):
        pass
    for listener in listeners:
        with pytest.raises(InvalidOption, match=f"{type(listener).__name__} is closed: .* new one"):
            serve(Echo, listeners=[listener])
