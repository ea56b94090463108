"""The memory that subscribers and histories take is limited in bytes, however much is published."""

from __future__ import annotations

import re
import tracemalloc
from collections.abc import Iterator

import pytest
import trio

from tests.pubsub.helpers import joined, served
from tests.pubsub.redis_server import RealRedis
from tests.server.helpers import request
from trioglock.pubsub import Broker, Hub, MemoryBroker, SubscriberOverflow

PUBLISHERS = 10
MESSAGES = 100
"""The number that each one publishes, as fast as the broker accepts them."""

SIZE = 2**15
QUEUE_BYTES = 2**20
HISTORY_BYTES = 2**21
REDIS_HISTORY = 32
SLACK = 3 * 2**20
"""For send buffers, and messages on their way to and from Redis."""


@pytest.fixture
def traced() -> Iterator[None]:
    """Trace the memory of this process."""
    tracemalloc.start()
    yield
    tracemalloc.stop()


async def publish_to_readers_that_never_read(broker: Broker, overflow: SubscriberOverflow) -> int:
    """Publish 32 MB to two clients that never read and a loop that never asks for a message.

    Returns:
        The largest amount of memory that this has taken, in bytes.
    """
    hub = Hub(broker=broker, max_queue=10**6, max_queue_bytes=QUEUE_BYTES, overflow=overflow)
    text = "x" * (SIZE - 8)

    async def publish(publisher: int) -> None:
        for number in range(MESSAGES):
            await hub.publish(f"{publisher:03}{number:05}{text}", "busy")

    async with served(hub) as url, await trio.open_tcp_stream("127.0.0.1", _port(url)) as plain:
        json = await trio.open_tcp_stream("127.0.0.1", _port(url))
        loop = hub.subscribe("busy")
        await plain.send_all(request("/busy"))
        await json.send_all(request("/busy?after="))
        await joined(hub, 3)
        await loop.ready()
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        queued = 0
        async with json, trio.open_nursery() as nursery:
            for publisher in range(PUBLISHERS):
                nursery.start_soon(publish, publisher)
            while hub.statistics().received < PUBLISHERS * MESSAGES:
                queued = max(queued, hub.statistics().queued_bytes)
                await trio.sleep(0.01)
        # The message that fills a queue may exceed the limit.
        assert queued <= 3 * (QUEUE_BYTES + 2 * SIZE)
        assert queued > QUEUE_BYTES or overflow == "close"
        return tracemalloc.get_traced_memory()[1] - before


def _port(url: str) -> int:
    return int(url.strip("/").rpartition(":")[2])


@pytest.mark.slow
@pytest.mark.parametrize(("overflow", "history"), [("resume", 10**6), ("close", None)])
async def test_memory_is_bounded_when_readers_never_read(
    traced: None, overflow: SubscriberOverflow, history: int | None
) -> None:
    """With a memory broker, the history is limited in bytes as well."""
    broker = MemoryBroker(history=history, history_bytes=HISTORY_BYTES)
    taken = await publish_to_readers_that_never_read(broker, overflow)
    kept = HISTORY_BYTES if history else 0
    assert taken < 3 * QUEUE_BYTES + kept + SLACK


@pytest.mark.redis
@pytest.mark.slow
async def test_memory_is_bounded_with_redis_when_readers_never_read(
    traced: None, redis: RealRedis
) -> None:
    """The history takes no memory of this process. Redis keeps the newest messages only."""
    broker = redis.broker(history=REDIS_HISTORY)
    taken = await publish_to_readers_that_never_read(broker, "resume")
    assert taken < 3 * QUEUE_BYTES + SLACK
    used = re.search(r"used_memory:(\d+)", redis.ask("INFO memory"))
    assert used is not None
    assert int(used[1]) < 2 * REDIS_HISTORY * SIZE + SLACK
