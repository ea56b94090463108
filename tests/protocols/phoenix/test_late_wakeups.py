"""A program that was blocked does not take its own pause for a missing reply."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import trio
import trio.testing
import websockets.sync.server
from trio.testing import MockClock

from tests.pauses import PAUSING_CLOCK, block
from tests.protocols.phoenix.helpers import transport_of
from trioglock import Stop
from trioglock.protocols import phoenix
from trioglock.testing import MockPhoenixServer, MockTopic

TIMEOUT = 0.3


@contextmanager
def prompt_server() -> Iterator[str]:
    """Run a server in a thread, which replies while this thread is blocked, except to "silent"."""

    def handler(peer: websockets.sync.server.ServerConnection) -> None:
        for message in peer:
            join_ref, ref, topic, event, _ = json.loads(message)
            if event != "silent":
                reply = {"status": "ok", "response": {}}
                peer.send(json.dumps([join_ref, ref, topic, "phx_reply", reply]))
            if event == "noise":
                for _ in range(300):
                    peer.send(json.dumps([join_ref, None, topic, "noise", "x" * 200]))

    with websockets.sync.server.serve(handler, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.slow
@PAUSING_CLOCK
@pytest.mark.parametrize("transport", ["native", "trio-websocket"])
async def test_fault_27_a_blocked_program_reads_the_replies_first(transport: str) -> None:
    """Of pushes and leaves, even behind many messages; a reply that is absent still times out."""
    outcomes: list[str] = []

    async def push(channel: phoenix.Channel, event: str) -> None:
        try:
            outcomes.append((await channel.push(event)).status)
        except phoenix.PushTimeout:
            outcomes.append("timeout")

    with prompt_server() as url:
        async with phoenix.connect(url, transport=transport_of(transport)) as socket:
            for is_blocked in (True, False):
                channel = await socket.join("room:1", timeout=TIMEOUT, max_queue=None)
                async with trio.open_nursery() as nursery:
                    for event in ("noise", "echo", "silent"):
                        nursery.start_soon(push, channel, event)
                    await trio.testing.wait_all_tasks_blocked()
                    if is_blocked:
                        block(2 * TIMEOUT)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(channel.leave)
                    await trio.testing.wait_all_tasks_blocked()
                    if is_blocked:
                        block(2 * TIMEOUT)
                assert sorted(outcomes) == ["ok", "ok", "timeout"]
                outcomes.clear()


class Client(phoenix.ChannelClient[None]):
    """Pushes, and is then busy with other messages while the reply arrives."""

    def __init__(self, seconds: float, *, blocks: bool) -> None:
        self.seconds = seconds
        self.blocks = blocks
        self.outcomes: list[str] = []

    def handle_connected(self, transport: phoenix.ChannelTransport, state: None) -> Any:
        transport.join("room:1")
        return None, state

    def handle_joined(
        self, topic: str, response: Any, transport: phoenix.ChannelTransport, state: None
    ) -> Any:
        transport.push(topic, "slowly")
        return None, state

    async def handle_message(
        self, topic: str, event: str, payload: Any, transport: Any, state: None
    ) -> Any:
        if event == "work" and self.blocks:
            time.sleep(self.seconds)
        elif event == "work":
            await trio.sleep(self.seconds)
        return None, state

    def handle_reply(self, *_: Any) -> Any:
        self.outcomes.append("reply")
        return Stop(), None

    def handle_timeout(self, *_: Any) -> Any:
        self.outcomes.append("timeout")
        return Stop(), None


class Busy(MockTopic):
    """Sends many messages before the reply, so that the client stops reading meanwhile."""

    async def on_event(self, event: str, payload: Any) -> Any:
        for number in range(60):
            await self.push("work" if number in (0, 50) else "other", {"text": "x" * 5000})
        await trio.sleep(0.1)
        return "ok"


@pytest.mark.parametrize("blocks", [False, True])
@pytest.mark.slow
async def test_fault_27_a_slow_callback_is_no_timeout(
    autojump_clock: MockClock, *, blocks: bool
) -> None:
    """The reply arrives in time, but is read when the callback has returned."""
    client = Client(0.5 if blocks else 6, blocks=blocks)
    timeout = 0.3 if blocks else 5
    async with MockPhoenixServer({"room:*": Busy}, memory=True) as server:
        await phoenix.run(server.url, client, stream=server.open_stream, timeout=timeout)
    assert client.outcomes == ["reply"]
