"""A connection that has ended leaves no reference cycle, however it ended."""

from __future__ import annotations

import gc
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
import trio

from trioglock import Connection, Reply, Socket, connect, serve
from trioglock.routing import EventSocket, Router

Talk = Callable[[Connection[Any]], Awaitable[object]]


class Hooks(Socket[int]):
    """Replies, raises or closes, as the message says."""

    def init_stream(self, info: object) -> int:
        return 0

    def handle_receive(self, frame: Any, state: int) -> tuple[Any, int]:
        if frame == "fail":
            raise ValueError("a hook")
        return Reply(frame), state + 1


class AsyncHooks(Hooks):
    async def handle_receive(self, frame: Any, state: int) -> tuple[Any, int]:  # type: ignore[override]
        await trio.sleep(0)
        return Hooks.handle_receive(self, frame, state)


async def handler(conn: Connection[Any]) -> None:
    async for message in conn:
        if message == "fail":
            raise ValueError("a handler")
        await conn.send(message)


async def echo(conn: Connection[Any]) -> None:
    await conn.send("x")
    assert await conn.receive() == "x"
    assert await conn.ping() > 0


async def abort(conn: Connection[Any]) -> None:
    await conn.send("x")
    conn.abort()
    await conn.wait_closed()


async def fail(conn: Connection[Any]) -> None:
    await conn.send("fail")
    with trio.move_on_after(0.2):  # an EventSocket only counts it
        await conn.wait_closed()


async def violate(conn: Connection[Any]) -> None:
    await conn.send("x" * 2000)
    await conn.wait_closed()


async def cancel(conn: Connection[Any]) -> None:
    with trio.move_on_after(0.01):
        await conn.receive()
    raise RuntimeError("the body")


@contextmanager
def no_cycles() -> Iterator[None]:
    """Check that the block leaves no object of the package to the garbage collector."""
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        yield
        gc.collect()
        kinds = {type(one) for one in gc.garbage if type(one).__module__.startswith("trioglock")}
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert not kinds


async def check(target: Any, talk: Talk) -> None:
    """Connect several times and check what is left."""

    async def run(url: str) -> None:
        with suppress(Exception):
            async with connect(url) as conn:
                await talk(conn)

    async with serve(target, "127.0.0.1", 0, max_size=1000) as server:
        url = f"ws://127.0.0.1:{server.port}"
        await run(url)  # creates what is shared
        with no_cycles():
            for _ in range(3):
                await run(url)
            with trio.fail_after(5):
                while server.connections:
                    await trio.sleep(0.01)
            await trio.testing.wait_all_tasks_blocked(0.01)


@pytest.mark.parametrize("talk", [echo, abort, fail, violate, cancel])
@pytest.mark.parametrize("target", [Hooks, AsyncHooks, handler])
async def test_nothing_is_left_to_the_garbage_collector(target: Any, talk: Talk) -> None:
    """Neither on the server nor on the client."""
    await check(target, talk)


async def test_an_event_socket_is_not_left_either() -> None:
    """Although it wraps its own hooks."""

    async def send(conn: Connection[Any]) -> None:
        await conn.send('{"event": "x"}')

    await check(lambda: EventSocket(Router()), send)
