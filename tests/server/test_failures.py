"""Exceptions of the application: only its connection ends, with 1011 and one log entry."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import pytest
import trio
import trio.testing

from tests.server.helpers import Echo, MakeTransport, echo, logged, on_both, request, serving
from trioglock import (
    Connection,
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionInfo,
    HandshakeRefused,
    MemoryListener,
    NativeTransport,
    Reply,
    Request,
    Socket,
)
from trioglock.frames import Event, Frame
from trioglock.transports import Link


class Oops(Exception):
    """The exception of the tests."""


class BadStart(Echo):
    def init_stream(self, info: ConnectionInfo) -> None:
        raise Oops


class BadGreeting(Echo):
    async def handle_connect(self, info: ConnectionInfo, state: None) -> tuple[object, None]:
        raise Oops


class BadReceive(Echo):
    def handle_receive(self, frame: Any, state: None) -> tuple[object, None]:
        raise Oops


class BadTask(Echo):
    def handle_connect(self, info: ConnectionInfo, state: None) -> tuple[object, None]:
        info.connection.start_soon(self.fail)
        return None, state

    async def fail(self) -> None:
        raise Oops


class BadEnd(Echo):
    def terminate(self, reason: object, state: None) -> None:
        raise Oops


async def bad_handler(conn: Connection[None]) -> None:
    await conn.receive()
    raise Oops


def bad_factory() -> Socket[None]:
    raise Oops


async def failing_together(conn: Connection[None]) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bad_handler, conn)
        nursery.start_soon(trio.sleep_forever)


FAILING: list[Any] = [BadStart, BadGreeting, BadReceive, BadTask, bad_handler, bad_factory]


@on_both
@pytest.mark.parametrize("target", [*FAILING, failing_together])
async def test_scenario_18_a_failure_ends_its_connection_alone(
    target: Any, transport: MakeTransport, caplog: pytest.LogCaptureFixture
) -> None:
    """18: the client gets 1011, the log has one traceback, other clients are served."""
    async with serving(target, transport=transport()) as site:
        for _ in range(2):
            with pytest.raises(ConnectionClosedError) as caught:
                async with site.dial() as conn:
                    await conn.send("go on")
                    await conn.receive()
            assert caught.value.code == 1011
        assert site.server.connections == frozenset()
    entries = [record for record in caplog.records if record.name == "trioglock.server"]
    assert [record.levelno for record in entries] == [logging.ERROR] * 2
    assert all(record.exc_info and record.exc_info[1] for record in entries)
    assert "raise Oops" in caplog.text


async def test_a_failure_of_one_connection_does_not_touch_another(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An open connection beside a failing one keeps working."""

    class Fragile(Echo):
        def handle_receive(self, frame: Any, state: None) -> tuple[object, None]:
            if frame == "break":
                raise Oops
            return Reply(frame), state

    async with serving(Fragile) as site, site.dial() as good:
        with pytest.raises(ConnectionClosedError):
            async with site.dial() as bad:
                await bad.send("break")
                await bad.receive()
        await good.send("unharmed")
        assert await good.receive() == "unharmed"
    assert len(logged(caplog)) == 1


async def test_a_terminate_that_raises_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """The connection was already closed: the client is not affected."""
    async with serving(BadEnd) as site:
        async with site.dial() as conn:
            await conn.ping()
        assert conn.close_code == 1000
        await trio.testing.wait_all_tasks_blocked()
    assert len(logged(caplog, "ERROR")) == 1


async def test_a_factory_must_give_a_socket(caplog: pytest.LogCaptureFixture) -> None:
    """Any other return value ends the connection, and the log shows it."""
    target: Any = lambda: {"no": "socket"}  # noqa: E731 - that is what users write
    async with serving(target) as site:
        with pytest.raises(ConnectionClosedError) as caught:
            async with site.dial() as conn:
                await conn.receive()
        assert caught.value.code == 1011
    assert "must return a Socket, not {'no': 'socket'}" in caplog.text


