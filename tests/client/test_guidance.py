"""Guidance: common mistakes raise an error that shows the correct code."""

from __future__ import annotations

import asyncio
import warnings
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from tests.hooks.helpers import linked
from trioglock import (
    Backoff,
    BadHookResult,
    InvalidFrame,
    InvalidOption,
    InvalidURL,
    Reply,
    Socket,
    UsageError,
    connect,
    run,
    serve,
)
from trioglock.testing import MockServer, echo


async def handler(conn: Any) -> None:
    """A handler of a server."""


def test_trio_is_needed() -> None:
    """Under asyncio every function explains how to start trio."""

    async def by_connect() -> None:
        async with connect("ws://h/"):
            pass

    async def by_serve() -> None:
        async with serve(handler, "127.0.0.1", 0):
            pass

    async def by_run() -> None:
        await run("ws://h/", Socket())

    for way in (by_connect, by_serve, by_run):
        with pytest.raises(UsageError, match=r"start the program with trio\.run\(main\)"):
            asyncio.run(way())


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: connect("ws://h/"), r"use: async with connect\(\.\.\.\) as"),
        (lambda: serve(handler, "127.0.0.1", 0), r"use: async with serve\(\.\.\.\) as"),
    ],
    ids=["connect", "serve"],
)
async def test_it_is_a_block(make: Any, text: str) -> None:
    """Neither awaited, nor iterated, nor entered without async; its repr mentions it too."""
    block = make()
    assert "async with" in repr(block)
    with pytest.raises(UsageError, match=text):
        await block
    with pytest.raises(UsageError, match=text):
        async for _ in block:
            pass
    with pytest.raises(UsageError, match=text), block:
        pass


@pytest.mark.parametrize("url", ["http://h/", "127.0.0.1:8000", "h/feed"])
def test_what_an_address_begins_with(url: str) -> None:
    """The error shows the missing scheme."""
    with pytest.raises(InvalidURL, match="write ws:// in front of the host, or wss:// for TLS"):
        connect(url)


def test_where_to_listen() -> None:
    """The error shows the order of the arguments."""
    with pytest.raises(InvalidOption, match=r"serve\(target, host, port\)"):
        serve(handler, 8765)  # type: ignore[arg-type]


async def test_a_port_that_is_taken_is_named() -> None:
    """With the system's text, host and port."""
    async with serve(handler, "127.0.0.1", 0) as server:
        with pytest.raises(OSError, match=rf"cannot listen on 127\.0\.0\.1:{server.port}: Address"):
            async with serve(handler, "127.0.0.1", server.port or 0):
                pass


def test_seconds_that_cannot_be_none() -> None:
    """The error does not offer None."""
    with pytest.raises(InvalidOption, match=r"initial must be more than 0 seconds, not -1"):
        Backoff(initial=-1)
    with pytest.raises(InvalidOption, match=r"initial must be a number of seconds, not None"):
        Backoff(initial=None)  # type: ignore[arg-type]


# Hooks.


def test_a_hook_that_is_misspelt() -> None:
    """It would never be called: the class says so when it is made. Other names are yours."""
    with pytest.warns(
        UserWarning, match=r"Wrong.handle_recieve is not a hook; did you mean handle_receive"
    ):

        class Wrong(Socket[None]):
            def handle_recieve(self, frame: Any, state: None) -> Any: ...

    with warnings.catch_warnings():
        warnings.simplefilter("error")

        class Right(Wrong):
            def handle_receive(self, frame: Any, state: None) -> Any: ...
            def handle_orders(self) -> None: ...
            def send(self) -> None: ...


async def test_what_handle_send_returned(autojump_clock: MockClock) -> None:
    """A dict must be encoded, a Reply unpacked; None with the default hook is an error."""

    class Returning(Socket[None]):
        def handle_send(self, message: Any, state: None) -> Any:
            return message, state

    async with linked(Returning()) as (conn, _):
        with pytest.raises(BadHookResult, match=r"encode it, for example with json\.dumps\(\)"):
            await conn.send({"a": 1})
        with pytest.raises(BadHookResult, match="handle_send must return the frame itself"):
            await conn.send(Reply("x"))
        await conn.send(None)
    async with linked() as (conn, _):
        with pytest.raises(InvalidFrame, match="not NoneType"):
            await conn.send(None)


async def test_what_handle_disconnect_returned(autojump_clock: MockClock) -> None:
    """The error shows the decision and the valid ones."""

    class Deciding(Socket[None]):
        def handle_disconnect(self, reason: Any, state: None) -> Any:
            return True, state

    with pytest.raises(BadHookResult, match=r"None, Reconnect\(\.\.\.\) or Stop\(\), not True"):
        async with linked(Deciding()) as (conn, far):
            await far.aclose()
            await conn.wait_closed()


# Tests of theirs.


@pytest.mark.slow
async def test_a_mock_fails_an_expectation_that_is_never_met(autojump_clock: MockClock) -> None:
    """Under an autojump clock a wait for a missing event fails with its name."""
    async with (
        MockServer(memory=True) as server,
        connect(server.url, stream=server.open_stream, ping_interval=None),
    ):
        peer = await server.accept()
        with pytest.raises(AssertionError, match="no Close frame within a day"):
            await peer.expect_close()
        with pytest.raises(AssertionError, match="no message 'hello' within a day"):
            await peer.expect("hello")
        with pytest.raises(AssertionError, match="no client within a day"):
            await server.accept()
    assert trio.current_time() >= 3 * 86_400


@pytest.mark.slow
async def test_an_echo_server_waits_as_long_as_it_is_needed(autojump_clock: MockClock) -> None:
    """Waiting in a handler is not an expectation of the test."""
    async with (
        MockServer(echo, memory=True) as server,
        connect(server.url, stream=server.open_stream, ping_interval=None) as conn,
    ):
        await trio.sleep(2 * 86_400)
        await conn.send("still there")
        assert await conn.receive() == "still there"
