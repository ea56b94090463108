"""Hubs that meet at a real Redis server: the wire, other programs, who is let in."""

from __future__ import annotations

import importlib
import socket
import ssl
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme

from tests.pubsub.helpers import SECONDS, joined, served
from tests.pubsub.redis_server import RealRedis, real_redis
from trioglock import (
    BrokerError,
    BrokerUnavailable,
    InvalidOption,
    TrioglockError,
    UsageError,
    connect,
)
from trioglock.pubsub import Hub, Message, RedisBroker, publish


async def test_hubs_of_two_processes_hear_each_other(redis: RealRedis) -> None:
    """Each message comes to every hub of the name once, its own included, as it was."""
    with trio.fail_after(SECONDS):
        async with Hub(broker=redis.broker()) as one, Hub(broker=redis.broker()) as two:
            subscriptions = [hub.subscribe("*") for hub in (one, two)]
            sent: list[str | bytes] = ["text ä", b"\xff\x00", "", "x" * 300_000]
            for data in sent:
                await one.publish(data, channel="news/local")
            await two.publish("all")
            expected = [*(Message("news/local", data) for data in sent), Message("", "all")]
            for subscription in subscriptions:
                assert [await subscription.__anext__() for _ in expected] == expected


async def test_plain_publish_reaches_a_browser(redis: RealRedis) -> None:
    """What ``redis-cli PUBLISH trioglock/news hello`` sends, as sock-drawer's client does."""
    hub = Hub(broker=redis.broker())
    async with served(hub) as url, connect(url + "news") as browser:
        await joined(hub, 1)
        redis.publish_plainly("trioglock/news", b"hello")
        redis.publish_plainly("trioglock/", b"all")
        assert [await browser.receive() for _ in range(2)] == ["hello", "all"]


async def test_a_plain_subscriber_sees_what_hubs_publish(redis: RealRedis) -> None:
    """The channel on the wire is ``<name>/<channel>``, the payload the message alone."""
    with trio.fail_after(SECONDS):
        stream = await trio.open_tcp_stream("127.0.0.1", redis.port)
        async with stream, Hub("app", redis.broker()) as hub:
            await stream.send_all(b"*2\r\n$10\r\nPSUBSCRIBE\r\n$1\r\n*\r\n")
            await stream.receive_some()
            await hub.publish("hello", channel="a/b")
            await hub.publish(b"\xff")
            got = b""
            while b"\xff" not in got:
                got += await stream.receive_some()
            assert b"$7\r\napp/a/b\r\n$5\r\nhello\r\n" in got
            assert b"$4\r\napp/\r\n$1\r\n\xff\r\n" in got


async def test_hubs_whose_names_begin_the_same_are_apart(redis: RealRedis) -> None:
    """The pattern lets through what is not ours; the hub does not."""
    with trio.fail_after(SECONDS):
        async with Hub("app", redis.broker()) as hub, Hub("apple", redis.broker()) as other:
            subscription, theirs = hub.subscribe("*"), other.subscribe("*")
            await other.publish("theirs", channel="x")
            redis.publish_plainly("app", b"no slash")
            redis.publish_plainly("app2/x", b"another")
            await hub.publish("ours", channel="x")
            assert await subscription.__anext__() == Message("x", "ours")
            assert await theirs.__anext__() == Message("x", "theirs")
            assert hub.statistics().received == other.statistics().received == 1


async def test_many_tasks_publish_at_a_time(redis: RealRedis) -> None:
    """More than may be under way: each has its turn, and its own messages stay in order."""
    async with Hub(broker=redis.broker(), max_queue=10_000) as hub:
        subscription = hub.subscribe("x")

        async def publish_some(who: int) -> None:
            for number in range(5):
                await hub.publish(f"{who} {number}", channel="x")

        with trio.fail_after(SECONDS):
            async with trio.open_nursery() as nursery:
                for who in range(1500):
                    nursery.start_soon(publish_some, who)
            seen: dict[str, list[str]] = {}
            for _ in range(1500 * 5):
                name, number = str((await subscription.__anext__()).data).split()
                seen.setdefault(name, []).append(number)
        assert set(map(tuple, seen.values())) == {tuple("01234")}


async def test_a_cancelled_publish_leaves_the_others_alone(redis: RealRedis) -> None:
    """The answer to it is not taken for another's."""
    with trio.fail_after(SECONDS):
        async with Hub(broker=redis.broker()) as hub:
            subscription = hub.subscribe("x")
            for number in range(20):
                with trio.CancelScope() as scope:
                    scope.cancel() if number % 2 else None
                    await hub.publish(str(number), channel="x")
            await hub.publish("last", channel="x")
            got = [(await subscription.__anext__()).data]
            while got[-1] != "last":
                got.append((await subscription.__anext__()).data)
            assert set(got) >= {*map(str, range(0, 20, 2)), "last"}