@pytest.mark.parametrize("error", [Oops, OSError, EOFError, trio.BrokenResourceError])
@pytest.mark.parametrize("option", ["process_request", "select_subprotocol"])
async def test_a_function_that_raises_answers_500(
    option: Any, error: type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    """The client learns only that; the log has the traceback, once.

    Also where it is an error that a client's stream might raise: it came from elsewhere.
    """

    def fail(asked: Request, *rest: object) -> Any:
        raise error("the secret reason")

    options: Any = {option: fail}
    async with serving(Echo, **options) as site:
        with pytest.raises(HandshakeRefused) as caught:
            async with site.dial():
                raise AssertionError
        assert caught.value.status == 500
        assert b"secret" not in caught.value.body
    assert len(logged(caplog, "ERROR")) == 1
    assert "the secret reason" in caplog.text


async def test_a_transport_that_fails_harms_one_client(caplog: pytest.LogCaptureFixture) -> None:
    """Any exception of a foreign transport is contained; the client's slot is released."""

    class Fragile(NativeTransport):
        failures = 1

        async def upgrade(self, stream: Any, upgrade: Any, nursery: Any) -> Link:
            if self.failures:
                self.failures -= 1
                raise Oops
            return await super().upgrade(stream, upgrade, nursery)

    async with serving(Echo, transport=Fragile(), max_connections=1) as site:
        client = await site.raw()
        await client.send(request())
        assert await client.everything() == b""
        async with site.dial() as conn:
            await conn.ping()
    assert len(logged(caplog, "ERROR")) == 1


@on_both
async def test_scenario_40_a_handler_that_sends_after_the_client_has_left_is_no_failure(
    transport: MakeTransport, caplog: pytest.LogCaptureFixture
) -> None:
    """40: it raises ConnectionClosed, which is not logged."""
    ended = trio.Event()

    async def late(conn: Connection[None]) -> None:
        await conn.wait_closed()
        try:
            await conn.send("too late")
        finally:
            ended.set()

    async with serving(late, transport=transport()) as site:
        for code in (1000, 4000):
            async with site.dial() as conn:
                await conn.aclose(code)
        await ended.wait()
    assert not logged(caplog, "ERROR")


async def test_a_handler_that_reads_on_after_a_loss_is_no_failure(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """``async for`` raises when the client is lost; the handler need not catch that."""
    async with serving(echo) as site:
        client = await site.upgraded()
        await client.stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert site.server.connections == frozenset()
    assert not logged(caplog, "ERROR")


async def test_the_end_of_a_handler_with_tasks_is_no_failure(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A nursery wraps ConnectionClosed in a group; other failures in it are logged."""

    async def reads(conn: Connection[None]) -> None:
        message = await conn.receive()
        raise Oops(message)

    async def writes(conn: Connection[None]) -> None:
        while True:
            await conn.send("tick")
            await trio.sleep(0.01)

    async def both(conn: Connection[None]) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reads, conn)
            nursery.start_soon(writes, conn)

    async with serving(both) as site:
        client = await site.upgraded()
        await client.stream.aclose()
        async with site.dial():
            pass
        await trio.testing.wait_all_tasks_blocked()
        assert not logged(caplog, "ERROR")
        async with site.dial() as conn:
            await conn.send("raise")
            await conn.wait_closed()
        assert conn.close_code == 1011
    assert len(logged(caplog, "ERROR")) == 1


async def test_a_stream_that_cannot_be_closed_ends_nothing_else(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """18: a foreign listener may return streams of any kind."""

    class Stuck(MemoryListener):
        async def accept(self) -> trio.abc.Stream:
            stream = await super().accept()

            async def refuse() -> None:
                raise OSError("not now")

            stream.aclose = refuse  # type: ignore[method-assign]
            return stream

    async with serving(Echo, Stuck()) as site:
        for _ in range(2):
            client = await site.raw()
            await client.send(b"no request\r\n\r\n")
            assert b" 400 " in await client.everything()
            await trio.testing.wait_all_tasks_blocked()
    assert len(logged(caplog, "ERROR")) == 2


async def test_another_connections_end_is_a_failure(caplog: pytest.LogCaptureFixture) -> None:
    """A ConnectionClosed of another connection is logged like any exception."""

    async def relay(conn: Connection[None]) -> None:
        raise ConnectionClosedError(None, None)

    async with serving(relay) as site:
        with pytest.raises(ConnectionClosed) as caught:
            async with site.dial() as conn:
                await conn.receive()
        assert caught.value.code == 1011
    assert len(logged(caplog, "ERROR")) == 1


class FaultyLink(Link):
    """A link whose ``write`` has a bug."""

    def __init__(self, link: Link) -> None:
        self.handshake = link.handshake
        self._link = link

    async def receive(self) -> list[Event]:
        return await self._link.receive()

    async def respond(self) -> None:
        await self._link.respond()

    async def write(self, frames: Sequence[Frame]) -> None:
        raise Oops

    async def aclose(self) -> None:
        await self._link.aclose()


class FaultyTransport(NativeTransport):
    async def upgrade(self, *args: Any) -> Link:
        return FaultyLink(await super().upgrade(*args))


async def echo_handler(conn: Connection[None]) -> None:
    async for message in conn:
        await conn.send(message)


@pytest.mark.parametrize("target", [Echo, echo_handler])
async def test_a_bug_of_a_transport_ends_its_connection_alone(
    target: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The task that writes belongs to the server; its exception is logged."""
    async with serving(target, transport=FaultyTransport()) as site:
        for _ in range(2):
            with pytest.raises(ConnectionClosedError):
                async with site.dial() as conn:
                    await conn.send("x")
                    await conn.receive()
        assert site.server.connections == frozenset()
    assert len(logged(caplog, "ERROR")) == 2
    assert "raise Oops" in caplog.text
