"""Hubs connected by a Redis server: format, other programs, authentication, TLS."""

from __future__ import annotations

import importlib
import math
import socket
import ssl
import sys
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme
from trio.testing import MockClock

from tests.pubsub.helpers import SECONDS, joined, opened, served, tls_proxy
from tests.pubsub.redis_server import RealRedis, real_redis
from tests.texts import Kind, Loud
from tests.transports.servers import server_context
from trioglock import (
    Backoff,
    BrokerError,
    BrokerUnavailable,
    InvalidOption,
    TrioglockError,
    UsageError,
    connect,
)
from trioglock.pubsub import Hub, Message, RedisBroker, publish
from trioglock.pubsub.redis.address import parse_address
from trioglock.pubsub.redis.connection import RedisTimings
from trioglock.pubsub.redis.pipeline import CommandPipeline
from trioglock.pubsub.redis.pubsub import PubSubReceiver
from trioglock.pubsub.redis.scripts import HubKeys
from trioglock.pubsub.redis.session import RedisSession


async def test_hubs_of_one_name_receive_each_others_messages(redis: RealRedis) -> None:
    """Once each, including their own."""
    async with opened(redis.broker()) as one, opened(redis.broker()) as two:
        subscriptions = [hub.subscribe("*") for hub in (one, two)]
        sent: list[str | bytes] = ["text ä", b"\xff\x00", "", "x" * 300_000]
        for data in sent:
            await one.publish(data, channel="news/local")
        await two.publish("all")
        expected = [*(Message("news/local", data) for data in sent), Message("", "all")]
        for subscription in subscriptions:
            assert [await subscription.__anext__() for _ in expected] == expected


async def test_plain_publish_reaches_a_client(redis: RealRedis) -> None:
    """``redis-cli PUBLISH trioglock/news hello``, as in sock-drawer."""
    hub = Hub(broker=redis.broker())
    async with served(hub) as url, connect(url + "news") as client:
        await joined(hub, 1)
        redis.publish_plainly("trioglock/news", b"hello")
        redis.publish_plainly("trioglock/", b"all")
        assert [await client.receive() for _ in range(2)] == ["hello", "all"]


@pytest.mark.parametrize("history", [None, 10])
async def test_fault_52_a_connected_client_gets_the_next_publish(
    redis: RealRedis, history: int | None
) -> None:
    """Of any program: the hub listens to all channels, and the client is registered."""
    hub = Hub(broker=redis.broker(history=history))
    async with served(hub) as url:
        for number in range(20):
            async with connect(f"{url}news") as client:
                redis.publish_plainly("trioglock/news", b"%d" % number)
                assert await client.receive() == str(number)


async def test_a_plain_subscriber_receives_messages_of_hubs(redis: RealRedis) -> None:
    """The Redis channel is ``<name>/<channel>``, the payload is the message."""
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


async def test_fault_06_texts_of_other_types(redis: RealRedis) -> None:
    """Names, channels and messages are sent as their characters, also by ``publish``."""
    async with opened(redis.broker(), Loud("app")) as hub:
        subscription = hub.subscribe(Kind.NEWS)
        await hub.publish(Kind.UMLAUT, channel=Loud("news"))
        options: Any = {"name": Loud("app"), "url": Loud(redis.url)}
        await trio.to_thread.run_sync(partial(publish, Loud("x"), Kind.NEWS, **options))
        assert await subscription.__anext__() == Message("news", "\u00fcber")
        assert await subscription.__anext__() == Message("news", "x")


async def test_hubs_whose_names_have_a_common_prefix(redis: RealRedis) -> None:
    """The Redis pattern matches both; each hub discards the messages of the other."""
    async with opened(redis.broker(), "app") as hub, opened(redis.broker(), "apple") as other:
        subscription, theirs = hub.subscribe("*"), other.subscribe("*")
        await other.publish("theirs", channel="x")
        redis.publish_plainly("app", b"no slash")
        redis.publish_plainly("app2/x", b"another")
        await hub.publish("ours", channel="x")
        assert await subscription.__anext__() == Message("x", "ours")
        assert await theirs.__anext__() == Message("x", "theirs")
        assert hub.statistics().received == other.statistics().received == 1


@pytest.mark.slow
async def test_more_publishers_than_pending_commands(redis: RealRedis) -> None:
    """All publish, and the messages of each stay in order."""
    async with Hub(broker=redis.broker(), max_queue=10_000) as hub:
        subscription = hub.subscribe("x")

        async def publish_some(who: int) -> None:
            for number in range(2):
                await hub.publish(f"{who} {number}", channel="x")

        with trio.fail_after(SECONDS):
            async with trio.open_nursery() as nursery:
                for who in range(1500):
                    nursery.start_soon(publish_some, who)
            seen: dict[str, list[str]] = {}
            for _ in range(1500 * 2):
                name, number = str((await subscription.__anext__()).data).split()
                seen.setdefault(name, []).append(number)
        assert set(map(tuple, seen.values())) == {tuple("01")}


