"""The Presence of the official JavaScript client, with two processes' worth of servers."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import trio

from tests.channels.presence_helpers import serving_presence
from tests.protocols.phoenix.test_javascript import NODE, node
from trioglock.pubsub import Hub, MemoryBroker

__all__ = ["node"]

SCRIPT = Path(__file__).parent / "node" / "presence.js"

EXPECTED = [
    ["joined", [["al", "here", "here"], ["bo", "here"]]],
    ["updated", [["al", "here", "here"], ["bo", "away"]]],
    ["left", [["al", "here"], ["bo", "away"]]],
    ["connected again", [["al", "here"], ["bo", "here"]]],
    ["log", [["join", "al"], ["join", "bo"], ["leave", "bo"], ["join", "bo"], ["leave", "bo"]]],
]


@pytest.mark.slow
async def test_the_official_client_shows_who_is_there(node: str) -> None:
    """Tabs, updates, a crash, leaving, a lost connection, and closing."""
    broker = MemoryBroker()
    with trio.fail_after(30):
        async with (
            serving_presence(Hub(broker=broker), tcp=True) as one,
            serving_presence(Hub(broker=broker), tcp=True) as two,
        ):
            done = await trio.run_process(
                [node, str(SCRIPT), one.url, two.url],
                env={**os.environ, "NODE_PATH": str(NODE / "node_modules")},
                capture_stdout=True,
                capture_stderr=True,
                check=False,
            )
    assert done.returncode == 0, done.stderr.decode()
    assert [json.loads(line) for line in done.stdout.decode().splitlines()] == EXPECTED
