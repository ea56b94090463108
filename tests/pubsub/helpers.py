"""Helpers for tests of hubs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio

from trioglock.pubsub import Broker, Gap, Hub
from trioglock.server import serve

__all__ = ["SECONDS", "joined", "opened", "read", "served"]

SECONDS = 10
"""Time limit of a test."""


@asynccontextmanager
async def opened(broker: Broker, name: str = "trioglock", **options: Any) -> AsyncIterator[Hub]:
    """Open a hub, and limit the time of the block."""
    with trio.fail_after(SECONDS):
        async with Hub(name, broker, **options) as hub:
            yield hub


@asynccontextmanager
async def served(hub: Hub, **options: Any) -> AsyncIterator[str]:
    """Open a hub and a server for it; yield the URL with a slash at the end."""
    with trio.fail_after(SECONDS):
        async with hub, serve(hub.socket, "127.0.0.1", 0, **options) as server:
            yield f"ws://127.0.0.1:{server.port}/"


async def joined(hub: Hub, subscribers: int) -> None:
    """Wait until the hub has so many subscribers."""
    while hub.statistics().subscribers != subscribers:
        await trio.sleep(0.001)


async def read(subscription: Any, count: int) -> list[Any]:
    """Return the data of the next messages, and gaps as they are."""
    events = [await subscription.__anext__() for _ in range(count)]
    return [event if isinstance(event, Gap) else event.data for event in events]
