"""Subscriptions that Redis refuses, and those that change while a hub subscribes again."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import trio

from tests.pubsub.helpers import opened, read
from tests.pubsub.redis_server import RealRedis, real_redis
from trioglock import BrokerError
from trioglock.pubsub import Hub
from trioglock.pubsub.patterns import ChannelFilter
from trioglock.pubsub.redis.interest import BROADCASTS, MAX_LOGGED, Interest
from trioglock.pubsub.redis.scripts import HubKeys

pytestmark = pytest.mark.redis

RULES = (
    "--user default on nopass resetchannels +@all ~{trioglock}* "
    "&trioglock/ &trioglock/news &{trioglock}/ &{trioglock}/news"
)
"""The options of a server that permits broadcasts and one channel."""


async def interrupted(hub: Hub) -> Any:
    """Interrupt the connection of a hub, and return its receiver."""
    receiver: Any = hub._session._receiver  # type: ignore[union-attr]
    receiver.drop("on purpose")
    while receiver.is_up:
        await trio.sleep(0)
    return receiver


@pytest.mark.parametrize("history", [None, 10])
async def test_a_refused_channel_does_not_affect_the_next_connection(history: int | None) -> None:
    """Though it still has a subscriber, and the first command contains all channels."""
    with real_redis(*RULES.split()) as redis:
        async with opened(redis.broker(history=history)) as hub:
            news, secret = hub.subscribe("news"), hub.subscribe("secret")
            await news.ready()
            with pytest.raises(BrokerError, match="NOPERM"):
                await secret.ready()
            await interrupted(hub)
            await news.ready()
            with pytest.raises(BrokerError, match="NOPERM"):
                await secret.ready()
            await hub.publish("text", channel="news")
            assert await read(news, 1) == ["text"]


@pytest.mark.parametrize("history", [None, 10])
async def test_a_hub_reconnects_while_subscriptions_change(
    redis: RealRedis, history: int | None
) -> None:
    async with (
        opened(redis.broker(history=history)) as hub,
        trio.open_nursery() as nursery,
    ):

        async def change() -> None:
            number = 0
            while True:
                number += 1
                with hub.subscribe(f"x{number}"):
                    await trio.sleep(0)

        nursery.start_soon(change)
        always = hub.subscribe("always")
        await always.ready()
        await interrupted(hub)
        await always.ready()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("history", [None, 10])
async def test_a_channel_added_during_the_catch_up_waits_for_its_confirmation(
    redis: RealRedis, history: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One added before the hub subscribes again need not wait: missed messages or a gap follow."""
    async with opened(redis.broker(history=history)) as hub:
        receiver = await interrupted(hub)
        early = hub.subscribe("early")
        assert hub.is_subscribed("early")
        catch_up, reached, release = receiver._catch_up, trio.Event(), trio.Event()

        async def slow_catch_up() -> None:
            await catch_up()
            reached.set()
            await release.wait()

        monkeypatch.setattr(receiver, "_catch_up", slow_catch_up)
        await reached.wait()
        late = hub.subscribe("late")
        assert hub.is_subscribed("early")
        assert not hub.is_subscribed("late")
        release.set()
        await late.ready()
        assert hub.is_subscribed("late")
        for channel in ("early", "late"):
            redis.publish_plainly(f"trioglock/{channel}", channel.encode())
        assert await read(early, 1) == ["early"]
        assert await read(late, 1) == ["late"]


async def test_refused_channels_use_no_memory_when_their_subscribers_have_left() -> None:
    with real_redis(*RULES.split()) as redis:
        async with opened(redis.broker()) as hub:
            for number in range(10):
                for name in (f"secret{number}", f"secret{number}*"):
                    with (
                        hub.subscribe(name) as subscription,
                        pytest.raises(BrokerError, match="NOPERM"),
                    ):
                        await subscription.ready()
            interest = hub._session._receiver._interest  # type: ignore[union-attr]
            states = [state for state in vars(interest).values() if isinstance(state, (set, dict))]
            kept = {key for state in states for key in state if isinstance(key, tuple)}
            assert kept - interest._logged == {BROADCASTS}


def test_a_channel_that_returns_after_a_refusal_is_subscribed() -> None:
    """Redis has refused the whole command because of another channel."""
    interest, a = Interest(HubKeys("hub"), has_history=False), ChannelFilter("a")
    for name in ("a", "secret"):
        interest.add(ChannelFilter(name))
    list(interest.next_batch())
    interest.confirm(b"subscribe", b"hub/")
    interest.remove(a)
    interest.end_batch(BrokerError("NOPERM"))
    interest.add(a)
    assert any("hub/a" in command for command in interest.next_batch())


async def test_clients_cannot_fill_the_log_with_refused_channels(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with real_redis(*RULES.split()) as redis:
        async with opened(redis.broker()) as hub:
            for number in (*range(MAX_LOGGED + 10), 0):
                with (
                    hub.subscribe(f"secret{number}") as subscription,
                    pytest.raises(BrokerError, match="NOPERM"),
                ):
                    await subscription.ready()
            assert len(caplog.messages) == MAX_LOGGED


async def test_a_refused_channel_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """Without `ready()`, nobody would notice otherwise."""
    with real_redis(*RULES.split()) as redis:
        async with opened(redis.broker()) as hub:
            hub.on("secret")(print)
            with (
                caplog.at_level(logging.WARNING, "trioglock.pubsub"),
                hub.subscribe("secret*"),
                hub.subscribe("news"),
            ):
                while len(caplog.messages) < 2:
                    await trio.sleep(0.001)
            channel, pattern = sorted(caplog.messages)
            assert channel.startswith("Redis refused to subscribe to the channel 'secret': NOPERM")
            assert pattern.startswith("Redis refused to subscribe to the pattern 'secret*': NOPERM")
