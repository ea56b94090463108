"""The official JavaScript client joins again with the id of the last event."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.protocols.phoenix.test_javascript import NODE
from trioglock import serve
from trioglock.channels import Broadcast, Channel, Channels, History
from trioglock.pubsub import Hub, MemoryBroker

SCRIPT = Path(__file__).parent / "node" / "history.js"

EXPECTED = [
    ["connected again", [1, 2, 3, 4, 5]],
    ["after a crash", [1, 2, 3, 4, 5, 6]],
    ["with a gap", [1, 2, 3, 4, 5, 6, 9, 10, 11, 12, 13]],
    ["responses", [{}, {}, {"gap": True}]],
    ["newcomer", [[9, 10, 11, 12, 13], [{}]]],
]


class Room(Channel[None]):
    history = History(size=5)

    def handle_in(self, event: str, payload: Any, state: None) -> Any:
        if event == "crash":
            raise ValueError(event)
        return Broadcast(event, payload), state

    def join(self, topic: str, payload: Any, user: Any) -> Any:
        return {}, None


@asynccontextmanager
async def serving(broker: MemoryBroker) -> AsyncIterator[str]:
    """Serve the topic on a TCP port; yield the URL for clients of Phoenix."""
    hub = Hub(broker=broker)
    channels = Channels({"room:*": Room}, hub=hub)
    async with hub, serve(channels.socket, "127.0.0.1", 0) as server:
        yield f"ws://127.0.0.1:{server.port}/socket"


@pytest.mark.slow
async def test_the_official_client_receives_what_it_has_missed(node: str) -> None:
    """After a lost connection, a crash and a gap, and as a newcomer."""
    broker = MemoryBroker()
    with trio.fail_after(30):
        async with serving(broker) as one, serving(broker) as two:
            done = await trio.run_process(
                [node, str(SCRIPT), one, two],
                env={**os.environ, "NODE_PATH": str(NODE / "node_modules")},
                capture_stdout=True,
                capture_stderr=True,
                check=False,
            )
    assert done.returncode == 0, done.stderr.decode()
    assert [json.loads(line) for line in done.stdout.decode().splitlines()] == EXPECTED
