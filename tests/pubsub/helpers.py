"""Helpers for tests of hubs."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

import pytest
import trio

from trioglock import BrokerUnavailable
from trioglock.pubsub import Broker, Gap, Hub, RedisBroker, publish
from trioglock.server import serve

__all__ = ["SECONDS", "expect_both", "joined", "opened", "read", "served", "tls_proxy"]

SECONDS = 300
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


@asynccontextmanager
async def tls_proxy(port: int, context: ssl.SSLContext) -> AsyncIterator[int]:
    """Accept TLS on another port, which is yielded, and forward it without TLS."""

    async def decrypt(near: trio.SSLStream[trio.SocketStream]) -> None:
        far = await trio.open_tcp_stream("127.0.0.1", port)
        async with near, far, trio.open_nursery() as nursery:
            nursery.start_soon(copy, near, far)
            await copy(far, near)
            nursery.cancel_scope.cancel()

    async def copy(source: trio.abc.Stream, target: trio.abc.Stream) -> None:
        with suppress(trio.BrokenResourceError):
            while data := await source.receive_some():
                await target.send_all(data)

    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, decrypt, [trio.SSLListener(listener, context)])
        yield listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()


async def expect_both(kind: type[Exception], url: str) -> set[str]:
    """The texts of the errors, with their causes, of a hub and of a program without trio."""
    seconds = 3 if kind is BrokerUnavailable else SECONDS  # it waits until then
    texts = set()
    for call in (
        Hub(broker=RedisBroker(url, open_timeout=seconds)).__aenter__,
        partial(trio.to_thread.run_sync, partial(publish, "x", url=url, timeout=seconds)),
    ):
        with pytest.raises(kind) as caught:
            await call()
        texts.add(f"{caught.value}; {caught.value.__cause__}")
    return texts
