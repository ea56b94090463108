"""conn.subscribe(): the memory transport, and real sockets with cuts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from trioglock import (
    Backoff,
    BadHookResult,
    Close,
    ConnectionClosed,
    ConnectionInfo,
    ConnectOptions,
    Gap,
    InvalidOption,
    MemoryTransport,
    Rate,
    Reply,
    SlowConsumer,
    Socket,
    SubscriptionRefused,
    SubscriptionTimeout,
    UsageError,
    connect,
)
from trioglock.protocols.jsonrpc import Peer
from trioglock.routing import EventSocket

from .feeds import CODEC, Feed, FeedServer, SilentFeed

NO_DELAY = Backoff(initial=1, jitter="none", max_attempts=None)


def options(transport: MemoryTransport, feed: Any = None, **more: Any) -> ConnectOptions:
    base: dict[str, Any] = {
        "transport": transport,
        "codec": CODEC,
        "subscriptions": Feed() if feed is None else feed,
        "reconnect": NO_DELAY,
        "ping_interval": None,
    }
    return {**base, **more}  # type: ignore[typeddict-item]


async def test_updates_until_the_end(autojump_clock: MockClock) -> None:
    """Updates go to the loop, other messages to receive(); leaving unsubscribes."""
    transport = MemoryTransport()
    async with connect("ws://feed/", **options(transport)) as conn, trio.open_nursery() as nursery:
        server = await FeedServer.accept(transport)
        nursery.start_soon(server.confirm, "a")
        async with conn.subscribe("a") as updates:
            assert updates.keys == ("a",)
            await server.send({"key": "a", "n": 1}, {"key": "b"}, {"key": "a", "n": 2}, {"x": 1})
            assert [await anext(updates), await anext(updates)] == [
                {"key": "a", "n": 1},
                {"key": "a", "n": 2},
            ]
            assert len(updates) == 0
            assert [await conn.receive(), await conn.receive()] == [{"key": "b"}, {"x": 1}]
        assert await server.receive() == {"unsubscribe": ["a"]}
        # Late updates of a key that was left are dropped.
        await server.send({"key": "a", "n": 3}, {"unsubscribed": ["a"]}, {"key": "a"}, {"x": 2})
        assert await conn.receive() == {"x": 2}
        conn.abort()


async def test_tasks_share_a_subscription(autojump_clock: MockClock) -> None:
    """One message subscribes the keys of all tasks; the last one to leave unsubscribes."""
    transport = MemoryTransport()
    got: list[Any] = []
    leave = trio.Event()

    async def consume(conn: Any, key: str) -> None:
        async with conn.subscribe(key) as updates:
            got.append(await anext(updates))
            await leave.wait()

    async with connect("ws://feed/", **options(transport)) as conn:
        server = await FeedServer.accept(transport)
        async with trio.open_nursery() as nursery:
            for key in ("a", "b", "a", "a"):
                nursery.start_soon(consume, conn, key)
            request = await server.receive()
            assert set(request["subscribe"]) == {"a", "b"}
            await server.send({"subscribed": ["a"]}, {"key": "a"}, {"subscribed": ["b"]})
            await server.send({"key": "b"})
            await trio.sleep(1)
            assert sorted(message["key"] for message in got) == ["a", "a", "a", "b"]
            leave.set()
        request = await server.receive()
        assert set(request["unsubscribe"]) == {"a", "b"}
        conn.abort()


async def test_replay_after_a_loss(autojump_clock: MockClock) -> None:
    """All keys come first on the new link, in batches; each consumer gets a gap."""

    class Batched(Feed):
        batch = 2

    transport, feed = MemoryTransport(), Batched()
    async with (
        connect("ws://feed/", **options(transport, feed)) as conn,
        trio.open_nursery() as nursery,
    ):
        server = await FeedServer.accept(transport)

        async def confirm() -> None:
            await server.confirm("a", "b")
            await server.confirm("c")

        nursery.start_soon(confirm)
        async with conn.subscribe("a", "b", "c") as updates:
            await server.send({"key": "a", "n": 1})
            await server.link.aclose()
            await trio.sleep(0.5)
            await conn.send({"queued": True})
            server = await FeedServer.accept(transport)
            assert await server.receive() == {"subscribe": ["a", "b"]}
            assert await server.receive() == {"subscribe": ["c"]}
            assert await server.receive() == {"queued": True}
            await trio.sleep(2)
            await server.send({"key": "b", "n": 7}, {"subscribed": ["a", "b", "c"]})
            assert await anext(updates) == {"key": "a", "n": 1}
            assert await anext(updates) == Gap(3.0, channel="b")
            assert await anext(updates) == {"key": "b", "n": 7}
            assert await anext(updates) == Gap(3.0)  # of a and c
            assert feed.resets == 2
        assert await server.receive() == {"unsubscribe": ["a", "b"]}
        assert await server.receive() == {"unsubscribe": ["c"]}
        conn.abort()


async def test_a_loss_before_all_keys_are_active(autojump_clock: MockClock) -> None:
    """The block is entered once all keys are active on the same link."""
    transport = MemoryTransport()
    async with connect("ws://feed/", **options(transport)) as conn, trio.open_nursery() as nursery:
        server = await FeedServer.accept(transport)

        async def lose_link() -> None:
            nonlocal server
            assert await server.receive() == {"subscribe": ["a", "b"]}
            await server.send({"subscribed": ["a"]})
            await trio.sleep(1)
            await server.link.aclose()
            server = await FeedServer.accept(transport)
            assert await server.receive() == {"subscribe": ["a", "b"]}
            await server.send({"subscribed": ["b"]})
            await trio.sleep(1)
            await server.send({"key": "a"}, {"subscribed": ["a"]})

        nursery.start_soon(lose_link)
        async with conn.subscribe("a", "b") as updates:
            assert trio.current_time() == 3
            assert await anext(updates) == {"key": "a"}
        conn.abort()


async def test_requests_of_a_lost_link_are_not_sent_again(autojump_clock: MockClock) -> None:
    """A request that waits in the send queue belongs to its link."""
    transport = MemoryTransport()
    async with connect("ws://feed/", **options(transport)) as conn:
        server = await FeedServer.accept(transport)
        session = conn._session
        session.writer.cork()
        async with trio.open_nursery() as nursery:

            async def consume() -> None:
                async with conn.subscribe("a"):
                    pass

            nursery.start_soon(consume)
            await trio.testing.wait_all_tasks_blocked()
            await conn.send({"n": 1})
            flushed = trio.Event()

            async def flush() -> None:
                await conn.flush()
                flushed.set()

            nursery.start_soon(flush)
            await trio.testing.wait_all_tasks_blocked()
            assert len(session.send_queue) == 2
            assert session.send_queue.size == 26
            await server.link.aclose()
            server = await FeedServer.accept(transport)
            await server.confirm("a")
            assert await server.receive() == {"n": 1}
            await flushed.wait()
            assert session.send_queue.size == 0
            assert await server.receive() == {"unsubscribe": ["a"]}
        conn.abort()


async def test_discarding_keeps_requests(autojump_clock: MockClock) -> None:
    transport = MemoryTransport()
    async with (
        connect("ws://feed/", **options(transport)) as conn,
        trio.open_nursery() as nursery,
    ):
        server = await FeedServer.accept(transport)
        writer = conn._session.writer
        writer.cork()

        async def discard() -> None:
            await conn.send({"n": 1})
            await trio.sleep(1)
            assert conn.discard_unsent() == ('{"n":1}',)
            writer.uncork()
            await server.confirm("a")

        nursery.start_soon(discard)
        async with conn.subscribe("a"):
            conn.abort()


async def test_refusal_and_timeout(autojump_clock: MockClock) -> None:
    """subscribe() raises; the keys of the same call are unsubscribed."""
    transport = MemoryTransport()
    async with connect("ws://feed/", **options(transport)) as conn, trio.open_nursery() as nursery:
        server = await FeedServer.accept(transport)

        async def refuse() -> None:
            assert await server.receive() == {"subscribe": ["a", "b"]}
            await server.send({"subscribed": ["a"]}, {"refused": ["b"], "code": 403})

        nursery.start_soon(refuse)
        with pytest.raises(
            SubscriptionRefused, match=r"refused the subscription to 'b'.*403"
        ) as no:
            async with conn.subscribe("a", "b"):
                raise AssertionError
        assert (no.value.key, no.value.message["code"], no.value.ended) == ("b", 403, False)
        assert await server.receive() == {"unsubscribe": ["a"]}
        began = trio.current_time()
        with pytest.raises(SubscriptionTimeout, match="'c' within 10 seconds"):
            async with conn.subscribe("c"):
                raise AssertionError
        assert trio.current_time() == began + 10
        assert await server.receive() == {"subscribe": ["c"]}
        assert await server.receive() == {"unsubscribe": ["c"]}
        conn.abort()


async def test_refusal_and_timeout_after_a_reconnect(autojump_clock: MockClock) -> None:
    """The loop raises, after the updates that came before."""
    transport = MemoryTransport()
    async with connect("ws://feed/", **options(transport)) as conn, trio.open_nursery() as nursery:
        server = await FeedServer.accept(transport)
        nursery.start_soon(server.confirm, "a")
        async with conn.subscribe("a") as refused:
            nursery.start_soon(server.confirm, "b")
            async with conn.subscribe("b") as late:
                await server.send({"key": "a"})
                await server.link.aclose()
                server = await FeedServer.accept(transport)
                assert await server.receive() == {"subscribe": ["a", "b"]}
                await server.send({"refused": ["a"]})
                assert await anext(refused) == {"key": "a"}
                for _ in range(2):
                    with pytest.raises(
                        SubscriptionRefused, match="refused the subscription to 'a'"
                    ):
                        await anext(refused)
                with pytest.raises(SubscriptionTimeout):
                    await anext(late)
        conn.abort()


async def test_the_server_ends_a_subscription(autojump_clock: MockClock) -> None:
    transport = MemoryTransport()
    async with connect("ws://feed/", **options(transport)) as conn, trio.open_nursery() as nursery:
        server = await FeedServer.accept(transport)
        nursery.start_soon(server.confirm, "a")
        async with conn.subscribe("a") as updates:
            await server.send({"unsubscribed": ["a"], "why": "delisted"})
            with pytest.raises(SubscriptionRefused, match="has ended the subscription to 'a'"):
                await anext(updates)
        conn.abort()


class Login(Feed):
    """A feed that requires a confirmed login."""

    def is_ready(self, message: Any) -> bool:
        return bool(message == {"login": "ok"})


class LoginSocket(Socket[None]):
    def handle_receive(self, frame: Any, state: None) -> Any:
        if frame == {"login": "required"}:
            return Reply({"password": "secret"}), state
        return super().handle_receive(frame, state)


async def test_login_before_everything(autojump_clock: MockClock) -> None:
    """Neither subscriptions nor data of the program are sent before the login, on any link."""
    transport = MemoryTransport()
    async with (
        connect("ws://feed/", LoginSocket(), **options(transport, Login())) as conn,
        trio.open_nursery() as nursery,
    ):
        server = await FeedServer.accept(transport)

        async def log_in() -> None:
            await trio.sleep(1)
            await server.send({"login": "required"})
            assert await server.receive() == {"password": "secret"}
            await trio.sleep(5)
            assert server.waiting == []
            await server.send({"login": "ok"})
            assert await server.receive() == {"subscribe": ["a"]}
            assert await server.receive() == {"data": 1}
            await server.send({"subscribed": ["a"]})

        await conn.send({"data": 1})
        nursery.start_soon(log_in)
        async with conn.subscribe("a") as updates:
            assert await conn.receive() == {"login": "ok"}
            await server.link.aclose()
            server = await FeedServer.accept(transport)
            await conn.send({"data": 1})
            await log_in()
            assert await anext(updates) == Gap(7.0, channel="a")
        conn.abort()


async def test_a_login_that_never_succeeds(autojump_clock: MockClock) -> None:
    """subscribe() raises; data that could not be sent is reported when the connection closes."""
    transport = MemoryTransport()
    async with connect("ws://feed/", **options(transport, Login(), close_timeout=1)) as conn:
        server = await FeedServer.accept(transport)
        await conn.send({"data": 1})
        with pytest.raises(SubscriptionTimeout, match=r"is_ready\(\) did not return True"):
            async with conn.subscribe("a"):
                raise AssertionError
        with trio.move_on_after(5):
            await conn.aclose()
        assert [type(event).__name__ for event in await server.link.receive()] == ["Close"]
    with pytest.raises(ConnectionClosed) as closed:
        await conn.receive()
    assert closed.value.unsent == ('{"data":1}',)


async def test_a_feed_without_confirmations(autojump_clock: MockClock) -> None:
    """A subscription is active when it is sent."""
    transport = MemoryTransport()
    async with connect("ws://feed/", **options(transport, SilentFeed())) as conn:
        server = await FeedServer.accept(transport)
        async with conn.subscribe("a") as updates:
            assert await server.receive() == {"subscribe": ["a"]}
            await server.link.aclose()
            server = await FeedServer.accept(transport)
            assert await server.receive() == {"subscribe": ["a"]}
            await server.send({"key": "a"})
            assert await anext(updates) == Gap(1.0, channel="a")
            assert await anext(updates) == {"key": "a"}
            await trio.sleep(100)
        assert await server.receive() == {"unsubscribe": ["a"]}
        conn.abort()


async def test_handle_connect_replies_first(autojump_clock: MockClock) -> None:
    class Hello(Socket[None]):
        async def handle_connect(self, info: ConnectionInfo, state: None) -> Any:
            await trio.sleep(1)
            return Reply({"hello": info.attempt}), state

    transport = MemoryTransport()
    async with connect("ws://feed/", Hello(), **options(transport)) as conn:
        server = await FeedServer.accept(transport)
        assert await server.receive() == {"hello": 1}
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.confirm, "a")
            async with conn.subscribe("a"):
                await server.link.aclose()
                server = await FeedServer.accept(transport)
                await conn.send({"queued": 1})
                assert await server.receive() == {"hello": 2}
                await server.confirm("a")
                assert await server.receive() == {"queued": 1}
        conn.abort()


async def test_subscribing_during_an_outage(autojump_clock: MockClock) -> None:
    """The call waits for the next link, without a timeout."""
    transport = MemoryTransport()
    slow = Backoff(initial=60, jitter="none", max_attempts=None)
    async with (
        connect("ws://feed/", **options(transport, reconnect=slow)) as conn,
        trio.open_nursery() as nursery,
    ):
        server = await FeedServer.accept(transport)
        await server.link.aclose()
        await trio.sleep(1)

        async def serve() -> None:
            await (await FeedServer.accept(transport)).confirm("a")

        nursery.start_soon(serve)
        async with conn.subscribe("a"):
            assert trio.current_time() == 60
        conn.abort()


@pytest.mark.parametrize("how", ["abort", "aclose", "server"])
async def test_the_connection_ends_while_waiting(how: str, autojump_clock: MockClock) -> None:
    """subscribe() and loops raise ConnectionClosed with the reason, and so do new calls."""
    transport = MemoryTransport()
    raised: list[ConnectionClosed] = []

    async def consume(conn: Any, key: str) -> None:
        try:
            async with conn.subscribe(key) as updates:
                async for _ in updates:
                    raise AssertionError
        except ConnectionClosed as error:
            raised.append(error)

    async with (
        trio.open_nursery() as nursery,
        connect("ws://feed/", **options(transport, reconnect=False)) as conn,
    ):
        server = await FeedServer.accept(transport)
        nursery.start_soon(consume, conn, "active")
        await server.confirm("active")
        nursery.start_soon(consume, conn, "waiting")
        await server.receive()
        if how == "abort":
            conn.abort()
        elif how == "server":
            await server.link.write([Close(4000, "enough")])
            await server.link.aclose()
        else:
            nursery.start_soon(conn.aclose, 4000)
        await conn.wait_closed()
        with pytest.raises(ConnectionClosed):
            async with conn.subscribe("new"):
                raise AssertionError
    assert [error.cause for error in raised] == [conn._session.latest_end] * 2


async def test_a_normal_close_ends_the_loop(autojump_clock: MockClock) -> None:
    transport = MemoryTransport()
    async with connect("ws://feed/", **options(transport)) as conn, trio.open_nursery() as nursery:
        server = await FeedServer.accept(transport)
        nursery.start_soon(server.confirm, "a")
        async with conn.subscribe("a") as updates:
            await server.send({"key": "a"})
            await server.link.write([Close(1000)])
            conn._session._no_reconnect = True
            assert [update async for update in updates] == [{"key": "a"}]


@pytest.mark.parametrize(
    ("overflow", "expected"),
    [
        ("drop_oldest", [Gap(0.0, channel="a"), 3, 4]),
        ("drop_newest", [1, 2, Gap(0.0, channel="a")]),
        ("close", [1, 2, Gap(0.0, channel="a"), SlowConsumer]),
        ("wait", [1, 2, 3, 4]),
    ],
)
async def test_overflow(overflow: Any, expected: list[Any], autojump_clock: MockClock) -> None:
    """Dropped updates leave a gap; only "wait" delays others."""
    transport = MemoryTransport()
    async with connect("ws://feed/", **options(transport)) as conn, trio.open_nursery() as nursery:
        server = await FeedServer.accept(transport)
        nursery.start_soon(server.confirm, "b")
        async with conn.subscribe("b") as other:
            nursery.start_soon(server.confirm, "a")
            async with conn.subscribe("a", max_queue=2, overflow=overflow) as updates:
                for n in (1, 2, 3, 4):
                    await server.send({"key": "a", "n": n})
                    await trio.sleep(0.1)
                await server.send({"key": "b"})
                await trio.sleep(0.1)
                assert len(other) == (overflow != "wait")
                got: list[Any] = []
                with trio.move_on_after(1):
                    try:
                        async for update in updates:
                            got += [update if isinstance(update, Gap) else update["n"]]
                    except SlowConsumer:
                        got.append(SlowConsumer)
                assert got == expected
                assert updates.dropped == {"wait": 0, "close": 1}.get(overflow, 2)
                assert await anext(other) == {"key": "b"}
        conn.abort()


async def test_updates_before_the_confirmation(autojump_clock: MockClock) -> None:
    """They do not stop the reader, which must find the confirmation."""
    transport = MemoryTransport()
    async with connect("ws://feed/", **options(transport)) as conn, trio.open_nursery() as nursery:
        server = await FeedServer.accept(transport)

        async def serve() -> None:
            for n in range(5):
                await server.send({"key": "a", "n": n})
                await trio.sleep(0.1)
            await server.send({"subscribed": ["a"]})

        nursery.start_soon(serve)
        async with conn.subscribe("a", max_queue=2, overflow="wait") as updates:
            got = [await anext(updates) for _ in range(5)]
            assert got == [{"key": "a", "n": n} for n in range(5)]
        conn.abort()


async def test_leaving_lets_the_reader_continue(autojump_clock: MockClock) -> None:
    transport = MemoryTransport()
    async with connect("ws://feed/", **options(transport)) as conn, trio.open_nursery() as nursery:
        server = await FeedServer.accept(transport)
        nursery.start_soon(server.confirm, "a")
        async with conn.subscribe("a", max_queue=1, overflow="wait"):
            await server.send({"key": "a"}, {"key": "a"})
            await trio.sleep(0.1)
            await server.send({"x": 1})
            with trio.move_on_after(1):
                raise AssertionError(await conn.receive())
        assert await conn.receive() == {"x": 1}
        conn.abort()


async def test_cancellation_at_every_step(autojump_clock: MockClock) -> None:
    """A cancelled call leaves nothing behind: the key is free, or is unsubscribed."""
    transport = MemoryTransport()
    async with connect("ws://feed/", **options(transport)) as conn:
        server = await FeedServer.accept(transport)
        machine = conn._session.subscriptions._machine  # type: ignore[union-attr]
        for delay in (0, 0.5, 1.5, 2.5):
            async with trio.open_nursery() as nursery:

                async def serve() -> None:
                    while (request := await server.receive()) is not None:
                        await trio.sleep(1)
                        for kind in ("subscribe", "unsubscribe"):
                            if kind in request:
                                await server.send({f"{kind}d": request[kind]})

                nursery.start_soon(serve)
                with trio.CancelScope(deadline=trio.current_time() + delay):
                    async with conn.subscribe("a") as updates:
                        await anext(updates)
                await trio.sleep(10)
                assert machine.state("a") is None
                nursery.cancel_scope.cancel()
        conn.abort()


async def test_messages_that_nothing_receives(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A full receive queue stops reading, which is logged."""
    transport = MemoryTransport()
    async with connect("ws://feed/", **options(transport, max_queue=2)) as conn:
        server = await FeedServer.accept(transport)
        await server.send({"hello": 1}, {"hello": 2})
        with pytest.raises(SubscriptionTimeout):
            async with conn.subscribe("a"):
                raise AssertionError
        conn.abort()
    (record,) = [record for record in caplog.records if record.levelname == "WARNING"]
    waiting = "2 messages that handle_receive delivered wait to be received"
    assert f"{waiting}; the first one is {{'hello': 1}}" in record.message


