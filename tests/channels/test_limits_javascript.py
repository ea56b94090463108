"""The official JavaScript client and hooks that hang, new tokens, and limits."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.protocols.phoenix.test_javascript import NODE, node
from trioglock import Rate, serve
from trioglock.channels import Answer, Channel, Channels, Credentials
from trioglock.pubsub import Hub

__all__ = ["node"]

SCRIPT = Path(__file__).parent / "node" / "limits.js"

EXPECTED = [
    ["fine", "ok", {"user": "al"}],
    ["beside", "ok", {"n": 1}],
    ["rejoined", {"user": "al"}],
    ["works", "ok", {"n": 2}],
    ["token", "ok", {}],
    ["refused", "error", {"reason": "unauthorized"}],
    ["user", "ok", {"user": "bo"}],
    ["closed", 1008, "too many messages", True],
    ["connected again", "ok", {"n": 3}],
]


class Fine(Channel[None]):
    """Echoes."""

    def join(self, topic: str, payload: Any, user: Any) -> Any:
        return {"user": user}, None

    def handle_in(self, event: str, payload: Any, state: None) -> Any:
        return Answer("ok", payload), state


class Slow(Fine):
    """The first join hangs."""

    joins = 0

    async def join(self, topic: str, payload: Any, user: Any) -> Any:
        Slow.joins += 1
        if Slow.joins == 1:
            await trio.sleep_forever()
        return super().join(topic, payload, user)


def read_token(token: str) -> Any:
    user, _, seconds = token.partition(":")
    return Credentials(user, time.time() + float(seconds)) if seconds else None


@pytest.mark.slow
async def test_the_official_client_with_hooks_that_hang_new_tokens_and_limits(node: str) -> None:
    hub = Hub()
    channels = Channels(
        {"fine:*": Fine, "slow:*": Slow},
        hub=hub,
        connect=lambda request: read_token(request.params["token"]),
        refresh=lambda token, user: read_token(token),
        message_rate=Rate(100, per=10),
    )
    with trio.fail_after(300):
        async with hub, serve(channels.socket, "127.0.0.1", 0) as server:
            done = await trio.run_process(
                [node, str(SCRIPT), f"ws://127.0.0.1:{server.port}/socket"],
                env={**os.environ, "NODE_PATH": str(NODE / "node_modules")},
                capture_stdout=True,
                capture_stderr=True,
                check=False,
            )
    assert done.returncode == 0, done.stderr.decode()
    assert [json.loads(line) for line in done.stdout.decode().splitlines()] == EXPECTED
