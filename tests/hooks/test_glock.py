"""Typical uses of Glock."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from tests.hooks.helpers import URL, delivered, linked, read_frames, wait_for_hooks
from trioglock import (
    Close,
    ConnectionClosedOK,
    ConnectionInfo,
    Disconnect,
    MemoryTransport,
    RemoteClose,
    Socket,
    connect,
)
from trioglock.testing import MockServer, echo


@dataclass(frozen=True)
class Counts:
    """The state of the examples: values, replaced and never changed."""

    connected_to: str
    sent: int = 0
    received: int = 0


class Counting(Socket[Counts]):
    def init_stream(self, info: ConnectionInfo) -> Counts:
        return Counts(info.url)

    def handle_send(self, message: Any, state: Counts) -> tuple[str, Counts]:
        return json.dumps(message), replace(state, sent=state.sent + 1)

    def handle_receive(self, frame: str, state: Counts) -> tuple[Any, Counts]:
        return json.loads(frame), replace(state, received=state.received + 1)


async def test_an_empty_socket_sends_and_receives(autojump_clock: MockClock) -> None:
    """A subclass without hooks works as a client."""

    class MySocket(Socket[None]):
        pass

    async with (
        MockServer(echo, memory=True) as server,
        connect(server.url, MySocket(), stream=server.open_stream) as conn,
    ):
        await conn.send("hello socket!")
        assert await conn.receive() == "hello socket!"
        assert server.peers[0].received == ["hello socket!"]


async def test_only_a_url_is_needed(autojump_clock: MockClock) -> None:
    """Every option has a default and can be set."""
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


async def test_the_state_counts_messages(autojump_clock: MockClock) -> None:
    """init_stream creates the state, hooks replace it, and the program reads it."""
    async with linked(Counting()) as (conn, far):
        assert conn.state == Counts(URL)
        for number in range(3):
            await conn.send({"number": number})
        await far.write(['{"answer": 42}', "[]"])
        assert await delivered(conn) == [{"answer": 42}, []]
        assert conn.state == Counts(URL, sent=3, received=2)


async def test_messages_are_sent_as_json(autojump_clock: MockClock) -> None:
    """A message that JSON cannot encode raises at the call and is not counted."""
    async with linked(Counting()) as (conn, far):
        await conn.send({"deep": [1, {"er": None}]})
        with pytest.raises(TypeError, match="not JSON serializable"):
            await conn.send({"not": object()})
        assert conn.state.sent == 1
        assert await read_frames(far) == ['{"deep": [1, {"er": null}]}']


class Queueing(Counting):
    """Puts what comes into a queue of the program, and writes its state away at the end."""

    def __init__(self, queue: trio.MemorySendChannel[Any], saved: list[tuple[str, str]]) -> None:
        self.queue = queue
        self.saved = saved

    async def handle_receive(  # type: ignore[override]  # the base's is plain: users may mix
        self, frame: str | bytes, state: Counts
    ) -> tuple[None, Counts]:
        if isinstance(frame, str):
            await self.queue.send(json.loads(frame))
            state = replace(state, received=state.received + 1)
        return None, state

    def handle_disconnect(self, reason: Disconnect, state: Counts) -> tuple[None, Counts]:
        match reason:
            case RemoteClose(code=code):
                self.saved.append((f"closed {code}", json.dumps(asdict(state))))
        return None, state

    async def terminate(self, reason: Disconnect, state: Counts) -> None:
        await trio.sleep(1)
        self.saved.append(("ended", json.dumps(asdict(state))))
        await self.queue.aclose()


async def test_messages_go_to_a_queue_and_the_state_is_saved(autojump_clock: MockClock) -> None:
    """handle_disconnect and terminate get the final state when the peer closes."""
    saved: list[tuple[str, str]] = []
    send, receive = trio.open_memory_channel[Any](1)
    async with trio.open_nursery() as nursery:
        work: list[Any] = []

        async def worker() -> None:
            async for item in receive:
                await trio.sleep(2)
                work.append(item)

        nursery.start_soon(worker)
        async with linked(Queueing(send, saved)) as (conn, far):
            await far.write(["1", b"not counted", "2", "3", "4", Close(1000, "done")])
            await far.send_eof()
            with pytest.raises(ConnectionClosedOK):
                await conn.receive()
            await conn.wait_closed()
            assert [what for what, _ in saved] == ["closed 1000", "ended"]
    assert work == [1, 2, 3, 4]
    final = {"connected_to": URL, "sent": 0, "received": 4}
    assert [json.loads(state) for _, state in saved] == [final, final]


async def test_the_socket_closes_itself(autojump_clock: MockClock) -> None:
    """A hook returns Close, and the loop of the program ends."""

    class Three(Counting):
        def handle_receive(self, frame: str, state: Counts) -> tuple[Any, Counts]:
            message, state = super().handle_receive(frame, state)
            return (Close(1000, "enough") if state.received == 3 else message), state

    async with (
        MockServer(memory=True) as server,
        connect(server.url, Three(), stream=server.open_stream) as conn,
    ):
        peer = await server.accept()
        for number in range(3):
            await peer.send(str(number))
        assert [message async for message in conn] == [0, 1]
        await peer.expect_close(1000, "enough")
        await conn.wait_closed()
        await wait_for_hooks()
        assert conn.state.received == 3
