"""FaultProxy: targets, arguments, the next connections, and closing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.cases import case_of
from tests.testing.proxies import Over, open_url, over_memory, over_tcp, read_all
from trioglock import InvalidOption, InvalidURL, UsageError, connect
from trioglock.testing import FaultProxy, MockServer, echo

both = pytest.mark.parametrize("over", [over_memory, over_tcp])


async def check_echo(url: str, **options: Any) -> None:
    async with connect(url, **options) as conn:
        await conn.send("hello")
        assert await conn.receive() == "hello"


async def test_every_kind_of_target_over_tcp() -> None:
    """A mock server, its URL, its host and port, and a function."""
    with trio.fail_after(300):
        async with MockServer(echo) as server:
            port = int(server.url.strip("/").rpartition(":")[2])
            for target in (server, server.url, ("127.0.0.1", port), server.open_stream):
                async with FaultProxy(target) as proxy:
                    assert proxy.url != server.url
                    await check_echo(proxy.url)
            assert len(server.peers) == 4


async def test_every_kind_of_target_in_memory(autojump_clock: MockClock) -> None:
    """A mock server and a function."""
    async with MockServer(echo, memory=True) as server:
        for target in (server, server.open_stream):
            async with FaultProxy(target, memory=True) as proxy:
                await check_echo(proxy.url, stream=proxy.open_stream)


async def test_a_proxy_between_tcp_and_memory() -> None:
    """In both directions."""
    with trio.fail_after(300):
        async with MockServer(echo, memory=True) as server, FaultProxy(server) as proxy:
            await check_echo(proxy.url)
        async with MockServer(echo) as server, FaultProxy(server, memory=True) as proxy:
            await check_echo(proxy.url, stream=proxy.open_stream)


async def test_the_url_keeps_its_path_and_user() -> None:
    """Only host and port are replaced."""
    async with FaultProxy("wss://me:secret@example.org/room?x=1") as proxy:
        head, _, port = proxy.url.removesuffix("/room?x=1").rpartition(":")
        assert head == "wss://me:secret@127.0.0.1"
        assert int(port)
    async with FaultProxy("wss://example.org/room", memory=True) as proxy:
        assert proxy.url == "wss://example.org/room"
    assert FaultProxy(("::1", 80)).url == "ws://[::1]:80/"


@pytest.mark.parametrize("target", [None, 7, ("host",), ("", 80), ("host", 0), ("host", "80")])
def test_an_invalid_target(target: Any) -> None:
    with pytest.raises(InvalidOption, match="target must be a MockServer, a ws:// or wss:// URL"):
        FaultProxy(target)


def test_an_invalid_url() -> None:
    with pytest.raises(InvalidURL):
        FaultProxy("http://example.org/")


INVALID: list[tuple[Callable[[Any], object], str]] = [
    (lambda p: p.delay(-1), "seconds must be a number of at least 0"),
    (lambda p: p.delay(True), "seconds must be a number"),
    (lambda p: p.delay("1"), "seconds must be a number"),
    (lambda p: p.delay(float("inf")), "seconds must be a number"),
    (lambda p: p.delay(1, "up"), "direction must be 'to_server', 'to_client' or None for both"),
    (lambda p: p.throttle(0), "bytes_per_second must be a number above 0, or None"),
    (lambda p: p.throttle(float("nan")), "bytes_per_second must be a number"),
    (lambda p: p.split(0), "size .* at least 1"),
    (lambda p: p.split(1.5), "size .* a whole number"),
    (lambda p: p.transform(b"x"), "function must be a function of bytes"),
    (lambda p: p.corrupt(-1), "offset .* at least 0"),
    (lambda p: p.corrupt(0, 0), "bits .* at least 1"),
    (lambda p: p.corrupt(0, 256), "bits must be a mask from 1 to 255"),
    (lambda p: p.disconnect_after(0), "size .* at least 1"),
    (lambda p: p.stall("both"), "direction must be"),
    (lambda p: p.resume("both"), "direction must be"),
    (lambda p: p.half_close("both"), "direction must be"),
    (lambda p: p.refuse(0), "times .* at least 1"),
    (lambda p: p.refuse(True), "times .* a whole number"),
    (lambda p: p.answer("text"), "data must be bytes"),
    (lambda p: p.blackhole(0), "times .* at least 1"),
]


def test_invalid_arguments() -> None:
    for call, text in INVALID:
        with case_of(text), pytest.raises(InvalidOption, match=text):
            call(FaultProxy(("127.0.0.1", 80)))


async def test_faults_of_one_connection(autojump_clock: MockClock) -> None:
    """They do not affect other connections, nor new ones."""
    async with (
        MockServer(echo, memory=True) as server,
        FaultProxy(server, memory=True) as proxy,
        connect(proxy.url, stream=proxy.open_stream) as slow,
        connect(proxy.url, stream=proxy.open_stream) as fast,
    ):
        first, second = proxy.connections
        assert [first.number, second.number] == [1, 2]
        first.delay(3)
        await fast.send("x")
        await fast.receive()
        assert trio.current_time() == 0
        await slow.send("x")
        await slow.receive()
        assert trio.current_time() == 6
        second.disconnect()
        assert proxy.connections == [first]
        await check_echo(proxy.url, stream=proxy.open_stream)
        first.reset()
        await slow.send("x")
        await slow.receive()
        assert trio.current_time() == 6


async def test_offsets_of_a_new_connection(autojump_clock: MockClock) -> None:
    """They count from its first byte, those of a live connection from the next byte."""
    async with over_memory() as ends:
        await ends.pass_to_server(b"12345")
        ends.proxy.corrupt(2, 0x20, "to_server")
        ends.proxy.disconnect_after(4, "to_server")
        await ends.client.send_all(b"abcdefgh")
        assert await read_all(ends.server, 9) == b"abCd"
        near, far = trio.testing.memory_stream_pair()

        async def open_target() -> trio.abc.Stream:
            return near

        async with FaultProxy(open_target, memory=True) as proxy:
            proxy.corrupt(2, 0x20)
            proxy.disconnect_after(4)
            client = await proxy.open_stream()
            await client.send_all(b"abcdefgh")
            assert await read_all(far, 9) == b"abCd"


async def test_refusals_are_counted(autojump_clock: MockClock) -> None:
    """A given number of times, or until ``reset()``."""
    async with MockServer(echo, memory=True) as server, FaultProxy(server, memory=True) as proxy:
        proxy.refuse(2)
        for _ in range(2):
            with pytest.raises(ConnectionRefusedError):
                await proxy.open_stream()
        await check_echo(proxy.url, stream=proxy.open_stream)
        proxy.refuse(None)
        for _ in range(5):
            with pytest.raises(ConnectionRefusedError):
                await proxy.open_stream()
        proxy.reset()
        await check_echo(proxy.url, stream=proxy.open_stream)
        assert proxy.errors == []


async def test_the_next_connections(autojump_clock: MockClock) -> None:
    """Their faults apply in the order of the calls."""
    async with MockServer(echo, memory=True) as server, FaultProxy(server, memory=True) as proxy:
        proxy.answer(b"garbage")
        proxy.refuse()
        stream = await proxy.open_stream()
        await stream.send_all(b"hello?")
        assert await read_all(stream, 100) == b"garbage"
        with pytest.raises(ConnectionRefusedError):
            await proxy.open_stream()
        await check_echo(proxy.url, stream=proxy.open_stream)


async def test_refused_over_tcp_is_a_reset() -> None:
    with trio.fail_after(300):
        async with FaultProxy("ws://never.test/") as proxy:
            proxy.refuse()
            async with await open_url(proxy.url) as stream:
                with pytest.raises(trio.BrokenResourceError):
                    await stream.receive_some()
            assert proxy.errors == []


async def test_an_unreachable_target() -> None:
    """The client is refused, and ``errors`` has the exception."""
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    await listener.aclose()
    with trio.fail_after(300):
        async with FaultProxy(("127.0.0.1", port)) as proxy:
            async with await open_url(proxy.url) as stream:
                with pytest.raises(trio.BrokenResourceError):
                    await stream.receive_some()
            with pytest.raises(ConnectionRefusedError):
                await proxy.open_stream()
            assert [isinstance(error, OSError) for error in proxy.errors] == [True, True]


@both
async def test_a_function_that_raises(over: Over) -> None:
    """The connection is reset, and ``errors`` has the exception."""

    def fail(data: bytes) -> bytes:
        raise ZeroDivisionError

    async with over() as ends:
        ends.proxy.transform(fail)
        await ends.client.send_all(b"x")
        with pytest.raises(trio.BrokenResourceError):
            await ends.client.receive_some()
        [error] = ends.proxy.errors
        assert isinstance(error, ZeroDivisionError)


@both
async def test_no_task_outlives_the_block(over: Over) -> None:
    """Whatever the connections are doing; both ends of each are closed."""
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


async def test_a_cancelled_block_ends_immediately() -> None:
    """It does not wait for both peers after a disconnect."""
    with trio.fail_after(10), trio.CancelScope() as scope:
        async with over_tcp() as ends:
            ends.proxy.disconnect()
            await wait_all_tasks_blocked()
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught


async def test_the_exception_of_the_block_has_no_group() -> None:
    with pytest.raises(KeyError):
        async with over_memory() as ends:
            await ends.client.send_all(b"x")
            raise KeyError


async def test_a_proxy_runs_once_at_a_time() -> None:
    """It can be used again afterwards."""
    proxy = FaultProxy(("127.0.0.1", 80), memory=True)
    async with proxy:
        with pytest.raises(UsageError):
            await proxy.__aenter__()
    async with proxy:
        pass