async def test_a_cancelled_publish_does_not_affect_others(redis: RealRedis) -> None:
    """Its reply is not taken for that of another command."""
    async with opened(redis.broker()) as hub:
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


# publish() without trio.


async def test_publish_without_trio(redis: RealRedis) -> None:
    async with opened(redis.broker()) as hub, opened(redis.broker(), "app") as app:
        subscription, apps = hub.subscribe("*"), app.subscribe("*")

        def call() -> None:
            publish("text", channel="x", url=redis.url)
            publish(b"\xff", url=redis.url)
            publish("app", channel="y", url=redis.url, name="app", timeout=None)

        await trio.to_thread.run_sync(call)
        expected = [Message("x", "text"), Message("", b"\xff")]
        assert [await subscription.__anext__() for _ in range(2)] == expected
        assert await apps.__anext__() == Message("y", "app")


def test_errors_of_publish(unused_port: int) -> None:
    url = f"redis://127.0.0.1:{unused_port}"
    with pytest.raises(BrokerUnavailable, match="could not reach Redis"):
        publish("x", url=url, timeout=1)
    bad: list[tuple[dict[str, Any], str]] = [
        ({"url": "http://x"}, "redis://"),
        ({"channel": "/x"}, "slash"),
        ({"name": "a b"}, "name"),
        ({"timeout": 0}, "timeout"),
        ({"history": 0}, "history"),
    ]
    for arguments, message in bad:
        with pytest.raises(InvalidOption, match=message):
            publish("x", **{"url": url, **arguments})
    with pytest.raises(TrioglockError, match="str or bytes-like"):
        publish(1, url=url)  # type: ignore[arg-type]


def test_publish_asks_no_further_nodes_after_its_timeout() -> None:
    with ExitStack() as stack:
        nodes = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(4)]
        addresses = ",".join(f"127.0.0.1:{node.getsockname()[1]}" for node in nodes)
        with pytest.raises(BrokerUnavailable, match="could not find the master"):
            publish("x", url=f"redis+cluster://{addresses}", timeout=0.2)
        asked = 0
        for node in nodes:
            node.setblocking(False)
            with suppress(BlockingIOError):
                node.accept()[0].close()
                asked += 1
        assert asked == 1


async def test_waiting_for_a_subscription_is_part_of_publish_timeout(
    autojump_clock: MockClock,
) -> None:
    class PendingReceiver(PubSubReceiver):
        def is_pending(self, channel: str) -> bool:
            return True

        async def wait_pending(self, channel: str) -> None:
            await trio.sleep(6)

    address = parse_address("redis://localhost")
    timings = RedisTimings(
        open_timeout=10, publish_timeout=10, health_interval=5, health_timeout=5, backoff=Backoff()
    )
    keys = HubKeys("trioglock")
    session = RedisSession(
        CommandPipeline(address, timings, None),
        PendingReceiver(address, timings, keys, None, lambda event: False),
        keys,
        lambda channel: None,
    )
    began = trio.current_time()
    with pytest.raises(BrokerUnavailable, match="did not answer within 10 seconds"):
        await session.publish("x", "x")
    assert trio.current_time() - began == pytest.approx(10)  # on the MockClock


@pytest.mark.parametrize("timeout", [math.inf, 1e12])
def test_fault_35_a_timeout_longer_than_a_socket_allows(timeout: float, unused_port: int) -> None:
    """It is no timeout, as everywhere else, instead of an OverflowError."""
    with pytest.raises(BrokerUnavailable, match="could not reach Redis"):
        publish("x", url=f"redis://127.0.0.1:{unused_port}", timeout=timeout)


async def test_publish_raises_in_a_trio_task() -> None:
    with pytest.raises(UsageError, match=r"await hub.publish\(\)"):
        publish("x")


@pytest.fixture
def unused_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


# Authentication and addresses.


