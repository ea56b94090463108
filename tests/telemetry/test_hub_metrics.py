"""OpenTelemetry: metrics of hubs, as the SDK's exporters get them."""

from __future__ import annotations

import gc
import re
import weakref
from contextlib import AsyncExitStack
from sys import getsizeof

import pytest
import trio
from trio.testing import MockClock

from tests.pubsub.redis_server import real_redis
from tests.scripts import ROOT
from tests.telemetry.helpers import Collected
from trioglock.pubsub import Hub, MemoryBroker

PREFIX = "trioglock.hub."


def hub_metrics(collected: Collected, name: str = "trioglock") -> dict[str, int]:
    """The values of a hub, by the name of the metric without its prefix."""
    return {
        metric.removeprefix(PREFIX): point.value
        for metric, points in collected.metrics().items()
        for point in points
        if point.attributes == {"trioglock.hub.name": name}
    }


async def test_metrics_of_a_hub(collected: Collected, autojump_clock: MockClock) -> None:
    """They are the hub's statistics."""
    with collected.instrument():
        async with Hub("live", max_queue=2) as hub:
            hub.on("news")(lambda _: 1 // 0)
            slow = hub.subscribe("news")
            for text in ("lost", "one", "two"):
                await hub.publish(text, "news")
            values = hub_metrics(collected, "live")
            assert values == {
                "subscribers": 2,
                "channels": 1,
                "messages.received": 3,
                "messages.delivered": 6,
                "messages.dropped": 1,
                "clients.disconnected": 0,
                "gaps": 0,
                "listener.failures": 3,
                "queue.size": getsizeof("one") + getsizeof("two"),
                "broker.up": 1,
            }
            assert hub.statistics().queued_bytes == values["queue.size"]
            assert hub.statistics().broker_up
            await slow.__anext__()
            assert hub_metrics(collected, "live")["queue.size"] == getsizeof("two")
        assert hub_metrics(collected, "live") == {}
        assert not hub.statistics().broker_up
        async with hub:
            assert hub_metrics(collected, "live")["messages.received"] == 3


@pytest.mark.redis
async def test_an_outage_of_redis(collected: Collected) -> None:
    """``broker.up`` is 0 until Redis is back."""

    async def wait_broker_up(expected: int) -> dict[str, int]:
        while (values := hub_metrics(collected))["broker.up"] != expected:
            await trio.sleep(0.01)
        return values

    with collected.instrument(), real_redis() as redis, trio.fail_after(300):
        async with Hub(broker=redis.broker()) as hub:
            hub.subscribe("news", gaps=True)
            assert (await wait_broker_up(1))["gaps"] == 0
            redis.kill()
            await wait_broker_up(0)
            assert not hub.statistics().broker_up
            redis.start()
            assert (await wait_broker_up(1))["gaps"] == 1


async def test_hubs_with_the_same_name_are_added_up(
    collected: Collected, autojump_clock: MockClock
) -> None:
    """Others are separate."""
    broker = MemoryBroker()
    with collected.instrument():
        async with AsyncExitStack() as stack:
            for name in ("a", "a", "b"):
                hub = await stack.enter_async_context(Hub(name, broker))
                hub.on("x")(print)
            assert [hub_metrics(collected, name)["subscribers"] for name in "ab"] == [2, 1]
            assert [hub_metrics(collected, name)["broker.up"] for name in "ab"] == [1, 1]


async def test_the_metrics_end(collected: Collected, autojump_clock: MockClock) -> None:
    """With ``stop()``; a hub whose block has been cancelled is freed."""
    recording = collected.instrument()
    with trio.CancelScope() as scope:
        async with Hub() as hub:
            assert hub_metrics(collected)
            recording.stop()
            assert not hub_metrics(collected)
            scope.cancel()
            await trio.lowlevel.checkpoint()
    reference = weakref.ref(hub)
    del hub
    gc.collect()
    assert reference() is None


async def test_the_metrics_in_the_docs(collected: Collected, autojump_clock: MockClock) -> None:
    """The table lists them with their units."""
    page = (ROOT / "docs" / "telemetry.md").read_text("utf-8")
    table = re.findall(rf"^\| `{PREFIX}([a-z.]+)` \| `(\S+)` \|", page, re.MULTILINE)
    with collected.instrument():
        async with Hub():
            assert dict(table).keys() == hub_metrics(collected).keys()
            assert dict(table) == {
                name.removeprefix(PREFIX): unit
                for name, unit in collected.units().items()
                if name.startswith(PREFIX)
            }