class Broken(Feed):
    """A feed with an error of the user in one method."""

    def __init__(self, name: str, returns: Any) -> None:
        super().__init__()

        def method(argument: Any) -> Any:
            if isinstance(returns, Exception):
                raise returns
            return returns

        setattr(self, name, method)


@pytest.mark.parametrize(
    ("name", "returns", "error"),
    [
        ("subscribe", {"op": "subscribe"}, "Broken.method must return a list of messages"),
        ("subscribe", ZeroDivisionError(), None),
        ("subscribe", [{1, 2}], "set"),
        ("confirmed", "a", "Broken.confirmed must return a list of keys or None, not 'a'"),
        ("confirmed", True, "Broken.confirmed must return a list of keys or None, not True"),
        ("confirmed", ZeroDivisionError(), None),
        ("key_of", ["a"], r"Broken.key_of returned \['a'\], but keys must be hashable; JSON"),
        ("confirmed", [["a"]], r"Broken.confirmed returned \['a'\], .* use tuple\(\.\.\.\)"),
        ("refused", (["a"],), r"Broken.refused returned \['a'\]"),
        ("unsubscribed", [("a", ["b"])], r"Broken.unsubscribed returned \('a', \['b'\]\)"),
    ],
)
async def test_errors_in_the_users_object(
    name: str, returns: Any, error: str | None, autojump_clock: MockClock
) -> None:
    """They end the connection, and the block raises them."""
    transport = MemoryTransport()
    kind = type(returns) if isinstance(returns, Exception) else (BadHookResult, TypeError)
    with pytest.raises(kind, match=error):
        async with connect("ws://feed/", **options(transport, Broken(name, returns))) as conn:
            server = await FeedServer.accept(transport)
            await server.send({"x": 1})
            async with conn.subscribe("a"):
                raise AssertionError