async def test_fault_11_who_uses_a_redis_url() -> None:
    """The default user or another, perhaps without a password; a wrong one is an error at once."""
    rules = ["allchannels", "+@all", "~*"]
    users = ["--requirepass", "secret", "--user", "ann", "on", ">pw", *rules]
    users += ["--user", "sam", "on", "nopass", *rules]
    with real_redis(*users) as redis, trio.fail_after(SECONDS):
        where = f"127.0.0.1:{redis.port}"
        for user in (":secret", "default:secret", "ann:pw", "sam", "sam:"):
            async with Hub(broker=RedisBroker(f"redis://{user}@{where}/2")) as hub:
                await hub.publish("x")
                await trio.to_thread.run_sync(partial(publish, "x", url=f"redis://{user}@{where}"))
        for user, code in [("", "NOAUTH"), (":wrong@", "WRONGPASS"), ("bob:pw@", "WRONGPASS")]:
            url = f"redis://{user}{where}"
            with pytest.raises(BrokerError, match=code):
                async with Hub(broker=RedisBroker(url)):
                    pass
            with pytest.raises(BrokerError):
                await trio.to_thread.run_sync(partial(publish, "x", url=url))


async def test_permissions_for_the_channels_of_one_hub() -> None:
    """They suffice without a history; the documented ones suffice with it."""
    user = "--user default on nopass resetchannels +@all -@admin -@dangerous &trioglock*"
    with real_redis(*user.split()) as redis:
        async with opened(redis.broker()) as hub:
            loop = hub.subscribe("x")
            await hub.publish("x", channel="x")
            assert (await loop.__anext__()).data == "x"
        with pytest.raises(BrokerError, match="NOPERM"):
            async with opened(redis.broker(history=5)):
                pass
    with real_redis(*user.split(), "&{trioglock}*", "~{trioglock}*") as redis:
        async with opened(redis.broker(history=5)) as hub:
            loop = hub.subscribe("x")
            await hub.publish("x", channel="x")
            assert (await loop.__anext__()).data == "x"


NO_PUBLISH = ("--user", "default", "on", "nopass", "+@all", "-publish", "allchannels")


async def test_an_error_of_redis_is_raised() -> None:
    """With the text of Redis; the hub continues."""
    with real_redis(*NO_PUBLISH) as redis:
        async with opened(redis.broker()) as hub:
            for _ in range(2):
                with pytest.raises(BrokerError, match="NOPERM"):
                    await hub.publish("x")


async def test_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "redis.sock"
    with real_redis("--unixsocket", str(path)), trio.fail_after(SECONDS):
        async with Hub(broker=RedisBroker(f"unix://{path}")) as hub:
            subscription = hub.subscribe("x")
            await hub.publish("by path", channel="x")
            assert (await subscription.__anext__()).data == "by path"


@pytest.mark.slow
async def test_tls(redis: RealRedis) -> None:
    """A certificate that is not trusted is the cause of the exception."""
    authority = trustme.CA()
    tls, mine = (ssl.create_default_context(purpose) for purpose in ssl.Purpose)
    authority.issue_cert("localhost").configure_cert(mine)
    authority.configure_trust(tls)
    with trio.fail_after(SECONDS):
        async with tls_proxy(redis.port, mine) as port:
            url = f"rediss://localhost:{port}"
            async with Hub(broker=RedisBroker(url, ssl_context=tls)) as hub:
                subscription = hub.subscribe("x")
                await hub.publish("secret", channel="x")
                assert (await subscription.__anext__()).data == "secret"
            with pytest.raises(BrokerError, match="TLS failed") as caught:
                async with Hub(broker=RedisBroker(url, open_timeout=None)):
                    pass
            assert caught.value.__cause__ is not None
            assert "CERTIFICATE_VERIFY_FAILED" in repr(chain(caught.value))


def chain(error: BaseException) -> list[BaseException]:
    return [error] if error.__cause__ is None else [error, *chain(error.__cause__)]


async def test_fault_02_only_a_verdict_of_tls_is_final() -> None:
    """A certificate that is not trusted is an error at once; an end of the network is retried."""

    async def encrypted(stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError):
            await trio.SSLStream(stream, server_context(), server_side=True).do_handshake()

    async def cut(stream: trio.SocketStream) -> None:
        await stream.receive_some(5)
        await stream.aclose()

    expected = {encrypted: (BrokerError, "TLS failed"), cut: (BrokerUnavailable, "could not reach")}
    with trio.fail_after(SECONDS):
        async with trio.open_nursery() as nursery:
            for handler, (kind, text) in expected.items():
                listen = partial(trio.serve_tcp, handler, 0, host="127.0.0.1")
                [listener] = await nursery.start(listen)
                url = f"rediss://127.0.0.1:{listener.socket.getsockname()[1]}"
                seconds = 60 if kind is BrokerError else 0.2
                with pytest.raises(kind, match=text):
                    async with Hub(broker=RedisBroker(url, open_timeout=seconds)):
                        pass
            nursery.cancel_scope.cancel()


