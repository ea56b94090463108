"""Broadcasts and disconnects of programs without trio, through Redis."""

from __future__ import annotations

import socket
from functools import partial
from typing import Any

import pytest
import trio

from tests.channels.helpers import serving_channels
from tests.pubsub.redis_server import RealRedis
from trioglock import BrokerUnavailable, EncodeError, InvalidOption, UsageError
from trioglock.channels import Channel, History, broadcast, disconnect
from trioglock.protocols.phoenix import InvalidMessage
from trioglock.pubsub import Hub, RedisBroker


class Room(Channel[None]):
    """Has no events of its own."""


class Chat(Channel[None]):
    """Keeps its events."""

    history = History(size=2)


@pytest.mark.slow
async def test_a_thread_broadcasts_to_the_clients_of_a_server_and_disconnects_one(
    redis: RealRedis,
) -> None:
    async with (
        serving_channels(
            Room, hub=Hub("app", RedisBroker(redis.url)), id=lambda user: "user:1"
        ) as site,
        site.dial() as raw,
    ):
        await raw.join()
        publish = partial(broadcast, name="app", url=redis.url)
        await trio.to_thread.run_sync(publish, "room:1", "shout", {"text": "hi"})
        await trio.to_thread.run_sync(publish, "room:1", "picture", b"\xff")
        assert await raw.raw() == '[null,null,"room:1","shout",{"text":"hi"}]'
        assert await raw.raw() == b"\x02\x06\x07room:1picture\xff"
        await trio.to_thread.run_sync(partial(disconnect, "user:1", name="app", url=redis.url))
        assert [frame async for frame in raw.connection] == []
        assert raw.connection.close_code == 1001


@pytest.mark.slow
async def test_a_broadcast_is_kept_in_the_history_of_the_channel_class(redis: RealRedis) -> None:
    routes: dict[str, type[Channel[Any]]] = {"chat:*": Chat}
    async with (
        serving_channels(routes, hub=Hub(broker=RedisBroker(redis.url))) as site,
        site.dial() as raw,
    ):
        for number in range(3):
            call = partial(broadcast, url=redis.url, history=Chat.history)
            await trio.to_thread.run_sync(call, "chat:1", "said", {"n": number})
        await raw.send("1", "1", "chat:1", "phx_join", {"after": 0})
        assert (await raw.receive())[4] == {"response": {}, "status": "ok"}
        assert [(await raw.receive())[4]["n"] for _ in range(2)] == [1, 2]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("", "shout", {}), InvalidOption),
        (("room:1", "phx_join", {}), InvalidOption),
        (("room:1", "shout", object()), EncodeError),
        (("x" * 256, "shout", b""), InvalidMessage),
    ],
)
def test_what_cannot_be_sent_is_refused_before_redis_is_contacted(
    arguments: Any, error: type[Exception]
) -> None:
    with pytest.raises(error):
        broadcast(*arguments, url="not a URL")


def test_the_history_is_that_of_the_channel_class() -> None:
    with pytest.raises(InvalidOption, match=r"such as Room\.history, not 100"):
        broadcast("room:1", "shout", {}, history=100)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "call", [partial(broadcast, "room:1", "shout", {}), partial(disconnect, "user:1")]
)
def test_without_redis_both_raise_as_publish_does(call: Any) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        with pytest.raises(BrokerUnavailable, match="could not reach Redis"):
            call(url=f"redis://127.0.0.1:{free.getsockname()[1]}", timeout=1)
    with pytest.raises(InvalidOption, match="redis://"):
        call(url="http://x")
    with pytest.raises(InvalidOption, match="name"):
        call(name="a b")


def test_an_id_is_a_str() -> None:
    with pytest.raises(InvalidOption, match="id must be a str"):
        disconnect(1)  # type: ignore[arg-type]


async def test_in_a_trio_task_both_name_the_method_to_use() -> None:
    with pytest.raises(UsageError, match=r"await channels\.broadcast\(\)"):
        broadcast("room:1", "shout", {})
    with pytest.raises(UsageError, match=r"await channels\.disconnect\(\)"):
        disconnect("user:1")