@pytest.mark.parametrize("name", ["key_of", "confirmed", "refused", "unsubscribed", "is_ready"])
async def test_without_a_codec_a_method_that_reads_text_fails(
    name: str, autojump_clock: MockClock
) -> None:
    """The error names the method and the option, and has the original error as its cause."""

    class Raw(Feed):
        def key_of(self, message: Any) -> Any:
            return message["key"] if name == "key_of" else None

        def confirmed(self, message: Any) -> Any:
            return message.get("subscribed") if name == "confirmed" else None

        def refused(self, message: Any) -> Any:
            return message.get("refused") if name == "refused" else None

        def unsubscribed(self, message: Any) -> Any:
            return message.get("unsubscribed") if name == "unsubscribed" else None

        def is_ready(self, message: Any) -> Any:
            return message["ready"] if name == "is_ready" else True

    transport = MemoryTransport()
    text = rf"Raw\.{name} raised (Type|Attribute)Error for '.*'\. Without a codec, .*codec=JSON\(\)"
    with pytest.raises(BadHookResult, match=text) as caught:
        async with connect("ws://feed/", **options(transport, Raw(), codec=None)):
            server = await FeedServer.accept(transport)
            await server.send({"key": "a"})
            await trio.sleep(1)
    assert isinstance(caught.value.__cause__, TypeError | AttributeError)


