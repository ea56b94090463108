"""The proxy itself: targets, the script's arguments, openings, and that nothing is left behind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.testing.fault_links import Over, open_url, over_memory, over_tcp, read_all
from trioglock import InvalidOption, InvalidURL, UsageError, connect
from trioglock.testing import FaultProxy, MockServer, echo

both = pytest.mark.parametrize("over", [over_memory, over_tcp])


async def say_hello(url: str, **options: Any) -> None:
    async with connect(url, **options) as conn:
        await conn.send("hello")
        assert await conn.receive() == "hello"


async def test_every_kind_of_target_over_tcp() -> None:
    """A mock server, its URL, its host and port, and a function lead to the same server."""
    with trio.fail_after(10):
        async with MockServer(echo) as server:
            port = int(server.url.strip("/").rpartition(":")[2])
            for target in (server, server.url, ("127.0.0.1", port), server.open_stream):
                async with FaultProxy(target) as proxy:
                    assert proxy.url != server.url
                    await say_hello(proxy.url)
            assert len(server.peers) == 4


async def test_every_kind_of_target_in_memory(autojump_clock: MockClock) -> None:
    """A mock server and a function need no network at all."""
    async with MockServer(echo, memory=True) as server:
        for target in (server, server.open_stream):
            async with FaultProxy(target, memory=True) as proxy:
                await say_hello(proxy.url, stream=proxy.open_stream)


async def test_a_port_before_a_server_in_memory() -> None:
    """Both sides of the proxy may be of different kinds."""
    with trio.fail_after(10):
        async with MockServer(echo, memory=True) as server, FaultProxy(server) as proxy:
            await say_hello(proxy.url)
        async with MockServer(echo) as server, FaultProxy(server, memory=True) as proxy:
            await say_hello(proxy.url, stream=proxy.open_stream)


async def test_the_url_keeps_its_path_and_user() -> None:
    """Only host and port are the proxy's."""
    async with FaultProxy("wss://me:secret@example.org/room?x=1") as proxy:
        head, _, port = proxy.url.removesuffix("/room?x=1").rpartition(":")
        assert head == "wss://me:secret@127.0.0.1"
        assert int(port)
    async with FaultProxy("wss://example.org/room", memory=True) as proxy:
        assert proxy.url == "wss://example.org/room"
    assert FaultProxy(("::1", 80)).url == "ws://[::1]:80/"


@pytest.mark.parametrize("target", [None, 7, ("host",), ("", 80), ("host", 0), ("host", "80")])
def test_a_bad_target_raises_at_once(target: Any) -> None:
    """The text says what is allowed."""
    with pytest.raises(InvalidOption, match="target is a MockServer, a ws:// or wss:// URL"):
        FaultProxy(target)


def test_a_bad_url_raises_at_once() -> None:
    """It is told like any other bad URL."""
    with pytest.raises(InvalidURL):
        FaultProxy("http://example.org/")


BAD: list[tuple[Callable[[Any], object], str]] = [
    (lambda p: p.delay(-1), "seconds is a number of at least 0"),
    (lambda p: p.delay(True), "seconds is a number"),
    (lambda p: p.delay("1"), "seconds is a number"),
    (lambda p: p.delay(float("inf")), "seconds is a number"),
    (lambda p: p.delay(1, "up"), "direction is 'to_server', 'to_client' or None for both"),
    (lambda p: p.throttle(0), "bytes_per_second is a number above 0, or None"),
    (lambda p: p.throttle(float("nan")), "bytes_per_second is a number"),
    (lambda p: p.split(0), "size must be at least 1"),
    (lambda p: p.split(1.5), "size must be a whole number"),
    (lambda p: p.transform(b"x"), "change is a function of bytes"),
    (lambda p: p.corrupt(-1), "offset must be at least 0"),
    (lambda p: p.corrupt(0, 0), "bits must be at least 1"),
    (lambda p: p.corrupt(0, 256), "bits is a mask from 1 to 255"),
    (lambda p: p.cut_after(0), "size must be at least 1"),
    (lambda p: p.stall("both"), "direction is"),
    (lambda p: p.resume("both"), "direction is"),
    (lambda p: p.half_close("both"), "direction is"),
    (lambda p: p.refuse(0), "times must be at least 1"),
    (lambda p: p.refuse(True), "times must be a whole number"),
    (lambda p: p.answer("text"), "data is bytes"),
    (lambda p: p.blackhole(0), "times must be at least 1"),
]


@pytest.mark.parametrize(("call", "text"), BAD)
def test_bad_arguments_raise_at_the_call(call: Callable[[Any], object], text: str) -> None:
    """Nothing wrong is taken and found out later; the text says what is allowed."""
    with pytest.raises(InvalidOption, match=text):
        call(FaultProxy(("127.0.0.1", 80)))


async def test_faults_of_one_connection_are_its_own(autojump_clock: MockClock) -> None:
    """The others, and those to come, know nothing of them."""
    async with (
        MockServer(echo, memory=True) as server,
        FaultProxy(server, memory=True) as proxy,
        connect(proxy.url, stream=proxy.open_stream) as slow,
        connect(proxy.url, stream=proxy.open_stream) as quick,
    ):
        first, second = proxy.connections
        assert [first.number, second.number] == [1, 2]
        first.delay(3)
        await quick.send("x")
        await quick.receive()
        assert trio.current_time() == 0
        await slow.send("x")
        await slow.receive()
        assert trio.current_time() == 6
        second.disconnect()
        assert proxy.connections == [first]
        await say_hello(proxy.url, stream=proxy.open_stream)
        first.reset()
        await slow.send("x")
        await slow.receive()
        assert trio.current_time() == 6


