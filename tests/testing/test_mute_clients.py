"""Closing a mock server's connections takes at most 10 seconds, whatever its clients do."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from trioglock.testing import MockGossipServer, MockPhoenixServer, MockServer

Call = Callable[[Any], Awaitable[None]]


class MuteClient:
    """Sends a handshake and messages, and then neither answers a Close frame nor hangs up."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream

    async def start(self, path: str, *messages: Any) -> None:
        request = (
            f"GET {path} HTTP/1.1\r\nHost: memory.test\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            "Sec-WebSocket-Version: 13\r\n\r\n"
        )
        await self.stream.send_all(request.encode())
        for message in messages:
            payload = json.dumps(message).encode()
            frame = bytes([0x81, 0xFE]) + len(payload).to_bytes(2) + bytes(4) + payload
            await self.stream.send_all(frame)

    async def read_all(self) -> bytes:
        received = b""
        while data := await self.stream.receive_some():
            received += data
        return received


async def expect_ten_seconds(server: Any, close: Call, code: int, path: str, *sent: Any) -> None:
    """Three mute clients are closed at the same time, and then dropped."""
    clients = [MuteClient(await server.open_stream()) for _ in range(3)]
    for client in clients:
        await client.start(path, *sent)
    await trio.sleep(1)
    began = trio.current_time()
    with trio.fail_after(100):
        await close(server)
        assert trio.current_time() - began == pytest.approx(10)
        for client in clients:
            assert code.to_bytes(2) in (await client.read_all())[-40:]


async def test_fault_62_a_phoenix_server_drops_mute_clients(autojump_clock: MockClock) -> None:
    async with MockPhoenixServer(memory=True) as server:
        path = "/socket/websocket?vsn=2.0.0"
        await expect_ten_seconds(server, lambda s: s.disconnect(4007), 4007, path)
        assert server.clients == []


@pytest.mark.parametrize(
    ("close", "code"),
    [(lambda server: server.close(4007), 4007), (lambda server: server.restart(1), 1012)],
    ids=["close", "restart"],
)
async def test_fault_62_a_gossip_server_drops_mute_clients(
    autojump_clock: MockClock, close: Call, code: int
) -> None:
    hello = {"client_id": "id", "client_secret": "secret", "supports": ["channels"], "channels": []}
    async with MockGossipServer(memory=True, heartbeat_interval=None) as server:
        authenticate = {"event": "authenticate", "payload": hello}
        await expect_ten_seconds(server, close, code, "/socket", authenticate)
        assert server.peers == []


async def test_fault_62_a_mock_server_drops_a_mute_client(autojump_clock: MockClock) -> None:
    async with MockServer(memory=True) as server:
        await MuteClient(await server.open_stream()).start("/")
        began = trio.current_time()
        with trio.fail_after(100):
            await server.close()
        assert trio.current_time() - began == pytest.approx(10)