# Programs without trio.


async def test_publish_without_trio(redis: RealRedis) -> None:
    """A plain call, from any thread; with the hub's name, and to everyone."""
    with trio.fail_after(SECONDS):
        async with Hub(broker=redis.broker()) as hub, Hub("app", redis.broker()) as app:
            subscription, apps = hub.subscribe("*"), app.subscribe("*")

            def program() -> None:
                publish("text", channel="x", url=redis.url)
                publish(b"\xff", url=redis.url)
                publish("app", channel="y", url=redis.url, name="app", timeout=None)

            await trio.to_thread.run_sync(program)
            expected = [Message("x", "text"), Message("", b"\xff")]
            assert [await subscription.__anext__() for _ in range(2)] == expected
            assert await apps.__anext__() == Message("y", "app")


def test_publish_says_what_is_wrong(redis_port_of_nobody: int) -> None:
    """Nobody there, or arguments that do not fit."""
    url = f"redis://127.0.0.1:{redis_port_of_nobody}"
    with pytest.raises(BrokerUnavailable, match="not reached"):
        publish("x", url=url, timeout=1)
    bad: list[tuple[dict[str, Any], str]] = [
        ({"url": "http://x"}, "redis://"),
        ({"channel": "/x"}, "slash"),
        ({"name": "a b"}, "name"),
        ({"timeout": 0}, "timeout"),
        ({"history": 0}, "history"),
    ]
    for arguments, complaint in bad:
        with pytest.raises(InvalidOption, match=complaint):
            publish("x", **{"url": url, **arguments})
    with pytest.raises(TrioglockError, match="str or bytes-like"):
        publish(1, url=url)  # type: ignore[arg-type]


async def test_publish_refuses_to_block_trio() -> None:
    """It says what to use instead."""
    with pytest.raises(UsageError, match=r"await hub.publish\(\)"):
        publish("x")


@pytest.fixture
def redis_port_of_nobody() -> int:
    """A port on which nothing listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


# Who is let in, and how.


async def test_a_password(tmp_path: Path) -> None:
    """In the URL, for the default user and for one of one's own; a wrong one is refused at once."""
    users = ["--requirepass", "secret", "--user", "ann", "on", ">pw", "allchannels", "+@all", "~*"]
    with real_redis(*users) as redis, trio.fail_after(SECONDS):
        where = f"127.0.0.1:{redis.port}"
        for user in (":secret", "default:secret", "ann:pw"):
            async with Hub(broker=RedisBroker(f"redis://{user}@{where}/2")) as hub:
                await hub.publish("x")
                await trio.to_thread.run_sync(partial(publish, "x", url=f"redis://{user}@{where}"))
        for user, complaint in [("", "NOAUTH"), (":wrong@", "WRONGPASS"), ("bob:pw@", "WRONGPASS")]:
            url = f"redis://{user}{where}"
            with pytest.raises(BrokerError, match=complaint):
                async with Hub(broker=RedisBroker(url)):
                    pass
            with pytest.raises(BrokerError):
                await trio.to_thread.run_sync(partial(publish, "x", url=url))


NO_PUBLISH = ("--user", "default", "on", "nopass", "+@all", "-publish", "allchannels")


async def test_what_redis_refuses_is_raised() -> None:
    """The publisher is told Redis's own words, and the hub goes on."""
    with real_redis(
        *["--user", "default", "on", "nopass", "+@all", "-publish", "allchannels"]
    ) as redis:
        with trio.fail_after(SECONDS):
            async with Hub(broker=redis.broker()) as hub:
                for _ in range(2):
                    with pytest.raises(BrokerError, match="NOPERM"):
                        await hub.publish("x")


async def test_a_unix_socket(tmp_path: Path) -> None:
    """``unix:///path``."""
    path = tmp_path / "redis.sock"
    with real_redis("--unixsocket", str(path)), trio.fail_after(SECONDS):
        async with Hub(broker=RedisBroker(f"unix://{path}")) as hub:
            subscription = hub.subscribe("x")
            await hub.publish("by path", channel="x")
            assert (await subscription.__anext__()).data == "by path"


