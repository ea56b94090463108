"""A connection that has ended leaves no reference cycle, however it ended."""

from __future__ import annotations

import gc
import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
import trio
import trio.testing

from tests.transports.servers import client_context, server_context
from trioglock import (
    Backoff,
    Close,
    Connection,
    Reply,
    Response,
    Socket,
    TrioWebsocketTransport,
    connect,
    serve,
)
from trioglock.codecs import JSON
from trioglock.routing import EventSocket, Router

from .feeds import Feed

Talk = Callable[[Connection[Any]], Awaitable[object]]


def keeps_callers() -> bool:
    """Whether the frame of an exception refers to the callers of a coroutine that has ended.

    CPython 3.12 to 3.14.2 do that (https://github.com/python/cpython/issues/100964). An object
    that keeps an exception then keeps the stack of callers too, such as the session's methods.
    """

    def raises() -> Iterator[Exception]:
        try:
            raise ValueError
        except ValueError as error:
            yield error

    [traceback] = [error.__traceback__ for error in raises()]
    assert traceback is not None
    return traceback.tb_frame.f_back is not None


interpreter_keeps_callers = pytest.mark.xfail(
    keeps_callers(), reason="this interpreter creates reference cycles", strict=False
)


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
def no_cycles(*only: str) -> Iterator[None]:
    """Check that the block leaves no object of the package, or of these classes, to the collector.

    Args:
        only: the names of classes.
    """
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        yield
        gc.collect()
        kinds = {type(one) for one in gc.garbage if type(one).__module__.startswith("trioglock")}
        kinds = {kind for kind in kinds if not only or kind.__name__ in only}
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert not kinds


async def check(
    target: Any,
    talk: Talk,
    *,
    tls: bool = False,
    **options: Any,
) -> None:
    """Connect several times and check what is left."""

    async def run(url: str) -> None:
        with suppress(Exception):
            async with connect(url, **options) as conn:
                await talk(conn)

    context = None
    if tls:
        context, options["ssl_context"] = server_context(), client_context()
    transport = options.get("transport")
    async with serve(
        target, "127.0.0.1", 0, max_size=1000, ssl_context=context, transport=transport
    ) as server:
        url = f"{'wss' if tls else 'ws'}://127.0.0.1:{server.port}"
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
async def test_fault_39_nothing_is_left_to_the_garbage_collector(target: Any, talk: Talk) -> None:
    """Neither on the server nor on the client."""
    await check(target, talk)


@pytest.mark.parametrize("talk", [echo, abort, fail, violate, cancel])
@pytest.mark.parametrize(
    "kind", ["TLS", pytest.param("TrioWebsocketTransport", marks=interpreter_keeps_callers)]
)
async def test_fault_39_nothing_is_left_with(kind: str, talk: Talk) -> None:
    """Also with TLS, and with the other transport."""
    if kind == "TLS":
        await check(Hooks, talk, tls=True)
    else:
        await check(Hooks, talk, transport=TrioWebsocketTransport())


@pytest.mark.parametrize("ending", ["leave", "abort", "refuse", "close"])
async def test_nothing_is_left_with_subscriptions(ending: str) -> None:
    """However the subscription ends."""

    async def feed(conn: Connection[Any]) -> None:
        async for message in conn:
            if ending == "refuse":
                await conn.send(json.dumps({"refused": json.loads(message)["subscribe"]}))
            elif "subscribe" in message:
                await conn.send('{"subscribed": ["a"]}')
            if ending == "close":
                await conn.aclose(4000)

    async def subscribe(conn: Connection[Any]) -> None:
        async with conn.subscribe("a") as updates:
            if ending == "abort":
                conn.abort()
            if ending != "leave":
                await anext(updates)

    await check(feed, subscribe, codec=JSON(), subscriptions=Feed())


@interpreter_keeps_callers
@pytest.mark.parametrize("hooks", [Hooks, AsyncHooks])
async def test_fault_39_a_client_whose_hook_fails(hooks: type[Hooks]) -> None:
    """The exception that leaves the block keeps frames, but not the session."""

    async def provoke(conn: Connection[Any]) -> None:
        await conn.send("fail")
        await conn.wait_closed()

    async def run(url: str) -> None:
        # The traceback would keep a variable for the connection.
        with suppress(ValueError):
            async with connect(url, hooks()):
                await trio.sleep(5)

    async with serve(provoke, "127.0.0.1", 0) as server:
        url = f"ws://127.0.0.1:{server.port}"
        await run(url)
        with no_cycles("Session"):
            await run(url)
            await trio.testing.wait_all_tasks_blocked(0.01)


class Refusing(Socket[None]):
    """Makes the server end at once with 1001, so that its client reconnects."""

    def handle_connect(self, info: object, state: None) -> tuple[Any, None]:
        return Close(1001), state


@interpreter_keeps_callers
@pytest.mark.parametrize("end", ["refused", "unreachable", "raises", "gives up"])
async def test_fault_39_attempts_that_fail(end: str) -> None:
    """Neither the first attempt nor a later one leaves anything."""
    calls = 0
    unreachable = "ws://127.0.0.1:1/"

    async def run(url: str) -> None:
        def target() -> str:
            nonlocal calls
            calls += 1
            if calls % 2 == 0 and end == "raises":
                raise KeyError("token")
            return unreachable if end == "unreachable" or (calls % 2 == 0) else url

        once = Backoff(initial=0.001, max_attempts=2)
        with suppress(Exception):
            async with connect(target, reconnect=end != "refused" and once) as conn:
                async for _ in conn:
                    pass

    def refuse(_: object) -> Response | None:
        return Response(503) if end == "refused" else None

    async with serve(Refusing, "127.0.0.1", 0, process_request=refuse) as server:
        url = f"ws://127.0.0.1:{server.port}"
        await run(url)
        with no_cycles():
            for _ in range(3):
                calls = 0
                await run(url)
            with trio.fail_after(5):
                while server.connections:
                    await trio.sleep(0.01)
            await trio.testing.wait_all_tasks_blocked(0.01)


async def test_fault_39_an_event_socket_is_not_left_either() -> None:
    """Although it wraps its own hooks."""

    async def send(conn: Connection[Any]) -> None:
        await conn.send('{"event": "x"}')

    await check(lambda: EventSocket(Router()), send)
