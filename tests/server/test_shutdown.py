"""40: shutdown closes with 1001 and lets handlers finish, within one deadline."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing

from tests.server.helpers import Echo, MakeTransport, on_both, plain_request, request, serving
from trioglock import (
    Connection,
    ConnectionInfo,
    InvalidOption,
    MemoryListener,
    Reply,
    Response,
    Server,
    Socket,
    connect,
    serve,
    serve_forever,
)


@on_both
async def test_scenario_40_clients_are_told_1001_and_handlers_finish(
    transport: MakeTransport, autojump_clock: object
) -> None:
    """The loop of a handler ends, and the handler may finish."""
    finished = []

    async def handler(conn: Connection[None]) -> None:
        async for _ in conn:
            pass
        await trio.sleep(3)
        finished.append(conn)

    async with serving(handler, transport=transport()) as site, site.dial() as conn:
        await conn.ping()
        began = trio.current_time()
        site.server.close()
        await conn.wait_closed()
        assert (conn.close_code, conn.close_reason) == (1001, "")
        await site.server.wait_closed()
        assert trio.current_time() - began == pytest.approx(3, abs=0.1)
    assert len(finished) == 1


async def test_leaving_the_block_shuts_down_in_good_order(autojump_clock: object) -> None:
    """Also by an exception; queued messages arrive before the Close frame."""
    for error in (None, KeyError("mine")):
        listener = MemoryListener()

        async def stay(conn: Connection[None]) -> None:
            await conn.send("first")
            await conn.wait_closed()

        async with trio.open_nursery() as nursery:
            with pytest.raises(KeyError) if error else nullcontext() as caught:
                async with serve(stay, listeners=[listener]) as server:
                    nursery.start_soon(_expect_1001, listener)
                    await trio.testing.wait_all_tasks_blocked()
                    assert len(server.connections) == 1
                    if error is not None:
                        raise error
            assert caught is None or caught.value is error


async def _expect_1001(listener: MemoryListener) -> None:
    async with connect("ws://memory.test/", stream=listener.open_stream) as conn:
        assert await conn.receive() == "first"
        await conn.wait_closed()
        assert conn.close_code == 1001


async def test_code_and_reason_may_be_chosen_and_the_first_close_wins() -> None:
    """1012 means that the server restarts."""
    async with serving(Echo) as site, site.dial() as conn:
        with pytest.raises(InvalidOption, match="close code 1006"):
            site.server.close(1006)
        site.server.close(1012, "back soon")
        site.server.close(1000)
        await conn.wait_closed()
        assert (conn.close_code, conn.close_reason) == (1012, "back soon")


async def test_scenario_40_one_deadline_ends_what_does_not_end(autojump_clock: object) -> None:
    """A handler that stays, a client that does not confirm, a silent handshake, at once."""

    async def stays(conn: Connection[None]) -> None:
        await trio.sleep_forever()

    async with serving(stays, shutdown_timeout=4, close_timeout=60, open_timeout=60) as site:
        clients = [await site.upgraded() for _ in range(3)]
        silent = await site.raw()
        await trio.testing.wait_all_tasks_blocked()
        began = trio.current_time()
        site.server.close()
        for client in clients:
            assert await client.close_code() == 1001
        await site.server.wait_closed()
        assert trio.current_time() - began == pytest.approx(4)
        assert await silent.everything() == b""
        for client in clients:
            await client.stream.aclose()


async def test_the_one_deadline_ends_terminate_hooks_as_well(autojump_clock: object) -> None:
    """Running hooks, and those of cancelled handlers: they run, but cannot wait."""
    steps: list[str] = []

    class Slow(Echo):
        async def terminate(self, reason: object, state: None) -> None:
            steps.append("begun")
            await trio.sleep(20)
            steps.append("ended")

    class Stays(Slow):
        async def handle_connect(self, info: ConnectionInfo, state: None) -> tuple[object, None]:
            await trio.sleep_forever()
            raise AssertionError

    for kind, timeout in ((Slow, 4), (Stays, 4), (Slow, 30)):
        steps.clear()
        async with serving(kind, shutdown_timeout=timeout, close_timeout=25) as site:
            early, late = await site.upgraded(), await site.upgraded()
            await trio.testing.wait_all_tasks_blocked()
            if kind is Slow:
                await early.stream.aclose()
                await trio.testing.wait_all_tasks_blocked()
                assert steps == ["begun"]
            await late.stream.aclose()
            began = trio.current_time()
            site.server.close()
            await site.server.wait_closed()
            assert trio.current_time() - began == pytest.approx(min(timeout, 20))
        await early.stream.aclose()
        assert steps.count("begun") == 2
        assert steps.count("ended") == (2 if timeout == 30 else 0)


async def test_clients_that_have_not_asked_for_anything_hold_nothing_up(
    autojump_clock: object,
) -> None:
    """Browsers connect in advance: silent clients get at most a second."""
    async with serving(Echo, open_timeout=60) as site:
        silent, halfway = await site.raw(), await site.raw()
        await halfway.send(request()[:30])
        await trio.testing.wait_all_tasks_blocked()
        began = trio.current_time()
        site.server.close()
        await site.server.wait_closed()
        assert trio.current_time() - began <= 1
        for client in (silent, halfway):
            assert await client.everything() == b""


async def test_nobody_is_let_in_any_more() -> None:
    """Clients in their opening handshake get 503; later ones cannot connect."""
    release = trio.Event()

    async def stay(conn: Connection[None]) -> None:
        await release.wait()

    async with serving(stay) as site, site.dial():
        early = await site.raw()
        await early.send(request()[:30])
        await trio.testing.wait_all_tasks_blocked()
        site.server.close()
        await early.send(request()[30:])
        head = await early.head()
        assert head.startswith(b"HTTP/1.1 503 ")
        assert b"Retry-After: 5" in head
        await early.stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(ConnectionRefusedError):
            await site.listener.open_stream()
        release.set()


async def test_a_connection_that_opens_while_the_server_closes_is_told_so(
    autojump_clock: object,
) -> None:
    """It gets its Close frame once ``handle_connect`` has returned."""

    class Slow(Socket[None]):
        async def handle_connect(self, info: ConnectionInfo, state: None) -> tuple[object, None]:
            await trio.sleep(2)
            return Reply("welcome"), state

    async with serving(Slow) as site, site.dial() as conn:
        await trio.testing.wait_all_tasks_blocked()
        site.server.close()
        assert await conn.receive() == "welcome"
        await conn.wait_closed()
        assert conn.close_code == 1001


async def test_abort_drops_everything_on_the_spot(autojump_clock: object) -> None:
    """Without a closing handshake."""

    async def stays(conn: Connection[None]) -> None:
        await trio.sleep_forever()

    async with serving(stays) as site:
        client = await site.upgraded()
        began = trio.current_time()
        site.server.abort()
        await site.server.wait_closed()
        assert trio.current_time() == began
        await client.everything()


async def test_cancelling_the_server_drops_everything_on_the_spot(autojump_clock: object) -> None:
    """Without waiting; no task remains, and the listener is closed."""
    ended: list[str] = []

    class Noting(Echo):
        def terminate(self, reason: object, state: None) -> None:
            ended.append(type(reason).__name__)

    listener = MemoryListener()
    async with trio.open_nursery() as nursery:
        server: Server = await nursery.start(partial(serve_forever, Noting, listeners=[listener]))
        async with connect("ws://memory.test/", stream=listener.open_stream) as conn:
            await conn.ping()
            assert len(server.connections) == 1
            began = trio.current_time()
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                await server.wait_closed()
            assert trio.current_time() == began
    assert ended == ["Aborted"]
    with pytest.raises(ConnectionRefusedError):
        await listener.open_stream()


async def test_an_interrupt_in_the_block_waits_for_nobody(autojump_clock: object) -> None:
    """Ctrl-C drops everything, even if a handler would wait."""

    async def slow(conn: Connection[None]) -> None:
        await trio.sleep(20)

    began = trio.current_time()
    with pytest.raises(KeyboardInterrupt):
        async with serving(slow) as site:
            client = await site.upgraded()
            raise KeyboardInterrupt
    assert trio.current_time() == began
    await client.stream.aclose()


async def test_a_server_may_be_closed_from_inside() -> None:
    """By a hook or handler, such as one for an administrator."""
    servers: list[Server] = []

    async def handler(conn: Connection[None]) -> None:
        assert await conn.receive() == "stop"
        servers[0].close()

    async with serving(handler) as site, site.dial() as conn:
        servers.append(site.server)
        await conn.send("stop")
        await site.server.wait_closed()
        await conn.wait_closed()
        assert conn.close_code == 1001


async def test_an_answer_under_way_arrives(autojump_clock: object) -> None:
    """A process_request that began before the shutdown may finish."""

    async def slow(asked: object) -> Response:
        await trio.sleep(2)
        return Response(200, "done")

    async with serving(Echo, process_request=slow) as site:
        answers: list[Any] = []

        async def ask() -> None:
            answers.append(await site.ask(plain_request()))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked()
            site.server.close()
        assert answers[0].body == b"done"


@on_both
async def test_a_server_may_be_cancelled_at_every_step(transport: MakeTransport) -> None:
    """At any step: listening, handshake, echo, closing. Nothing remains."""
    finished = 0
    for steps in range(0, 120, 3):
        listener = MemoryListener()
        servers: list[Server] = []

        async def play(listener: MemoryListener, servers: list[Server]) -> None:
            nonlocal finished
            async with serve(Echo, listeners=[listener], transport=transport()) as server:
                servers.append(server)
                async with connect("ws://memory.test/", stream=listener.open_stream) as conn:
                    await conn.send("hello")
                    assert await conn.receive() == "hello"
            finished += 1

        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(play, listener, servers)
                for _ in range(steps):
                    await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()
        if servers:
            assert servers[0].connections == frozenset()
            with pytest.raises(ConnectionRefusedError):
                await listener.open_stream()
    assert 0 < finished < 40
