"""Programs in Ruby that publish and serve as sock-drawer does, on the same Redis."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from tests.pubsub.redis_server import RealRedis, find_port
from trioglock import connect, serve
from trioglock.pubsub import Hub

RUBY = Path(__file__).parent / "ruby"
NAME = "sock-hook"
SECONDS = 300

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def ruby() -> str:
    """Ruby with its clients of Redis and its WebSocket server."""
    path = shutil.which("ruby")
    if path is None:
        pytest.skip("needs ruby: install the system's package")
    check = [path, "-e", 'require "redis"; require "em-websocket"']
    if subprocess.run(check, capture_output=True, check=False).returncode:  # noqa: S603
        pytest.skip("needs Ruby's redis and em-websocket: install the system's packages")
    return path


@asynccontextmanager
async def ruby_server(ruby: str, redis: RealRedis) -> AsyncIterator[str]:
    """A server in Ruby; its URL."""
    port = find_port()
    command = [ruby, str(RUBY / "serve.rb"), redis.url, NAME, str(port)]
    process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        with trio.fail_after(SECONDS):
            assert await process.stdout.receive_some() == b"ready\n"
        yield f"ws://127.0.0.1:{port}/"
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
            await process.stdout.aclose()  # type: ignore[union-attr]


async def test_clients_receive_what_ruby_publishes(ruby: str, redis: RealRedis) -> None:
    """Text on a channel, and broadcasts."""
    async with (
        Hub(NAME, redis.broker()) as hub,
        serve(hub.socket, "127.0.0.1", 0) as server,
        connect(f"ws://127.0.0.1:{server.port}/news") as client,
    ):
        await client.ping()
        messages = ("news=gr\u00fc\u00dfe=1", "other=x", "=to all", "news=")
        command = [ruby, str(RUBY / "publish.rb"), redis.url, NAME, *messages]
        await trio.run_process(command)
        with trio.fail_after(SECONDS):
            assert [await client.receive() for _ in range(3)] == ["gr\u00fc\u00dfe=1", "to all", ""]


async def test_ruby_forwards_what_a_hub_publishes(ruby: str, redis: RealRedis) -> None:
    """A broadcast reaches only the path / of that server."""
    async with (
        ruby_server(ruby, redis) as url,
        Hub(NAME, redis.broker()) as hub,
        connect(f"{url}news") as news,
        connect(url) as broadcasts,
    ):
        with trio.fail_after(SECONDS):
            assert await news.receive() == "subscribed to sock-hook/news"
            assert await broadcasts.receive() == "subscribed to sock-hook/"
            await hub.publish("to all")
            await hub.publish("gr\u00fc\u00dfe", channel="news")
            assert await news.receive() == "gr\u00fc\u00dfe"
            assert await broadcasts.receive() == "to all"
