"""The events of connections, on both sides."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.hooks.helpers import URL, linked
from tests.telemetry.helpers import Seen, kinds, recorded, values
from trioglock import (
    Aborted,
    Backoff,
    Close,
    Connection,
    ConnectionClosed,
    ConnectionLost,
    MemoryListener,
    MemoryTransport,
    Ping,
    PreparedMessage,
    RemoteClose,
    Reply,
    Socket,
    connect,
    serve,
)
from trioglock.frames import Pong
from trioglock.telemetry import (
    BackpressureEnded,
    BackpressureStarted,
    CloseStarted,
    Connected,
    ConnectStarted,
    Event,
    EventEmitter,
    FrameReceived,
    FrameSent,
    HeartbeatMissed,
    HookFailed,
    HookReplied,
    LinkClosed,
    MessageDropped,
    Terminated,
    events,
    listen,
)


class Replying(Socket[None]):
    def handle_receive(self, frame: Any, state: None) -> tuple[Any, None]:
        return Reply("re: " + frame), state


async def test_events_of_a_connection(autojump_clock: MockClock) -> None:
    """From the attempt to the end, each once and in order."""
    with recorded() as seen:
        async with linked(Replying(), name="life") as (conn, far):
            await conn.send("hello")
            for frame in ("question", Ping(b"x"), Close(4000, "bye")):
                await trio.sleep(1)
                await far.write([frame])
                await trio.testing.wait_all_tasks_blocked()
            await far.send_eof()
            await conn.wait_closed()
    reason = RemoteClose(code=4000, reason="bye", attempt=1)
    assert [(type(event), values(event)) for event in seen] == [
        (ConnectStarted, {"attempt": 1}),
        (Connected, {"attempt": 1, "upgrade": 1, "seconds": 0.0, "url": URL, "peer": "memory",
                     "subprotocol": None}),
        (FrameSent, {"frame": "hello"}),
        (FrameReceived, {"frame": "question"}),
        (HookReplied, {"hook": "handle_receive", "frames": ("re: question",)}),
        (FrameSent, {"frame": "re: question"}),
        (FrameReceived, {"frame": Ping(b"x")}),
        (HookReplied, {"hook": "handle_ping", "frames": (Pong(b"x"),)}),
        (FrameSent, {"frame": Pong(b"x")}),
        (FrameReceived, {"frame": Close(4000, "bye")}),
        (CloseStarted, {"side": "remote", "code": 4000, "reason": "bye"}),
        (FrameSent, {"frame": Close(4000, "bye")}),
        (LinkClosed, {"reason": reason, "lasted": 3.0, "forced": False}),
        (Terminated, {"reason": reason}),
    ]  # fmt: skip
    assert {event.connection.id for event in seen} == {conn.id}
    who = seen[0].connection
    assert (who.name, who.url, who.side, str(who)) == ("life", URL, "client", f"life#{conn.id}")


async def test_failed_attempts_and_reconnects(autojump_clock: MockClock) -> None:
    """A failed attempt, the delay, the next attempt, a loss, and the next link."""
    transport = MemoryTransport()
    transport.refuse_next(refused := OSError("nobody there"))
    policy = Backoff(initial=2, jitter="none")
    with recorded() as seen:
        async with connect(URL, transport=transport, reconnect=policy, ping_interval=None) as conn:
            far = await transport.accept()
            await trio.sleep(20)
            await far.aclose()
            await trio.sleep(5)
            await transport.accept()
            conn.abort()
            await conn.wait_closed()
    assert kinds(seen) == [
        "ConnectStarted", "ConnectAttemptFailed", "ReconnectScheduled",
        "ConnectStarted", "Connected", "LinkClosed", "ReconnectScheduled",
        "ConnectStarted", "Connected", "LinkClosed", "Terminated",
    ]  # fmt: skip
    assert values(seen[1]) == {"attempt": 1, "error": refused, "seconds": 0.0}
    assert values(seen[2]) == {"delay": 2.0, "attempt": 2}
    assert [values(seen[at])["upgrade"] for at in (4, 8)] == [1, 2]
    assert isinstance(seen[5], LinkClosed)
    assert isinstance(seen[5].reason, ConnectionLost)
    assert seen[5].lasted == 20
    assert seen[-1] == Terminated(connection=seen[0].connection, reason=Aborted(attempt=3))


async def test_a_silent_peer(autojump_clock: MockClock) -> None:
    """The heartbeat expires, and the link is dropped."""
    with recorded(HeartbeatMissed, LinkClosed) as seen:
        async with linked(ping_interval=1, ping_timeout=2) as (conn, _):
            await conn.wait_closed()
    missed, gone = seen
    assert values(missed) == {"silence": 2, "writing": False}
    assert isinstance(gone, LinkClosed)
    assert gone.forced


async def test_forced_ends(autojump_clock: MockClock) -> None:
    """A close without an answer is forced; an abort is not."""
    with recorded(LinkClosed) as seen:
        async with linked(close_timeout=5) as (conn, _):
            await conn.aclose()
        async with linked() as (conn, _):
            conn.abort()
            await conn.wait_closed()
    assert [event.forced for event in seen if isinstance(event, LinkClosed)] == [True, False]


async def test_failures_of_hooks_and_tasks(autojump_clock: MockClock) -> None:
    """The event has the name of the hook, and whether it ends the connection."""

    class Failing(Socket[None]):
        def handle_send(self, message: Any, state: None) -> tuple[Any, None]:
            raise KeyError(message)

        async def handle_call(self, request: Any, state: None) -> Any:
            return "not a tuple"

        def handle_receive(self, frame: Any, state: None) -> tuple[Any, None]:
            raise LookupError(frame)

        def terminate(self, reason: Any, state: None) -> None:
            raise ArithmeticError

    async def task() -> None:
        raise OSError("of a task")

    with recorded(HookFailed) as seen, pytest.raises(BaseExceptionGroup):
        async with linked(Failing()) as (conn, far):
            with pytest.raises(KeyError):
                await conn.send("x")
            with pytest.raises(TypeError):
                await conn.call("x")
            await far.write(["boom"])
            await conn.wait_closed()
    with recorded(HookFailed) as more, pytest.raises(OSError, match="of a task"):
        async with linked() as (conn, _):
            conn.start_soon(task)
            await conn.wait_closed()
    told = [(e.hook, type(e.error).__name__, e.fatal) for e in seen if isinstance(e, HookFailed)]
    name = Failing.__name__
    assert told == [
        (f"{name}.handle_send", "KeyError", False),
        (f"{name}.handle_call", "BadHookResult", False),
        (f"{name}.handle_receive", "LookupError", True),
        (f"{name}.terminate", "ArithmeticError", False),
    ]
    assert [(e.hook, e.fatal) for e in more if isinstance(e, HookFailed)] == [("", True)]


@pytest.mark.parametrize("style", ["plain", "async"])
async def test_an_invalid_message_is_not_a_failure_of_a_hook(
    style: str, autojump_clock: MockClock
) -> None:
    """The default hook is not blamed for a dict, nor for the end of the connection."""

    class Slow(Socket[None]):
        async def handle_send(self, message: Any, state: None) -> tuple[Any, None]:
            await trio.sleep_forever()
            return message, state

    with recorded(HookFailed) as seen:
        async with (
            linked(Slow() if style == "async" else Socket()) as (conn, _),
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(_sends, conn)
            await trio.testing.wait_all_tasks_blocked()
            conn.abort()
    assert seen == []


async def _sends(conn: Connection[Any]) -> None:
    with pytest.raises((ValueError, ConnectionClosed)):
        await conn.send({})


async def test_backpressure_of_the_reader(autojump_clock: MockClock) -> None:
    """The receive queue or the mailbox is full; the events have the queue and the time."""

    class Slow(Socket[None]):
        async def handle_receive(self, frame: Any, state: None) -> tuple[Any, None]:
            await trio.sleep(1)
            return None, state

    with recorded(BackpressureStarted, BackpressureEnded) as seen:
        async with linked(max_queue=2) as (conn, far):
            await far.write(["1", "2", "3"])
            await trio.sleep(7)
            await conn.receive_batch()
            await trio.testing.wait_all_tasks_blocked()
        async with linked(Slow(), max_queue=2) as (conn, far):
            await far.write(["1", "2"])
            await trio.sleep(9)
    assert [(type(event), values(event)) for event in seen] == [
        (BackpressureStarted, {"waiting": "reader", "queue": "receive_queue"}),
        (BackpressureEnded, {"waiting": "reader", "seconds": 7.0}),
        (BackpressureStarted, {"waiting": "reader", "queue": "mailbox"}),
        (BackpressureEnded, {"waiting": "reader", "seconds": 2.0}),
    ]


async def test_backpressure_of_senders(autojump_clock: MockClock) -> None:
    """Each send that waits has events, even if it is cancelled."""
    transport = MemoryTransport(capacity=10)
    with recorded(BackpressureStarted, BackpressureEnded) as seen:
        async with connect(URL, transport=transport, write_limit=10, write_timeout=None) as conn:
            await transport.accept()
            with pytest.raises(trio.WouldBlock):
                while True:
                    conn.send_nowait("0123456789")
                    await trio.testing.wait_all_tasks_blocked()
            assert seen == []
            with trio.move_on_after(4):
                await conn.send("0123456789")
            conn.abort()
    assert [(type(event), values(event)) for event in seen] == [
        (BackpressureStarted, {"waiting": "sender", "queue": "send_queue"}),
        (BackpressureEnded, {"waiting": "sender", "seconds": 4.0}),
    ]


@pytest.mark.parametrize(
    ("overflow", "dropped"), [("drop_oldest", ["1", "2"]), ("drop_newest", ["3", "4"])]
)
async def test_dropped_messages(
    overflow: Any, dropped: list[str], autojump_clock: MockClock
) -> None:
    """Each dropped message has an event."""
    with recorded(MessageDropped) as seen:
        async with linked(max_queue=2, overflow=overflow) as (conn, far):
            await far.write(["1", "2", "3", "4"])
            await trio.testing.wait_all_tasks_blocked()
            assert conn.statistics().dropped == 2
    told = [event.message for event in seen if isinstance(event, MessageDropped)]
    assert sorted(map(str, told)) == dropped


async def test_violations_and_failures_close_locally(autojump_clock: MockClock) -> None:
    """The side is local if we close, for whatever reason."""

    class Crashing(Socket[None]):
        def handle_receive(self, frame: Any, state: None) -> tuple[Any, None]:
            raise ValueError("crash")

    with recorded(CloseStarted) as seen:
        with pytest.raises(ValueError, match="crash"):
            async with linked(Crashing()) as (conn, far):
                await far.write(["x"])
                await conn.wait_closed()
        async with linked():
            pass
    told = [(event.side, event.code) for event in seen if isinstance(event, CloseStarted)]
    assert told == [("local", 1011), ("local", 1000)]


async def test_events_of_a_server(autojump_clock: MockClock) -> None:
    """They have the side of the server and no attempts."""

    async def handler(conn: Connection[Any]) -> None:
        conn.send_frame_nowait(PreparedMessage("hello"))
        await conn.wait_closed()

    listener = MemoryListener()
    with recorded() as seen:
        async with (
            serve(handler, listeners=[listener]),
            connect("ws://h/p?token=x", stream=listener.open_stream) as conn,
        ):
            assert await conn.receive() == "hello"
    ours = [event for event in seen if event.connection.side == "server"]
    assert kinds(ours)[:2] == ["Connected", "FrameSent"]
    assert values(ours[1]) == {"frame": "hello"}
    assert ours[0].connection.url == "ws://h/p?token=[hidden]"
    assert kinds(ours)[-1] == "Terminated"
    assert {event.connection.id for event in ours}.isdisjoint({conn.id})


# Ends of all kinds.


@pytest.mark.parametrize("end", ["cancelled", "interrupted", "in a hook", "by a hook"])
async def test_a_cancelled_link_has_all_events(end: str, autojump_clock: MockClock) -> None:
    """After a cancellation or KeyboardInterrupt: LinkClosed, then Terminated."""

    class Slow(Socket[None]):
        async def handle_receive(self, frame: Any, state: None) -> tuple[Any, None]:
            if end == "by a hook":
                raise KeyboardInterrupt
            await trio.sleep_forever()
            return None, state

    with recorded() as seen, trio.CancelScope() as outside:
        try:
            async with linked(Slow(), reconnect=True) as (_, far):
                await far.write(["hello"])
                await trio.testing.wait_all_tasks_blocked()
                if end == "interrupted":
                    raise KeyboardInterrupt
                outside.cancel()
                await trio.sleep_forever()
        except KeyboardInterrupt:
            pass
    assert kinds(seen) == [
        "ConnectStarted", "Connected", "FrameReceived", "LinkClosed", "Terminated",
    ]  # fmt: skip
    assert values(seen[-2]) == {"reason": Aborted(attempt=1), "lasted": 0.0, "forced": False}
    assert values(seen[-1]) == {"reason": Aborted(attempt=1)}


async def test_a_cancelled_attempt(autojump_clock: MockClock) -> None:
    """It has neither failed nor led to a link."""

    async def never() -> trio.abc.Stream:
        await trio.sleep_forever()
        raise AssertionError

    with recorded() as seen:
        with trio.move_on_after(1):
            async with connect(URL, stream=never):
                pass
        with trio.CancelScope() as scope:
            scope.cancel()
            async with connect(URL, stream=never):
                pass
    assert kinds(seen) == ["ConnectStarted", "Terminated"] * 2


async def test_terminated_is_the_last_event(autojump_clock: MockClock) -> None:
    """The wait of a sender ends before, although its task has not run yet."""
    transport = MemoryTransport(capacity=0)
    senders = 10

    async def send(conn: Connection[Any]) -> None:
        with pytest.raises(ConnectionClosed):
            while True:
                await conn.send("0123456789")

    with recorded(BackpressureStarted, BackpressureEnded, Terminated) as seen:
        async with (
            trio.open_nursery() as nursery,
            connect(URL, transport=transport, write_limit=10, ping_interval=None) as conn,
        ):
            far = await transport.accept()
            for _ in range(senders):
                nursery.start_soon(send, conn)
            await trio.testing.wait_all_tasks_blocked()
            await trio.sleep(4)
            await far.send_eof()
            await conn.wait_closed()
    assert [kind for kind, _ in itertools.groupby(kinds(seen))] == [
        "BackpressureStarted",
        "BackpressureEnded",
        "Terminated",
    ]
    assert [e.seconds for e in seen if isinstance(e, BackpressureEnded)] == [4] * senders


@pytest.mark.parametrize("kind", [Connected, FrameSent, CloseStarted, LinkClosed, Terminated])
async def test_an_interrupt_in_a_listener(kind: type[Event], autojump_clock: MockClock) -> None:
    """The block raises it, the link is closed, and all waiting tasks are woken."""
    transport = MemoryTransport()
    closed = trio.Event()

    async def wait(conn: Connection[Any]) -> None:
        await conn.wait_closed()
        closed.set()

    def interrupted(event: Event) -> None:
        raise KeyboardInterrupt

    async with trio.open_nursery() as nursery:
        with recorded(LinkClosed, Terminated) as seen, listen(interrupted, kind):
            with pytest.raises(KeyboardInterrupt):
                async with connect(
                    URL, Waiting(lambda conn: nursery.start_soon(wait, conn)), transport=transport
                ) as conn:
                    await conn.send("x")
            assert kinds(seen) == ["LinkClosed", "Terminated"]
        far = await transport.accept()
        with trio.fail_after(1):
            while await far.receive():
                pass
            if kind is not Connected:
                await closed.wait()


class Waiting(Socket[None]):
    def __init__(self, begin: Any) -> None:
        self.begin = begin

    def init_stream(self, info: Any) -> None:
        self.begin(info.connection)


async def test_an_interrupt_in_terminate(autojump_clock: MockClock) -> None:
    """Terminated is emitted, and wait_closed() returns."""

    class Interrupted(Socket[None]):
        def terminate(self, reason: Any, state: None) -> None:
            raise KeyboardInterrupt

    async with trio.open_nursery() as nursery:
        with recorded(Terminated) as seen, pytest.raises(KeyboardInterrupt):
            async with linked(Interrupted()) as (conn, _):
                nursery.start_soon(conn.wait_closed)
                await trio.testing.wait_all_tasks_blocked()
        assert kinds(seen) == ["Terminated"]


def test_events_are_frozen_values() -> None:
    """They are compared by value and immutable."""
    every = [getattr(events, name) for name in events.__all__]
    classes = [kind for kind in every if isinstance(kind, type) and issubclass(kind, Event)]
    assert len(classes) == 18
    for kind in classes:
        assert kind.__dataclass_params__.frozen  # type: ignore[attr-defined]
        assert "__slots__" in vars(kind)


def test_the_repr_of_an_event() -> None:
    """It is short and redacted; the fields are complete."""
    secret = '{"password": "s3cret"}'
    seen: Seen = []
    with listen(seen.append):
        emitter = EventEmitter("x", of="client", url="ws://al:s3cret@h/?token=s3cret")
        emitter.frames_sent(
            [secret, secret.encode() * 10_000, PreparedMessage(secret), Close(1000)]
        )
        emitter.hook_replied("handle_cast", [secret, Ping(b"x")])
        emitter.messages_dropped([{"token": "s3cret"}, [secret] * 10_000])
        emitter.connect_failed(1, OSError("no wss://al:s3cret@h/"), 1.0)
        emitter.connected(1, 1, 0.0, url="ws://h/?a=s3cret", peer="", subprotocol="x.bearer.s3cret")
        emitter.terminated(RemoteClose(code=4000, reason="ws://h/?token=s3cret"))
    assert len(seen) == 10
    for event in seen:
        assert "s3cret" not in repr(event)
        assert len(repr(event)) < 1500
    assert [event.frame for event in seen[:1] if isinstance(event, FrameSent)] == [secret]
    connection = f"ConnectionId(id={seen[0].connection.id}, name='x', url='ws://h/?token=[hidden]'"
    assert repr(seen[3]) == (
        f"FrameSent(connection={connection}, side='client'), frame=Close(code=1000, reason=''))"
    )


async def test_no_event_is_created_without_listeners(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only events that a listener receives are created."""
    made: list[str] = []

    def noted(kind: Any) -> Any:
        initialise = kind.__init__

        def noting(self: Event, **given: Any) -> None:
            made.append(kind.__name__)
            initialise(self, **given)

        return noting

    for name in events.__all__:
        kind = getattr(events, name)
        if isinstance(kind, type) and issubclass(kind, Event) and kind is not Event:
            monkeypatch.setattr(kind, "__init__", noted(kind))

    async def life() -> None:
        async with linked(Replying()) as (conn, far):
            await conn.send("x")
            await far.write(["y", Ping()])
            await trio.testing.wait_all_tasks_blocked()

    await life()
    assert made == []
    with recorded(Connected, FrameReceived):
        await life()
    assert made == ["Connected", "FrameReceived", "FrameReceived"]
