"""The official JavaScript client works with the mock server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.node_packages import find_node, install_packages
from trioglock.testing import MockPhoenixChannel, MockPhoenixServer, MockTopic

NODE = Path(__file__).parent / "node"

EXPECTED = [
    ["join", ["ok", {"welcome": "room:1"}]],
    ["hello", {"topic": "room:1"}],
    ["echo", ["ok", {"a": 1}]],
    ["bare", ["ok", {}]],
    ["fail", ["error", {"why": "so"}]],
    ["binary echo", ["ok", [1, 2, 254, 0]]],
    ["binary back", [0xAA, 0xBB]],
    ["binary shout", [0xCC]],
    ["shout", {"m": "hi"}],
    ["forbidden", ["error", {"reason": "unauthorized"}]],
    ["unmatched", ["error", {"reason": "unmatched topic"}]],
    ["crash", {"reason": "channel_crash"}],
    ["rejoined", {"topic": "room:1"}],
    ["presence", [["al", 1]]],
    ["alive after heartbeats", True],
    ["rejoined after a loss", {"topic": "room:1"}],
    ["stopped", "closed"],
    ["leave", ["ok", {}]],
]


class Lobby(MockPhoenixChannel):
    """Tracks the client's presence."""

    async def on_join(self, payload: Any) -> Any:
        self.key = payload["key"]
        return {}

    async def on_joined(self) -> None:
        await self.track(self.key, online=True)


@pytest.fixture(scope="module")
def node() -> str:
    """The path of Node, after installing the locked packages."""
    install_packages(NODE)
    return find_node()


@pytest.mark.slow
async def test_the_official_client_works_with_the_mock_server(node: str) -> None:
    """Joins, replies, binary messages, refusals, crashes, presence, heartbeats, reconnecting."""
    tokens = []

    def authorize(params: dict[str, str], token: str | None) -> bool:
        tokens.append(token)
        return params == {"user": "al"}

    with trio.fail_after(300):
        channels = {"room:*": MockTopic, "presence:*": Lobby}
        async with MockPhoenixServer(channels, authorize=authorize) as server:
            done = await trio.run_process(
                [node, NODE / "run.js", NODE / "client.js", server.url, "secret?no"],
                capture_stdout=True,
                capture_stderr=True,
                check=False,
            )
    assert done.returncode == 0, done.stderr.decode()
    assert [json.loads(line) for line in done.stdout.decode().splitlines()] == EXPECTED
    assert set(tokens) == {"secret?no"}
    assert len(tokens) == 2  # one for each connection