@pytest.mark.parametrize("name", ["subscribe", "unsubscribe"])
async def test_without_a_codec_messages_are_text(name: str, autojump_clock: MockClock) -> None:
    """A dict is refused, and the error names the method and the option."""

    class Raw(SilentFeed):
        def subscribe(self, keys: Sequence[str]) -> list[Any]:
            return super().subscribe(keys) if name == "subscribe" else [" ".join(keys)]

    transport = MemoryTransport()
    text = rf"Raw\.{name} returned the message \{{'{name}': .*\. Without a codec, .*codec=JSON"
    with pytest.raises(BadHookResult, match=text):
        async with connect("ws://feed/", **options(transport, Raw(), codec=None)) as conn:
            await FeedServer.accept(transport)
            async with conn.subscribe("a"):
                pass
            await trio.sleep(1)


@pytest.mark.parametrize("socket", [Peer(), EventSocket()])
def test_a_socket_that_decodes_its_own_messages(socket: Socket[Any, Any]) -> None:
    text = f"{type(socket).__name__} decodes its own messages.*leave out the subscriptions option"
    with pytest.raises(InvalidOption, match=text):
        connect("ws://feed/", socket, subscriptions=Feed())


@pytest.mark.parametrize(
    ("gap", "text"),
    [
        (Gap(1.5), "Gap(seconds=1.5)"),
        (Gap(0.0, channel="a"), "Gap(seconds=0.0, channel='a')"),
        (Gap(0.0, "1-2", "a"), "Gap(seconds=0.0, id='1-2', channel='a')"),
    ],
)
def test_the_text_of_a_gap(gap: Gap, text: str) -> None:
    """Only what it has."""
    assert repr(gap) == text