async def test_fault_36_a_server_that_cannot_be_reached(unused_port: int) -> None:
    broker = RedisBroker(f"redis://127.0.0.1:{unused_port}", open_timeout=0.3)
    with (
        trio.fail_after(SECONDS),
        pytest.raises(BrokerUnavailable, match="could not reach Redis") as caught,
    ):
        async with Hub(broker=broker):
            pass
    assert "Connection refused; is the server running" in str(caught.value.__cause__)


async def test_a_server_that_is_not_redis() -> None:

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
            assert "does not speak the Redis protocol" in str(caught.value.__cause__)
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"url": "http://localhost"}, r"begins with redis://, .* or unix://, not http"),
        ({"url": "redis://localhost:port"}, "needs a valid host and port"),
        ({"url": "redis://" + "a" * 70}, "needs a valid host and port: 'redis://aaa"),
        ({"url": "redis://a..b"}, r"needs a valid host and port: 'redis://a\.\.b'"),
        ({"url": "unix://"}, "needs a path"),
        ({"url": "unix:///run/redis?db=-1"}, "is at least 0"),
        ({"url": "redis://localhost?ssl_cert_reqs=none"}, "ssl_context"),
        ({"url": 6379}, "must be a str"),
        ({"history": 0}, "history must be at least 1"),
        ({"open_timeout": 0}, "open_timeout"),
        ({"publish_timeout": -1}, "publish_timeout"),
        ({"health_interval": None}, "health_interval"),
        ({"health_timeout": None}, "health_timeout"),
        ({"backoff": 3}, "must be a Backoff"),
    ],
)
def test_invalid_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidOption, match=message):
        RedisBroker(**arguments)


@pytest.mark.parametrize("path", ["/x", "/-1", "/1/2", "/+1", "/1_0", "/ 1", "//1"])
def test_fault_11_the_database_of_a_redis_url(path: str) -> None:
    """Nothing else is taken for a number: redis-py would use database 0 or 12."""
    with pytest.raises(InvalidOption, match="the number of a database, such as /1"):
        RedisBroker(f"redis://localhost{path}")
    for url, db in {"": 0, "/": 0, "/3": 3, "/3/": 3, "/3?db=4": 4}.items():
        assert parse_address(f"redis://[::1]{url}").db == db


ADDRESSES = {
    "REDIS://DB.Example.:06380/3": ("db.example.", 6380),
    "redis://fa\u00df.test": ("xn--fa-hia.test", 6379),
    "redis://ann:p%40w@[2001:DB8:0::A]:1": ("2001:db8::a", 1),
    "redis://[fe80::1%25eth0]": ("fe80::1%eth0", 6379),
    "redis://:secret@": ("localhost", 6379),
    "redis://:7": ("localhost", 7),
}


@pytest.mark.parametrize(("url", "expected"), ADDRESSES.items())
async def test_fault_11_the_host_of_a_redis_server(
    url: str, expected: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is normalized like that of any other URL."""
    opened: list[object] = []

    async def open_tcp_stream(*address: object) -> None:
        await trio.lowlevel.checkpoint()
        opened.append(address)
        raise OSError

    monkeypatch.setattr(trio, "open_tcp_stream", open_tcp_stream)
    with pytest.raises(OSError):
        await parse_address(url).open_stream()
    assert opened == [expected]


def test_fault_10_publish_uses_idna_2008(monkeypatch: pytest.MonkeyPatch) -> None:
    """redis-py would encode the name by IDNA 2003."""
    asked: list[object] = []

    def getaddrinfo(host: object, *_: object) -> list[object]:
        asked.append(host)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with pytest.raises(BrokerUnavailable):
        publish("x", url="redis://fa\u00df.test", timeout=0.1)
    assert set(asked) == {"xn--fa-hia.test"}


@pytest.mark.parametrize("url", ["redis://h:0", "redis://h:99999", "redis://[1]", "redis://\u2603"])
def test_fault_11_an_invalid_host_of_a_redis_server(url: str) -> None:
    """It is refused at the call."""
    with pytest.raises(InvalidOption, match=r"host|Redis URL"):
        RedisBroker(url)


def test_passwords_are_not_shown() -> None:
    """Neither in the repr of the broker nor in those of its attributes."""
    broker = RedisBroker(
        "rediss://ann:secret@db.example:1/3", ssl_context=ssl.create_default_context()
    )
    assert repr(broker) == "<RedisBroker at db.example:1>"
    assert "secret" not in repr(vars(broker))


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package imports without it."""
    monkeypatch.setitem(sys.modules, "hiredis", None)
    importlib.import_module("trioglock.pubsub")
    for call in (RedisBroker, lambda: publish("x")):
        with pytest.raises(InvalidOption, match=r"pip install 'trioglock\[redis\]'"):
            call()
