"""Hooks that block the event loop are named in a warning."""

from __future__ import annotations

import logging
import time
from typing import Any

import pytest
import trio

from trioglock import Socket, connect
from trioglock.connection import hook_watch
from trioglock.routing import EventSocket, Router
from trioglock.testing import MockServer


class Blocking(Socket[None]):
    def handle_receive(self, frame: Any, state: None) -> Any:
        time.sleep(float(frame))
        return None, state

    async def handle_cast(self, message: float, state: None) -> Any:
        await trio.sleep(0.01)
        time.sleep(message)
        return None, state


def slow_handler(event: Any, state: Any) -> Any:
    time.sleep(event["seconds"])
    return None, state


@pytest.mark.slow
async def test_a_hook_that_blocks_is_named(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Plain and async hooks and handlers, with the line; each call once. Short calls are not."""
    caplog.set_level(logging.WARNING, "trioglock.connection")
    monkeypatch.setattr(hook_watch, "INTERVAL", 0.4)
    router = Router()
    router.on("slow")(slow_handler)
    async with (
        MockServer(memory=True) as server,
        connect(server.url, Blocking(), stream=server.open_stream) as conn,
    ):
        await trio.sleep(1)  # the thread sleeps for the old interval
        await server.send(*["0.1"] * 10)
        await trio.sleep(0.1)
        await server.send("1.2")
        await trio.sleep(0.1)
        conn.cast(1.2)
        await trio.sleep(0.1)
    async with (
        MockServer(memory=True) as server,
        connect(server.url, EventSocket(router), stream=server.open_stream),
    ):
        await server.send('{"event": "slow", "seconds": 1.2}')
        await trio.sleep(0.1)
    names = [record.getMessage().partition(f", at {__file__}:")[0] for record in caplog.records]
    assert names == [
        f"{name} blocks all connections for more than 0.4 seconds"
        for name in ("Blocking.handle_receive", "Blocking.handle_cast", "slow_handler")
    ]