def test_the_text_of_a_refusal_is_short() -> None:
    """``message`` is the whole message."""
    message = {"code": 403, "text": "x" * 5000}
    error = SubscriptionRefused("a", message)
    assert str(error).startswith("the server has refused the subscription to 'a': {'code': 403, ")
    assert len(str(error)) < 300
    assert error.message is message


def test_invalid_options() -> None:
    class Bad(Feed):
        batch = 0

    with pytest.raises(InvalidOption, match=r"Bad\.batch must be at least 1, not 0"):
        connect("ws://feed/", subscriptions=Bad())
    with pytest.raises(InvalidOption, match=r"an instance of trioglock.Subscriptions"):
        connect("ws://feed/", subscriptions=Feed)  # type: ignore[arg-type]
    with pytest.raises(InvalidOption, match=r"a subclass of trioglock.Subscriptions, not"):
        connect("ws://feed/", subscriptions={"a"})  # type: ignore[arg-type]


async def test_paced_replay(autojump_clock: MockClock) -> None:
    """A replay keeps the rate, and comes before queued data; timeouts start with the sending."""

    class Single(Feed):
        batch = 1
        timeout = 3

    transport = MemoryTransport()
    keys = [str(number) for number in range(30)]
    more = options(transport, Single(), send_rate=Rate(5, per=1.0))
    async with connect("ws://feed/", **more) as conn, trio.open_nursery() as nursery:
        server = await FeedServer.accept(transport)

        async def confirm() -> list[float]:
            times = []
            for key in keys:
                await server.confirm(key)
                times.append(trio.current_time())
            assert all(later - now >= 1 for now, later in zip(times, times[5:], strict=False))
            return times

        nursery.start_soon(confirm)
        async with conn.subscribe(*keys) as updates:
            await server.link.aclose()
            await trio.sleep(0.5)
            nursery.start_soon(conn.send, {"queued": 1})
            server = await FeedServer.accept(transport)
            assert (await confirm())[-1] >= trio.current_time() - 1
            assert await server.receive() == {"queued": 1}
            assert isinstance(await anext(updates), Gap)
            conn.abort()


