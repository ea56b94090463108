"""A program that was blocked does not take its own pause for the silence of Redis."""

from __future__ import annotations

import logging
import time

import pytest
import trio

from tests.pubsub.redis_server import RealRedis
from trioglock.pubsub import Hub

pytestmark = [pytest.mark.slow, pytest.mark.redis]

TIMEOUT = 0.3


async def block(delay: float) -> None:
    """Block for longer than a timeout, with only one round of the scheduler between."""
    await trio.sleep(delay)
    for _ in range(3):
        time.sleep(1.5 * TIMEOUT)
        await trio.lowlevel.checkpoint()


async def test_fault_01_a_blocked_program_reads_the_replies_of_redis(
    redis: RealRedis, caplog: pytest.LogCaptureFixture
) -> None:
    """While it connects, while it publishes, and between two checks of the server."""
    broker = redis.broker(
        open_timeout=TIMEOUT,
        publish_timeout=TIMEOUT,
        health_interval=TIMEOUT / 3,
        health_timeout=TIMEOUT,
    )
    with caplog.at_level(logging.WARNING, "trioglock.pubsub"):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(block, 0.001)
            async with Hub(broker=broker) as hub:
                for delay in (0, 0.001, TIMEOUT / 3, TIMEOUT / 3 + 0.001):
                    async with trio.open_nursery() as inner:
                        inner.start_soon(block, delay)
                        await hub.publish("x", channel="news")
                        await trio.sleep(delay)
    assert not caplog.messages
