"""The effect of each fault on bytes, in memory and over TCP."""

from __future__ import annotations

import pytest
import trio
from trio.testing import (
    MockClock,
    check_half_closeable_stream,
    memory_stream_pair,
    wait_all_tasks_blocked,
)

from tests.testing.proxies import Ends, Over, over_memory, over_tcp, read_all
from trioglock.testing import Direction, FaultProxy
from trioglock.testing.pipes import WINDOW_SIZE, MemorySocket, memory_socket_pair

both = pytest.mark.parametrize("over", [over_memory, over_tcp])
BIG = bytes(range(256)) * 1024


@both
async def test_no_faults(over: Over) -> None:
    """Bytes are forwarded unchanged in both directions, and counted."""
    async with over() as ends, trio.open_nursery() as nursery:
        nursery.start_soon(ends.pass_to_server, BIG)
        await ends.pass_to_client(b"hello")
        assert ends.connection.bytes_to_client == 5
        await _passed(ends, len(BIG))
        assert ends.connection.bytes_to_server == len(BIG)


async def test_delay(autojump_clock: MockClock) -> None:
    """In one direction or in each."""
    async with over_memory() as ends:
        ends.proxy.delay(2)
        await ends.pass_to_server(b"there")
        assert trio.current_time() == 2
        await ends.pass_to_client(b"back")
        assert trio.current_time() == 4
        ends.proxy.delay(0, "to_client")
        await ends.pass_to_client(b"fast")
        assert trio.current_time() == 4
        await ends.pass_to_server(b"slow")
        assert trio.current_time() == 6


async def test_delay_does_not_reduce_the_rate(autojump_clock: MockClock) -> None:
    async with over_memory() as ends:
        ends.proxy.delay(10)
        await ends.client.send_all(b"a")
        await trio.sleep(1)
        await ends.client.send_all(b"b")
        assert await read_all(ends.server, 2) == b"ab"
        assert trio.current_time() == 11


@pytest.mark.parametrize("direction", ["to_server", "to_client"])
async def test_throttle(autojump_clock: MockClock, direction: Direction) -> None:
    """1,000 bytes at 250 bytes per second take four seconds, in small writes."""
    async with over_memory() as ends:
        ends.proxy.throttle(250, direction)
        source, sink = _ends(ends, direction)
        await source.send_all(BIG[:1000])
        first = await sink.receive_some()
        assert trio.current_time() == pytest.approx(0.1)
        assert first + await read_all(sink, 1000 - len(first)) == BIG[:1000]
        assert trio.current_time() == pytest.approx(4)
        ends.proxy.throttle(None)
        await source.send_all(BIG)
        await read_all(sink, len(BIG))
        assert trio.current_time() == pytest.approx(4)


async def test_delay_and_throttle(autojump_clock: MockClock) -> None:
    """Two chunks take the delay plus their size divided by the rate."""
    async with over_memory() as ends:
        ends.proxy.delay(3)
        ends.proxy.throttle(0.5)
        for _ in range(2):
            await ends.client.send_all(b"x")
        await read_all(ends.server, 2)
        assert trio.current_time() == 7


async def test_split(autojump_clock: MockClock) -> None:
    async with over_memory() as ends:
        ends.proxy.split()
        await ends.client.send_all(b"abc")
        assert [bytes(await ends.server.receive_some()) for _ in "abc"] == [b"a", b"b", b"c"]
        ends.proxy.split(2)
        await ends.client.send_all(b"abc")
        assert [bytes(await ends.server.receive_some()) for _ in "ab"] == [b"ab", b"c"]
        ends.proxy.split(None)
        await ends.client.send_all(b"abc")
        assert await ends.server.receive_some() == b"abc"


async def test_transform(autojump_clock: MockClock) -> None:
    """The result of the function may be longer or shorter than the chunk."""
    async with over_memory() as ends:
        ends.proxy.transform(lambda data: data.replace(b"l", b"") + b"!", "to_server")
        await ends.client.send_all(b"hello")
        assert await read_all(ends.server, 4) == b"heo!"
        await wait_all_tasks_blocked()
        assert ends.connection.waiting_to_server == 0
        await ends.pass_to_client(b"hello")


