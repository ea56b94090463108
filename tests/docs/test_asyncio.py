"""docs/asyncio.md: programs that are cancelled end, and ``publish`` reaches a hub."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from threading import Event, Thread
from typing import Any

import pytest
import trio
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve

from tests.docs.pages import Page
from tests.pubsub.redis_server import RealRedis, real_redis
from trioglock.pubsub import Hub

pytestmark = pytest.mark.docs

SECONDS = 300


def names_of_page(url: str) -> dict[str, Any]:
    """The functions that the page defines, without running them."""
    code = "\n".join(Page("docs/asyncio.md").python_blocks())
    names: dict[str, Any] = {}
    lines = [line for line in code.splitlines() if not line.startswith("asyncio.run(")]
    exec("\n".join(lines).replace("wss://example.org/echo", url), names)  # noqa: S102 - our page
    return names


class SilentServer:
    """Receives and never sends; records when a client is there and how it left."""

    def __init__(self) -> None:
        self.arrived, self.left = Event(), Event()
        self.close_code: int | None = None

    def __call__(self, connection: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            while True:
                connection.recv()
                self.arrived.set()
        self.close_code = connection.close_code
        self.left.set()

    @contextlib.contextmanager
    def running(self) -> Iterator[str]:
        with serve(self, "127.0.0.1", 0) as server:
            thread = Thread(target=server.serve_forever)
            thread.start()
            yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}/"
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(("function", "code"), [("main", 1006), ("run_guest", 1000)])
def test_a_cancelled_program_ends_its_connection(function: str, code: int) -> None:
    peer = SilentServer()

    async def cancelled() -> None:
        task = asyncio.create_task(names_of_page(url)[function]())
        await asyncio.to_thread(peer.arrived.wait, SECONDS)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, SECONDS)

    with peer.running() as url:
        asyncio.run(cancelled())
        assert peer.left.wait(SECONDS)
    assert peer.close_code == code


@pytest.fixture
def redis() -> Iterator[RealRedis]:
    with real_redis() as server:
        yield server


async def test_publish_in_a_thread_of_asyncio(redis: RealRedis) -> None:
    notify = names_of_page("")["notify"]
    with trio.fail_after(SECONDS):
        async with Hub(broker=redis.broker()) as hub:
            with hub.subscribe("news") as news:
                await news.ready()
                await trio.to_thread.run_sync(asyncio.run, notify("hello", redis.url))
                assert (await news.__anext__()).data == "hello"