async def test_a_new_connection_counts_from_its_beginning(autojump_clock: MockClock) -> None:
    """The template of the proxy begins at byte 0 of each connection."""
    async with over_memory() as ends:
        await ends.pass_to_server(b"12345")
        ends.proxy.corrupt(2, 0x20, "to_server")
        ends.proxy.cut_after(4, "to_server")
        await ends.client.send_all(b"abcdefgh")
        assert await read_all(ends.server, 9) == b"abCd"
        near, far = trio.testing.memory_stream_pair()

        async def open_target() -> trio.abc.Stream:
            return near

        async with FaultProxy(open_target, memory=True) as proxy:
            proxy.corrupt(2, 0x20)
            proxy.cut_after(4)
            client = await proxy.open_stream()
            await client.send_all(b"abcdefgh")
            assert await read_all(far, 9) == b"abCd"


async def test_refusals_are_counted(autojump_clock: MockClock) -> None:
    """As many as were asked for, or all until it is healed."""
    async with MockServer(echo, memory=True) as server, FaultProxy(server, memory=True) as proxy:
        proxy.refuse(2)
        for _ in range(2):
            with pytest.raises(ConnectionRefusedError):
                await proxy.open_stream()
        await say_hello(proxy.url, stream=proxy.open_stream)
        proxy.refuse(None)
        for _ in range(5):
            with pytest.raises(ConnectionRefusedError):
                await proxy.open_stream()
        proxy.reset()
        await say_hello(proxy.url, stream=proxy.open_stream)
        assert proxy.errors == []


async def test_openings_follow_each_other(autojump_clock: MockClock) -> None:
    """What happens to the next connections happens in the order in which it was asked for."""
    async with MockServer(echo, memory=True) as server, FaultProxy(server, memory=True) as proxy:
        proxy.answer(b"garbage")
        proxy.refuse()
        stream = await proxy.open_stream()
        await stream.send_all(b"hello?")
        assert await read_all(stream, 100) == b"garbage"
        with pytest.raises(ConnectionRefusedError):
            await proxy.open_stream()
        await say_hello(proxy.url, stream=proxy.open_stream)


async def test_refused_over_tcp_is_a_reset() -> None:
    """The port is there, and the connection breaks at once."""
    with trio.fail_after(10):
        async with FaultProxy("ws://never.test/") as proxy:
            proxy.refuse()
            async with await open_url(proxy.url) as stream:
                with pytest.raises(trio.BrokenResourceError):
                    await stream.receive_some()
            assert proxy.errors == []


async def test_an_unreachable_target_is_noted() -> None:
    """The client is refused, the proxy goes on and tells what was wrong."""
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    await listener.aclose()
    with trio.fail_after(10):
        async with FaultProxy(("127.0.0.1", port)) as proxy:
            async with await open_url(proxy.url) as stream:
                with pytest.raises(trio.BrokenResourceError):
                    await stream.receive_some()
            with pytest.raises(ConnectionRefusedError):
                await proxy.open_stream()
            assert [isinstance(error, OSError) for error in proxy.errors] == [True, True]


@both
async def test_a_function_that_raises_is_noted(over: Over) -> None:
    """Its connection is reset, the proxy goes on."""

    def change(data: bytes) -> bytes:
        raise ZeroDivisionError

    async with over() as ends:
        ends.proxy.transform(change)
        await ends.client.send_all(b"x")
        with pytest.raises(trio.BrokenResourceError):
            await ends.client.receive_some()
        [error] = ends.proxy.errors
        assert isinstance(error, ZeroDivisionError)


@both
async def test_nothing_is_left_behind(over: Over) -> None:
    """No task outlives the block, whatever its connections were doing, and both sides end."""
    before = trio.lowlevel.current_statistics().tasks_living
    async with over() as ends:
        ends.proxy.delay(1000)
        ends.proxy.stall("to_client")
        await ends.client.send_all(b"x" * 100_000)
        await ends.server.send_all(b"x" * 100_000)
        ends.proxy.blackhole()
        client = await ends.proxy.open_stream()
        await client.send_all(b"x")
        await wait_all_tasks_blocked()
    assert trio.lowlevel.current_statistics().tasks_living == before
    assert await client.receive_some() == b""
    assert ends.proxy.connections == []
    with pytest.raises(ConnectionRefusedError):
        await ends.proxy.open_stream()


async def test_a_cancelled_block_ends_at_once() -> None:
    """Cancelling is not held up by a cut that waits for both sides to end theirs."""
    with trio.fail_after(10), trio.CancelScope() as scope:
        async with over_tcp() as ends:
            ends.proxy.disconnect()
            await wait_all_tasks_blocked()
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught


async def test_the_blocks_own_exception_comes_out() -> None:
    """Not in a group."""
    with pytest.raises(KeyError):
        async with over_memory() as ends:
            await ends.client.send_all(b"x")
            raise KeyError


async def test_one_block_at_a_time() -> None:
    """Entering it again inside says so; afterwards it may be used again."""
    proxy = FaultProxy(("127.0.0.1", 80), memory=True)
    async with proxy:
        with pytest.raises(UsageError):
            await proxy.__aenter__()
    async with proxy:
        pass