def test_fragments_have_no_keys() -> None:
    with pytest.raises(InvalidOption, match="whole messages: use them without fragments=True"):
        connect("ws://feed/", subscriptions=Feed(), fragments=True)


async def test_wrong_calls(autojump_clock: MockClock) -> None:
    transport = MemoryTransport()
    async with connect("ws://feed/", **options(transport)) as conn:
        with pytest.raises(InvalidOption, match="at least one key"):
            conn.subscribe()
        with pytest.raises(InvalidOption, match=r"must be hashable.*subscribe\(\*keys\)"):
            conn.subscribe(["a", "b"])  # type: ignore[arg-type]
        with pytest.raises(InvalidOption, match="None cannot be used as a key"):
            conn.subscribe(None)
        with pytest.raises(InvalidOption, match="max_queue must be at least 1"):
            conn.subscribe("a", max_queue=0)
        with pytest.raises(InvalidOption, match="overflow must be"):
            conn.subscribe("a", overflow="keep")  # type: ignore[arg-type]
        with pytest.raises(InvalidOption, match="requires a max_queue"):
            conn.subscribe("a", max_queue=None, overflow="close")
        with pytest.raises(UsageError, match=r"use `async with conn.subscribe"):
            await anext(conn.subscribe("a"))
        conn.abort()
    async with connect("ws://feed/", transport=MemoryTransport()) as conn:
        with pytest.raises(UsageError, match=r"requires connect\(..., subscriptions=...\)"):
            conn.subscribe("a")
        conn.abort()


async def test_reset_raises(autojump_clock: MockClock) -> None:
    """The peer gets a Close frame."""

    class Broken(Feed):
        def reset(self) -> None:
            raise ValueError("reset")

    transport = MemoryTransport()
    async with trio.open_nursery() as nursery:

        async def serve() -> None:
            link = await transport.accept()
            assert await link.receive() == [Close(1011, "internal error")]
            await link.aclose()

        nursery.start_soon(serve)
        with pytest.raises(ValueError, match="reset"):
            async with connect("ws://feed/", **options(transport, Broken())):
                await trio.sleep_forever()
        assert trio.current_time() == 0