async def test_tls(redis: RealRedis) -> None:
    """``rediss://``, with a certificate that is trusted; one that is not is told."""
    authority = trustme.CA()
    tls, mine = (ssl.create_default_context(purpose) for purpose in ssl.Purpose)
    authority.issue_cert("localhost").configure_cert(mine)
    authority.configure_trust(tls)

    async def decrypt(near: trio.SSLStream[trio.SocketStream]) -> None:
        far = await trio.open_tcp_stream("127.0.0.1", redis.port)
        async with near, far, trio.open_nursery() as nursery:
            nursery.start_soon(pump, near, far)
            await pump(far, near)
            nursery.cancel_scope.cancel()

    async def pump(here: trio.abc.Stream, there: trio.abc.Stream) -> None:
        with suppress(trio.BrokenResourceError):
            while data := await here.receive_some():
                await there.send_all(data)

    [listener] = await trio.open_ssl_over_tcp_listeners(0, mine, host="127.0.0.1")
    url = f"rediss://localhost:{listener.transport_listener.socket.getsockname()[1]}"  # type: ignore[attr-defined]
    with trio.fail_after(SECONDS):
        async with trio.open_nursery() as nursery:
            await nursery.start(trio.serve_listeners, decrypt, [listener])
            async with Hub(broker=RedisBroker(url, ssl_context=tls)) as hub:
                subscription = hub.subscribe("x")
                await hub.publish("secret", channel="x")
                assert (await subscription.__anext__()).data == "secret"
            with pytest.raises(BrokerUnavailable) as caught:
                async with Hub(broker=RedisBroker(url, open_timeout=0.5)):
                    pass
            assert caught.value.__cause__ is not None
            assert "CERTIFICATE_VERIFY_FAILED" in repr(chain(caught.value))
            nursery.cancel_scope.cancel()


def chain(error: BaseException) -> list[BaseException]:
    """An exception and its causes."""
    return [error] if error.__cause__ is None else [error, *chain(error.__cause__)]


async def test_nobody_there(redis_port_of_nobody: int) -> None:
    """Entering the block waits for Redis, for a while, and says in the end where it was not."""
    broker = RedisBroker(f"redis://127.0.0.1:{redis_port_of_nobody}", open_timeout=0.3)
    with (
        trio.fail_after(SECONDS),
        pytest.raises(BrokerUnavailable, match="was not reached") as caught,
    ):
        async with Hub(broker=broker):
            pass
    assert "no connection" in str(caught.value.__cause__)


async def test_a_server_that_is_no_redis() -> None:
    """It is told apart, whatever it says."""

    async def web_server(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    with trio.fail_after(SECONDS):
        async with trio.open_nursery() as nursery:
            await nursery.start(trio.serve_listeners, web_server, [listener])
            url = f"redis://127.0.0.1:{listener.socket.getsockname()[1]}"
            with pytest.raises(BrokerUnavailable) as caught:
                async with Hub(broker=RedisBroker(url, open_timeout=0.3)):
                    pass
            assert "that is not Redis" in str(caught.value.__cause__)
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"url": "http://localhost"}, "begins with redis://, rediss:// or unix://, not http"),
        ({"url": "redis://localhost:port"}, "not a Redis URL"),
        ({"url": "redis://" + "a" * 70}, "names a host, not 'aaa"),
        ({"url": "redis://a..b"}, r"names a host, not 'a\.\.b'"),
        ({"url": "unix://"}, "names a path"),
        ({"url": "redis://localhost?ssl_cert_reqs=none"}, "ssl_context"),
        ({"url": 6379}, "is a str"),
        ({"history": 0}, "history must be at least 1"),
        ({"open_timeout": 0}, "open_timeout"),
        ({"publish_timeout": -1}, "publish_timeout"),
        ({"health_interval": None}, "health_interval"),
        ({"health_timeout": None}, "health_timeout"),
        ({"backoff": 3}, "backoff must be a Backoff"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], complaint: str) -> None:
    """Each is refused at once, with what is allowed."""
    with pytest.raises(InvalidOption, match=complaint):
        RedisBroker(**arguments)


def test_passwords_are_not_shown() -> None:
    """Neither by the broker nor by what it is made of."""
    broker = RedisBroker(
        "rediss://ann:secret@db.example:1/3", ssl_context=ssl.create_default_context()
    )
    assert repr(broker) == "<RedisBroker at db.example:1>"
    assert "secret" not in repr(vars(broker))


def test_the_extra_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package imports without it; what needs it says what to install."""
    monkeypatch.setitem(sys.modules, "hiredis", None)
    importlib.import_module("trioglock.pubsub")
    for call in (RedisBroker, lambda: publish("x")):
        with pytest.raises(InvalidOption, match=r"pip install 'trioglock\[redis\]'"):
            call()
