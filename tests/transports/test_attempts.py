"""Attempts that are cancelled or time out at any stage leak nothing."""

from __future__ import annotations

import socket
from typing import Any

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair

from tests.transports.servers import (
    Deaf,
    MakeTransport,
    client_context,
    failure,
    hold,
    memory_server,
    no_leak,
    on_both,
    read_request,
    server_context,
    serving,
    upgrading,
)
from trioglock import NativeTransport, OpenTimeout, TrioWebsocketTransport, connect


async def wait_for_ever(stream: trio.abc.Stream) -> None:
    await stream.receive_some()
    await hold(stream)


async def hold_after_connect(stream: trio.abc.Stream) -> None:
    await read_request(stream)
    await stream.send_all(b"HTTP/1.1 200 OK\r\n\r\n")
    await hold(stream)


async def half_a_response(stream: trio.abc.Stream) -> None:
    await read_request(stream)
    await stream.send_all(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: webs")
    await hold(stream)


async def half_a_body(stream: trio.abc.Stream) -> None:
    await read_request(stream)
    await stream.send_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 9\r\n\r\nno")
    await hold(stream)


async def cancel_while_connecting(url: str, **options: Any) -> None:
    """Start to connect, and cancel once all tasks are blocked."""
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:

            async def cancel() -> None:
                # Long enough for the kernel to carry bytes between the two sides.
                await trio.testing.wait_all_tasks_blocked(0.02)
                scope.cancel()

            nursery.start_soon(cancel)
            async with connect(url, **options):
                raise AssertionError("it connected")
    assert scope.cancelled_caught


# Opening the stream is the same for both transports, so the rest is tested with each of them.
UPGRADES = ["response", "response, half-way", "body of a refusal"]
STAGES = {
    "TLS handshake": ("wss", None, hold),
    "TLS handshake, half-way": ("wss", None, wait_for_ever),
    "response": ("ws", None, hold),
    "response, half-way": ("ws", None, half_a_response),
    "body of a refusal": ("ws", None, half_a_body),
    "CONNECT": ("ws", "http", hold),
    "TLS through a proxy": ("wss", "http", hold_after_connect),
    "response through a proxy": ("ws", "http", hold_after_connect),
    "TLS with the proxy": ("ws", "https", hold),
    "SOCKS5": ("ws", "socks5h", wait_for_ever),
    "SOCKS4": ("ws", "socks4a", wait_for_ever),
}


@pytest.mark.parametrize(
    ("transport", "stage"),
    [
        *((NativeTransport, stage) for stage in STAGES),
        *((TrioWebsocketTransport, stage) for stage in UPGRADES),
    ],
)
async def test_a_cancelled_connect_leaks_nothing(transport: MakeTransport, stage: str) -> None:
    """An attempt that is cancelled while it waits closes its socket immediately."""
    scheme, proxy, script = STAGES[stage]
    with no_leak():
        async with serving(script) as port:
            await cancel_while_connecting(
                f"{scheme}://127.0.0.1:{port}/",
                transport=transport(),
                proxy=None if proxy is None else f"{proxy}://127.0.0.1:{port}",
            )


@pytest.mark.parametrize("proxy", [None, "http://127.0.0.1:9", "socks5://127.0.0.1:9"])
async def test_cancelled_while_tcp_connects(proxy: str | None) -> None:
    """An attempt that is cancelled before TCP has connected closes its socket."""
    trio.socket.set_custom_socket_factory(Deaf(socket.AF_INET))
    with no_leak():
        await cancel_while_connecting("ws://127.0.0.1:9/", proxy=proxy)


@on_both
async def test_cancelled_behind_tls(transport: MakeTransport) -> None:
    """An attempt that is cancelled during TLS closes its socket."""
    with no_leak():
        async with serving(half_a_response, server_context()) as port:
            await cancel_while_connecting(
                f"wss://127.0.0.1:{port}/", transport=transport(), ssl_context=client_context()
            )


@on_both
async def test_open_timeout(transport: MakeTransport, autojump_clock: MockClock) -> None:
    """A silent server is an OpenTimeout, a TimeoutError that names the limit."""
    near, far = memory_stream_pair()
    start = trio.current_time()
    with pytest.raises(TimeoutError, match=r"7\.5 seconds") as caught:
        async with connect(
            "ws://memory.test/", transport=transport(), stream=near, open_timeout=7.5
        ):
            pass
    assert isinstance(caught.value, OpenTimeout)
    assert trio.current_time() - start == pytest.approx(7.5)
    await far.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await near.send_all(b"more")


async def test_open_timeout_covers_everything(autojump_clock: MockClock) -> None:
    """The limit is one for opening the stream, TLS and the upgrade together; default 10 s."""

    async def dial() -> trio.abc.Stream:
        await trio.sleep(8)
        near, _ = memory_stream_pair()
        return near

    start = trio.current_time()
    error = await failure("wss://memory.test/", stream=dial)
    assert isinstance(error, OpenTimeout)
    assert trio.current_time() - start == pytest.approx(10)


async def test_no_open_timeout(autojump_clock: MockClock) -> None:
    """None has no limit."""

    async def script(stream: trio.abc.Stream) -> None:
        await trio.sleep(900)
        await upgrading([])(stream)

    async with (
        memory_server(script) as near,
        connect("ws://memory.test/", stream=near, open_timeout=None) as conn,
    ):
        assert conn.handshake is not None


async def test_the_users_own_deadline_is_no_open_timeout(autojump_clock: MockClock) -> None:
    """A deadline around ``connect`` is the user's, not an OpenTimeout."""
    near, _far = memory_stream_pair()
    with pytest.raises(trio.TooSlowError), trio.fail_after(3):
        async with connect("ws://memory.test/", stream=near):
            pass


@on_both
async def test_an_open_connection_leaks_nothing(transport: MakeTransport) -> None:
    """No descriptor remains after opening and closing."""
    with no_leak():
        async with serving(upgrading([])) as port:
            for _ in range(3):
                async with connect(f"ws://127.0.0.1:{port}/", transport=transport()):
                    pass