async def test_corrupt(autojump_clock: MockClock) -> None:
    """The byte at an offset from the next one is changed once."""
    async with over_memory() as ends:
        await ends.pass_to_server(b"12345")
        ends.proxy.split(2)
        ends.proxy.corrupt(3, 0x20, "to_server")
        await ends.client.send_all(b"abcdef")
        assert await read_all(ends.server, 6) == b"abcDef"
        await ends.pass_to_server(b"abcdef")
        await ends.pass_to_client(b"abcdef")


@both
async def test_disconnect(over: Over) -> None:
    """Both ends read the end of the stream."""
    async with over() as ends:
        await ends.pass_to_server(b"before")
        ends.proxy.disconnect()
        assert ends.proxy.connections == []
        assert await ends.client.receive_some() == b""
        assert await ends.server.receive_some() == b""


@both
async def test_reset_peer_breaks_the_client(over: Over) -> None:
    """Receiving and sending raise."""
    async with over() as ends:
        await ends.pass_to_server(b"before")
        ends.proxy.reset_peer()
        assert ends.proxy.connections == []
        with pytest.raises(trio.BrokenResourceError):
            await ends.client.receive_some()
        with pytest.raises(trio.BrokenResourceError):
            await ends.client.send_all(b"x")


async def test_reset_peer_breaks_a_server_over_tcp() -> None:
    """Receiving raises."""
    async with over_tcp() as ends:
        await ends.pass_to_server(b"before")
        ends.proxy.reset_peer()
        with pytest.raises(trio.BrokenResourceError):
            await ends.server.receive_some()


async def test_reset_peer_breaks_a_server_in_memory(autojump_clock: MockClock) -> None:
    """Sending raises."""
    async with over_memory() as ends:
        ends.proxy.reset_peer()
        await wait_all_tasks_blocked()
        with pytest.raises(trio.BrokenResourceError):
            await ends.server.send_all(b"x")


async def test_a_reset_of_the_server_is_forwarded() -> None:
    async with over_tcp() as ends:
        await ends.pass_to_server(b"before")
        await ends.client.send_all(b"x")
        await _passed(ends, 7)
        await ends.server.aclose()  # with a byte unread: the operating system resets
        with pytest.raises(trio.BrokenResourceError):
            await ends.client.receive_some()


@both
async def test_the_end_of_a_stream_is_forwarded(over: Over) -> None:
    """After the last byte; the other direction continues."""
    async with over() as ends:
        assert isinstance(ends.client, trio.abc.HalfCloseableStream)
        await ends.client.send_all(b"last")
        await ends.client.send_eof()
        assert await read_all(ends.server, 100) == b"last"
        await ends.pass_to_client(b"still here")
        await ends.server.aclose()
        assert await ends.client.receive_some() == b""


@both
@pytest.mark.parametrize("direction", ["to_server", "to_client"])
async def test_half_close(over: Over, direction: Direction) -> None:
    """One direction ends, the other continues."""
    async with over() as ends:
        await ends.pass_to_server(b"before")
        ends.proxy.half_close(direction)
        source, sink = _ends(ends, direction)
        assert await sink.receive_some() == b""
        await source.send_all(b"discarded")
        await sink.send_all(b"back")
        assert await read_all(source, 4) == b"back"
        assert len(ends.proxy.connections) == 1


@both
@pytest.mark.parametrize("direction", ["to_server", "to_client"])
async def test_stall(over: Over, direction: Direction) -> None:
    """Not even the end is forwarded until ``resume()``; the other direction continues."""
    async with over() as ends:
        ends.proxy.stall(direction)
        source, sink = _ends(ends, direction)
        assert isinstance(source, trio.abc.HalfCloseableStream)
        await source.send_all(b"held")
        await source.send_eof()
        await sink.send_all(b"running")
        assert await read_all(source, 7) == b"running"
        await wait_all_tasks_blocked()
        waiting = ends.connection.waiting_to_server + ends.connection.waiting_to_client
        assert waiting == 4
        ends.proxy.resume(direction)
        assert await read_all(sink, 100) == b"held"


async def test_the_buffers_of_a_stalled_connection_are_bounded(autojump_clock: MockClock) -> None:
    """The sender waits, also in memory."""
    async with over_memory() as ends:
        ends.proxy.stall()
        with trio.move_on_after(1) as scope:
            await ends.client.send_all(BIG)
        assert scope.cancelled_caught
        ends.proxy.disconnect()
        with pytest.raises(trio.BrokenResourceError):
            await ends.client.send_all(BIG)


