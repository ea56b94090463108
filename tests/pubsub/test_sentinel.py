"""Redis Sentinel: failovers under load, URLs, passwords, errors."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme

from tests.pubsub.failover_load import loaded
from tests.pubsub.helpers import expect_both, opened, read, tls_proxy
from tests.pubsub.redis_sentinel import RealSentinels, real_sentinel, real_sentinels
from tests.pubsub.redis_server import RealRedis, find_port, real_redis
from trioglock import BrokerError, BrokerUnavailable, InvalidOption
from trioglock.cli import main
from trioglock.pubsub import RedisBroker, publish

pytestmark = pytest.mark.redis


@pytest.fixture
def sentinels(tmp_path: Path) -> Iterator[RealSentinels]:
    """A master, its replica and three sentinels."""
    with real_sentinels(tmp_path) as group:
        yield group


@pytest.mark.slow
@pytest.mark.parametrize("failure", ["killed", "frozen", "demoted"])
async def test_a_failover_under_load(sentinels: RealSentinels, failure: str) -> None:
    """Publishing continues, and each subscriber receives each message, or a gap in its place."""
    async with loaded(sentinels.url) as loads:
        if failure != "demoted":
            sentinels.set_down_after(1000)
        old, new = sentinels.roles()
        match failure:
            case "killed":
                old.kill()
            case "frozen":
                old.freeze()
            case "demoted":
                reply = sentinels.sentinels[0].ask("SENTINEL FAILOVER mymaster")
                assert reply.startswith(("+OK", "-INPROG")), reply
        while not await trio.to_thread.run_sync(sentinels.is_master, new):
            await trio.sleep(0.1)
        for load in loads:
            await load.wait_published(1)
            await load.add_hub()
        if failure == "frozen":
            old.thaw()
        for load in loads:
            await load.wait_published(20)


def sentinel_url(*ports: int, path: str = "/mymaster") -> str:
    return f"redis+sentinel://{','.join(f'127.0.0.1:{port}' for port in ports)}{path}"


@pytest.mark.slow
async def test_sentinels_are_asked_in_turn(tmp_path: Path, redis: RealRedis) -> None:
    """The first one is silent, the second one absent, and the third one knows the master."""
    silent = real_redis()
    with silent as frozen, real_sentinel(tmp_path, redis.port) as sentinel:
        frozen.freeze()
        url = sentinel_url(frozen.port, find_port(), sentinel.port, path="/mymaster/0")
        async with opened(RedisBroker(url, history=10)) as hub:
            loop = hub.subscribe("x")
            await hub.publish("one", channel="x")
            await trio.to_thread.run_sync(partial(publish, "two", "x", url=url, history=10))
            assert await read(loop, 2) == ["one", "two"]


@pytest.mark.slow
async def test_a_sentinel_that_is_cut_off_is_not_believed(tmp_path: Path, redis: RealRedis) -> None:
    """It reports a master that is gone, and another sentinel reports the present one."""
    with (
        real_sentinel(tmp_path, find_port()) as wrong,
        real_sentinel(tmp_path, redis.port) as right,
    ):
        url = sentinel_url(wrong.port, right.port)
        async with opened(RedisBroker(url)) as hub:
            loop = hub.subscribe("x")
            for number in range(20):
                await hub.publish(str(number), channel="x")
                await trio.sleep(0.02)
            await trio.to_thread.run_sync(partial(publish, "program", "x", url=url))
            while await read(loop, 1) != ["program"]:
                pass


async def test_the_command_accepts_sentinels(tmp_path: Path, redis: RealRedis, capsys: Any) -> None:
    with real_sentinel(tmp_path, redis.port) as sentinel:
        url = sentinel_url(sentinel.port)
        async with opened(redis.broker()) as hub:
            loop = hub.subscribe("x")
            command = ["publish", "x", "hello", "--redis", url]
            assert await trio.to_thread.run_sync(main, command) == 0
            assert await read(loop, 1) == ["hello"]
    assert capsys.readouterr().out == "published on x\n"


@pytest.mark.slow
async def test_no_sentinel_can_be_reached() -> None:
    for text in await expect_both(BrokerUnavailable, sentinel_url(find_port(), find_port())):
        assert "mymaster" in text
        assert text.count("refused") >= 2


async def test_an_unknown_master(tmp_path: Path, redis: RealRedis) -> None:
    with real_sentinel(tmp_path, redis.port) as sentinel:
        url = sentinel_url(sentinel.port, path="/other")
        for text in await expect_both(BrokerError, url):
            assert f"{sentinel.port}: it knows no master named 'other'" in text


async def test_a_server_that_is_not_a_sentinel(redis: RealRedis) -> None:
    for text in await expect_both(BrokerError, sentinel_url(redis.port)):
        assert f"127.0.0.1:{redis.port} is not a Redis Sentinel" in text


async def test_passwords_of_sentinels_and_of_the_master(tmp_path: Path) -> None:
    """They are independent, and no error contains them."""
    options = ("requirepass s/ntinel", "sentinel auth-pass mymaster m@ster")
    with (
        real_redis("--requirepass", "m@ster") as redis,
        real_sentinel(tmp_path, redis.port, *options) as sentinel,
    ):
        host = f"127.0.0.1:{sentinel.port}/mymaster"
        password = "sentinel_password=s%2Fntinel"
        right = f"redis+sentinel://:m%40ster@{host}?{password}&sentinel_username=default"
        async with opened(RedisBroker(right)) as hub:
            loop = hub.subscribe("x")
            await trio.to_thread.run_sync(partial(publish, "one", "x", url=right))
            assert await read(loop, 1) == ["one"]
        for wrong, expected in {
            f":m%40ster@{host}": "add ?sentinel_password=... to the URL",
            f":m%40ster@{host}?sentinel_password=guess": "invalid username-password pair",
            f"{host}?{password}": "uthenticat",
            f"nobody:guess@{host}?{password}": "invalid username-password pair",
        }.items():
            for text in await expect_both(BrokerError, f"redis+sentinel://{wrong}"):
                assert expected in text
                assert not any(secret in text for secret in ("s/ntinel", "m@ster", "guess"))


@pytest.mark.slow
async def test_tls(tmp_path: Path, redis: RealRedis) -> None:
    """To the sentinels and to the master."""
    authority = trustme.CA()
    tls, mine = (ssl.create_default_context(purpose) for purpose in ssl.Purpose)
    authority.issue_cert("127.0.0.1").configure_cert(mine)
    authority.configure_trust(tls)
    async with tls_proxy(redis.port, mine) as port:
        with real_sentinel(tmp_path, port) as sentinel:
            async with tls_proxy(sentinel.port, mine) as sentinel_port:
                url = sentinel_url(sentinel_port).replace("redis+", "rediss+")
                async with opened(RedisBroker(url, ssl_context=tls)) as hub:
                    loop = hub.subscribe("x")
                    await hub.publish("secret", channel="x")
                    assert await read(loop, 1) == ["secret"]


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("redis+sentinel://h", "is the name of the master"),
        ("redis+sentinel://h/mymaster/x", "is the name of the master"),
        ("redis+sentinel://h:port/mymaster", "valid hosts and ports"),
        ("redis+sentinel://a..b,h/mymaster", "valid hosts and ports"),
        ("redis+sentinel://h/mymaster?sentinel_username=u", "requires sentinel_password"),
        ("redis+sentinel://h/mymaster?timeout=1", "takes no parameter 'timeout'"),
        ("redis-sentinel://h/mymaster", r"begins with .*redis\+sentinel://"),
        ("unix+sentinel://h/mymaster", "begins with"),
    ],
)
def test_invalid_urls(url: str, message: str) -> None:
    with pytest.raises(InvalidOption, match=message):
        RedisBroker(url)
    with pytest.raises(InvalidOption, match=message):
        publish("x", url=url)


def test_the_address_in_the_repr() -> None:
    broker = RedisBroker(
        "redis+sentinel://u:secret@One.test,[::1]:5/my%20master/2?sentinel_password=p"
    )
    assert repr(broker) == "<RedisBroker at my master (Sentinel at one.test:26379, [::1]:5)>"