@pytest.mark.parametrize("end", ["disconnect", "reset_peer"])
async def test_a_waiting_sender_is_woken(autojump_clock: MockClock, end: str) -> None:
    async with over_memory() as ends, trio.open_nursery() as nursery:
        ends.proxy.stall()

        async def send() -> None:
            with pytest.raises(trio.BrokenResourceError):
                await ends.client.send_all(BIG)

        nursery.start_soon(send)
        await wait_all_tasks_blocked()
        getattr(ends.proxy, end)()


@both
@pytest.mark.parametrize("direction", ["to_server", "to_client"])
async def test_disconnect_after(over: Over, direction: Direction) -> None:
    async with over() as ends:
        await ends.pass_to_server(b"before")
        await ends.pass_to_client(b"before")
        ends.proxy.disconnect_after(1000, direction)
        source, sink = _ends(ends, direction)
        await source.send_all(BIG[:999])
        await source.send_all(b"!!")
        assert await read_all(sink, 10_000) == BIG[:999] + b"!"
        assert await source.receive_some() == b""
        assert ends.proxy.connections == []


async def test_reset_removes_all_faults(autojump_clock: MockClock) -> None:
    """Waiting bytes are forwarded immediately, further bytes unchanged."""
    async with over_memory() as ends:
        ends.proxy.delay(1000)
        ends.proxy.throttle(0.001)
        ends.proxy.split()
        ends.proxy.transform(bytes.upper)
        ends.proxy.corrupt(10)
        ends.proxy.disconnect_after(20)
        ends.proxy.stall()
        await ends.client.send_all(b"held")
        await wait_all_tasks_blocked()
        ends.proxy.reset()
        assert await ends.server.receive_some() == b"held"
        await ends.pass_to_server(BIG)
        await ends.pass_to_client(BIG)
        assert trio.current_time() == 0


async def test_changes_apply_to_waiting_bytes(autojump_clock: MockClock) -> None:
    """Of the delay and of the rate."""
    async with over_memory() as ends:
        ends.proxy.delay(1000)
        await ends.client.send_all(b"x")
        await trio.sleep(5)
        ends.proxy.delay(7)
        await read_all(ends.server, 1)
        assert trio.current_time() == 7
        ends.proxy.reset()
        ends.proxy.throttle(0.001)
        await ends.client.send_all(b"x")
        await trio.sleep(3)
        ends.proxy.throttle(0.25)
        await read_all(ends.server, 1)
        assert trio.current_time() == 11


def _ends(ends: Ends, direction: Direction) -> tuple[trio.abc.Stream, trio.abc.Stream]:
    """Return the source and the destination of a direction."""
    pair = (ends.client, ends.server)
    return pair if direction == "to_server" else pair[::-1]


async def _passed(ends: Ends, size: int) -> None:
    while ends.connection.bytes_to_server < size:
        await trio.lowlevel.checkpoint()


async def _full() -> tuple[MemorySocket, MemorySocket]:
    near, far = memory_socket_pair()
    for end in (near, far):
        await end.send_all(b"x" * WINDOW_SIZE)
    return near, far


async def _open() -> tuple[MemorySocket, MemorySocket]:
    return memory_socket_pair()


async def test_memory_sockets_pass_the_stream_tests_of_trio(autojump_clock: MockClock) -> None:
    await check_half_closeable_stream(_open, _full)


class NoHalfClose(trio.abc.Stream):
    """A stream that cannot be half closed, like that of TLS."""

    def __init__(self, inner: trio.abc.Stream) -> None:
        self.inner = inner

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self.inner.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self.inner.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self.inner.receive_some(max_bytes)

    async def aclose(self) -> None:
        await self.inner.aclose()


async def test_half_close_of_a_stream_without_half_close(autojump_clock: MockClock) -> None:
    """The stream is closed completely, without an error."""
    near, far = memory_stream_pair()

    async def open_target() -> trio.abc.Stream:
        return NoHalfClose(near)

    async with FaultProxy(open_target, memory=True) as proxy:
        client = await proxy.open_stream()
        await client.send_all(b"last")
        proxy.half_close("to_client")
        assert await client.receive_some() == b""
        proxy.half_close("to_server")
        assert (await read_all(far, 5))[4:] == b""
        await wait_all_tasks_blocked()
        await client.aclose()
        await wait_all_tasks_blocked()
        assert (proxy.connections, proxy.errors) == ([], [])
