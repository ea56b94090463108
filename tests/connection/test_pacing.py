"""The send rate: a strict sliding window for messages, measured at the peer."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
import trio
import trio.testing
import websockets.exceptions
import websockets.sync.server
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from tests.connection.raw_server import every_transport
from trioglock import (
    Backoff,
    Close,
    Connection,
    ConnectionClosed,
    InvalidOption,
    LocalClose,
    MemoryTransport,
    MessageHeartbeat,
    Ping,
    PreparedMessage,
    Rate,
    Reply,
    Socket,
    Status,
    broadcast,
    connect,
)
from trioglock.connection.rates.paced_queue import PacedSendQueue
from trioglock.connection.rates.pacing import Pacer
from trioglock.transports.memory import MemoryLink

URL = "ws://exchange/"
RATE = Rate(5, per=1.0)
WINDOW = RATE.window


class Recorder:
    """Accepts the links of one connection and records when each message arrives."""

    def __init__(self, transport: MemoryTransport) -> None:
        self.transport = transport
        self.times: list[float] = []
        self.messages: list[Any] = []
        self.control: list[Any] = []
        self.far: MemoryLink

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Read from one link after another."""
        task_status.started()
        while True:
            self.far = await self.transport.accept()
            while events := await self._receive():
                for event in events:
                    if isinstance(event, list):
                        self.messages += event
                        self.times += [trio.current_time()] * len(event)
                    else:
                        self.control.append(event)
                        if isinstance(event, Close):
                            await self.far.write([event])
                            await self.far.aclose()

    async def _receive(self) -> list[Any]:
        try:
            return await self.far.receive()
        except Exception:
            return []


def check_window(times: list[float], messages: int, per: float) -> None:
    """No closed interval of ``per`` seconds contains more than ``messages`` times."""
    for early, late in zip(times, times[messages:], strict=False):
        assert late - early > per, times


@pytest.fixture
async def recorder(nursery: trio.Nursery) -> Recorder:
    """A peer in memory."""
    recorder = Recorder(MemoryTransport())
    await nursery.start(recorder.run)
    return recorder


async def test_the_program_sends(recorder: Recorder, autojump_clock: MockClock) -> None:
    """A burst of one window, then as many messages in each window, in order."""
    async with connect(URL, transport=recorder.transport, send_rate=RATE) as conn:
        for number in range(23):
            await conn.send(str(number))
        await conn.flush()
    assert recorder.messages == [str(number) for number in range(23)]
    check_window(recorder.times, 5, 1.0)
    assert recorder.times == pytest.approx([WINDOW * (number // 5) for number in range(23)])


async def test_many_tasks_are_served_in_order(
    recorder: Recorder, autojump_clock: MockClock
) -> None:
    """First come, first served; a cancelled one loses its message, and nothing else."""
    async with connect(URL, transport=recorder.transport, send_rate=Rate(2)) as conn:
        scopes = {}

        async def send(number: int) -> None:
            with trio.CancelScope() as scopes[number]:
                await conn.send(str(number))

        async with trio.open_nursery() as nursery:
            for number in range(12):
                nursery.start_soon(send, number)
                await trio.testing.wait_all_tasks_blocked()
            for number in (2, 7, 11):
                scopes[number].cancel()
            await trio.sleep(2)
            late = trio.current_time()
            await conn.send("last")
            assert trio.current_time() > late
        await conn.flush()
    expected = [str(number) for number in range(12) if number not in (2, 7, 11)]
    assert recorder.messages == [*expected, "last"]
    check_window(recorder.times, 2, 1.0)


async def test_send_nowait(recorder: Recorder, autojump_clock: MockClock) -> None:
    """It raises WouldBlock while no slot is free; control frames are exempt."""
    async with connect(
        URL, transport=recorder.transport, send_rate=Rate(2), ping_interval=None
    ) as conn:
        conn.send_nowait("1")
        conn.send_frame_nowait("2")
        for send in (conn.send_nowait, conn.send_frame_nowait):
            with pytest.raises(trio.WouldBlock):
                send("3")
        conn.send_frame_nowait(Ping(b"nowait"))
        await conn.send_frame(Ping(b"await"))
        await trio.testing.wait_all_tasks_blocked()
        assert recorder.control == [Ping(b"nowait"), Ping(b"await")]
        assert trio.current_time() == 0
        await trio.sleep(1.04)
        with pytest.raises(trio.WouldBlock):
            conn.send_nowait("3")
        await trio.sleep(0.02)
        conn.send_nowait("3")
    assert recorder.messages == ["1", "2", "3"]


async def test_replies_wait_in_the_queue(recorder: Recorder, autojump_clock: MockClock) -> None:
    """Meanwhile the connection still receives."""

    class Answers(Socket[None]):
        def handle_receive(self, frame: Any, state: None) -> tuple[Any, None]:
            return Reply(f"re: {frame}", deliver=frame), state

    async with connect(
        URL, Answers(), transport=recorder.transport, send_rate=RATE, max_queue=None
    ) as conn:
        await trio.testing.wait_all_tasks_blocked()
        numbers = [str(number) for number in range(12)]
        await recorder.far.write(numbers)
        assert [await conn.receive() for _ in numbers] == numbers
        assert trio.current_time() == 0
        await conn.send("after them")
        await conn.flush()
    assert recorder.messages == [*(f"re: {number}" for number in numbers), "after them"]
    check_window(recorder.times, 5, 1.0)


async def test_the_window_spans_links(recorder: Recorder, autojump_clock: MockClock) -> None:
    """Replies from handle_connect and the program's messages share it."""

    class Replays(Socket[None]):
        def handle_connect(self, info: Any, state: None) -> tuple[Any, None]:
            return Reply(*[f"replay {number}" for number in range(3)]), state

    async with connect(
        URL,
        Replays(),
        transport=recorder.transport,
        send_rate=RATE,
        reconnect=Backoff(initial=0.01, jitter="none"),
    ) as conn:
        async with trio.open_nursery() as nursery:

            async def cut() -> None:
                for _ in range(6):
                    await trio.sleep(0.7)
                    await recorder.far.aclose()

            nursery.start_soon(cut)
            for number in range(20):
                await conn.send(str(number))
        await conn.flush()
    sent = [message for message in recorder.messages if not message.startswith("replay")]
    assert sent == [str(number) for number in range(20)]
    check_window(recorder.times, 5, 1.0)


async def test_message_heartbeats_are_paced(recorder: Recorder, autojump_clock: MockClock) -> None:
    """They precede the program's messages, and a peer is not dead because they wait."""
    heartbeat = MessageHeartbeat(message=lambda: "beat", is_answer=lambda one: one == "pong")
    async with connect(
        URL,
        transport=recorder.transport,
        send_rate=Rate(2, per=10),
        heartbeat=heartbeat,
        ping_interval=6,
        ping_timeout=2,
    ) as conn:

        async def answer() -> None:
            seen = 0
            while True:
                await trio.sleep(0.5)
                if recorder.messages.count("beat") > seen:
                    seen += 1
                    await recorder.far.write(["pong"])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer)
            for number in range(4):
                await conn.send(str(number))
            await trio.sleep(30)
            assert conn.status.value == "open"
            nursery.cancel_scope.cancel()
        conn.abort()
    assert recorder.messages[:6] == ["0", "1", "beat", "2", "beat", "3"]
    check_window(recorder.times, 2, 10)


async def test_a_dead_peer_is_found(recorder: Recorder, autojump_clock: MockClock) -> None:
    """The timeout starts when the message of the heartbeat has been written."""
    heartbeat = MessageHeartbeat(message=lambda: "beat", is_answer=lambda one: False)
    async with connect(
        URL,
        transport=recorder.transport,
        send_rate=Rate(2, per=10),
        heartbeat=heartbeat,
        ping_interval=6,
        ping_timeout=2,
    ) as conn:
        await conn.send("1")
        await conn.send("2")
        await conn.wait_closed()
        assert trio.current_time() == pytest.approx(12.05)


async def test_broadcasts_skip_it(recorder: Recorder, autojump_clock: MockClock) -> None:
    """A connection without a free slot is a slow one."""
    async with connect(URL, transport=recorder.transport, send_rate=Rate(2)) as conn:
        results = [broadcast([conn], PreparedMessage("news")) for _ in range(3)]
        assert results == [(1, 0, 0), (1, 0, 0), (0, 1, 0)]


class TestClosing:
    """aclose() sends the queued data at the rate, as far as close_timeout allows."""

    async def test_everything_is_sent(self, recorder: Recorder, autojump_clock: MockClock) -> None:
        """The Close frame follows the data."""

        class Talks(Socket[None]):
            def handle_connect(self, info: Any, state: None) -> tuple[Any, None]:
                return Reply(*[str(number) for number in range(12)]), state

        async with connect(URL, Talks(), transport=recorder.transport, send_rate=RATE) as conn:
            await conn.aclose()
        assert len(recorder.messages) == 12
        assert trio.current_time() == pytest.approx(2 * WINDOW)
        assert conn.close_code == 1000
        check_window(recorder.times, 5, 1.0)

    async def test_what_is_left(self, recorder: Recorder, autojump_clock: MockClock) -> None:
        """It is reported as unsent, and flush() and waiting sends fail."""
        failed: list[ConnectionClosed] = []

        class Talks(Socket[None]):
            def handle_receive(self, frame: Any, state: None) -> tuple[Any, None]:
                return Reply(*[str(number) for number in range(12)]), state

        async with connect(
            URL, Talks(), transport=recorder.transport, send_rate=RATE, close_timeout=1.5
        ) as conn:

            async def fails(call: Callable[[], Any]) -> None:
                with pytest.raises(ConnectionClosed) as caught:
                    await call()
                failed.append(caught.value)

            await trio.testing.wait_all_tasks_blocked()
            await recorder.far.write(["go"])
            await trio.testing.wait_all_tasks_blocked()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(fails, conn.flush)
                nursery.start_soon(fails, lambda: conn.send("late"))
                await trio.testing.wait_all_tasks_blocked()
                await conn.aclose()
        assert trio.current_time() == pytest.approx(1.5)
        assert recorder.messages == [str(number) for number in range(10)]
        assert len(failed) == 2
        assert failed[-1].unsent == ("10", "11")
        assert failed[-1].cause == LocalClose(clean=False)

    async def test_discarding(self, recorder: Recorder, autojump_clock: MockClock) -> None:
        """discard_unsent() frees the slots of the messages."""

        class Talks(Socket[None]):
            def handle_receive(self, frame: Any, state: None) -> tuple[Any, None]:
                return Reply(*[str(number) for number in range(12)]), state

        async with connect(URL, Talks(), transport=recorder.transport, send_rate=RATE) as conn:
            await trio.testing.wait_all_tasks_blocked()
            await recorder.far.write(["go"])
            await trio.testing.wait_all_tasks_blocked()
            assert conn.discard_unsent() == tuple(str(number) for number in range(5, 12))
            await conn.send("next")
            await conn.flush()
            assert trio.current_time() == pytest.approx(WINDOW)


async def test_a_write_that_takes_long(autojump_clock: MockClock) -> None:
    """Its slot counts from its end."""
    transport = MemoryTransport(capacity=0)
    async with connect(
        URL, transport=transport, send_rate=Rate(1), ping_interval=None, write_timeout=None
    ) as conn:
        far = await transport.accept()
        await conn.send("1")
        await trio.sleep(30)
        assert await far.receive() == [["1"]]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(conn.send, "2")
            assert await far.receive() == [["2"]]
        assert trio.current_time() == pytest.approx(31.05)
        conn.abort()


async def test_fragments(recorder: Recorder, autojump_clock: MockClock) -> None:
    """A message in fragments is one message, which counts until its last frame."""

    async def items() -> AsyncIterator[str]:
        for _ in range(10):
            yield "part"
            await trio.sleep(0.5)

    async with connect(URL, transport=recorder.transport, send_rate=Rate(2)) as conn:
        await conn.send("1")
        await conn.send(items())
        for number in range(3):
            await conn.send(str(number))
        await conn.flush()
    assert recorder.messages == ["1", "part" * 10, "0", "1", "2"]
    check_window(recorder.times, 2, 1.0)


async def test_one_wake_up_per_slot(
    recorder: Recorder, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No task polls."""
    wake_ups = []
    check = PacedSendQueue.check

    def counting(self: PacedSendQueue, now: float, due: float) -> float:
        wake_ups.append(now)
        return check(self, now, due)

    monkeypatch.setattr(PacedSendQueue, "check", counting)
    async with connect(
        URL, transport=recorder.transport, send_rate=Rate(3, per=10), ping_interval=None
    ) as conn:
        for number in range(30):
            await conn.send(str(number))
            await trio.sleep(0.1)
        await conn.flush()
        assert len(recorder.messages) == 30
        assert len(wake_ups) <= 30
        await trio.sleep(1000)
        assert len(wake_ups) <= 30


@given(
    messages=st.integers(1, 4),
    per=st.sampled_from([0.5, 1.0, 7.0]),
    steps=st.lists(
        st.tuples(
            st.sampled_from(["send", "send", "send", "wait", "slow", "cut"]), st.floats(0, 3)
        ),
        max_size=60,
    ),
)
def test_the_limiter(messages: int, per: float, steps: list[tuple[str, float]]) -> None:
    """Never more than N in a window, however sends, links and times follow; nothing is lost."""
    rate = Rate(messages, per=per)
    pacer = Pacer(rate)
    now, sent = 0.0, []
    for step, seconds in steps:
        match step:
            case "wait":
                now += seconds
            case "send":
                if pacer.free(now) > 0:
                    pacer.take(1)
                    sent.append(now)
                    pacer.written(1, now)
                else:
                    due = pacer.next_free(now)
                    assert due is not None
                    assert due > now
                    # A full window of messages precedes: the throughput is reached.
                    assert due == pytest.approx(sent[-messages] + rate.window)
                    now = due
                    assert pacer.free(now) > 0
            case "slow":
                if pacer.free(now) > 0:
                    pacer.take(1)
                    now += seconds
                    sent.append(now)
                    pacer.written(1, now)
            case "cut":
                count = pacer.free(now)
                pacer.take(count)
                sent += [now] * count
                pacer.interrupted(now)
                assert pacer.free(now) == 0
    check_window(sent, messages, per)


@contextmanager
def measuring_server(cut_after: int | None = None) -> Iterator[tuple[str, list[float]]]:
    """Run a server of websockets in a thread, which records when messages arrive."""
    times: list[float] = []

    def handler(peer: websockets.sync.server.ServerConnection) -> None:
        received = 0
        try:
            for _ in peer:
                times.append(time.perf_counter())
                received += 1
                if received == cut_after:
                    peer.socket.shutdown(socket.SHUT_RDWR)
        except (websockets.exceptions.ConnectionClosed, OSError):
            pass

    with websockets.sync.server.serve(handler, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}", times
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.slow
@every_transport
async def test_measured_at_a_server(transport: Callable[[], Any]) -> None:
    """The times are those at which another program has read the messages."""
    with measuring_server(cut_after=7) as (url, times):
        async with connect(
            url, transport=transport(), send_rate=Rate(5, per=0.5, margin=1), reconnect=True
        ) as conn:
            for number in range(20):
                await conn.send(str(number))
        # What was written while the server was cutting the link is lost.
        assert len(times) > 7
        check_window(times, 5, 0.5)


async def test_waiting_for_a_slot_is_no_stall(
    recorder: Recorder, autojump_clock: MockClock
) -> None:
    """A feed is silent until it has received the subscriptions of the link."""

    class Subscribes(Socket[None]):
        def handle_connect(self, info: Any, state: None) -> tuple[Any, None]:
            return Reply("subscribe"), state

    async with connect(
        URL,
        Subscribes(),
        transport=recorder.transport,
        send_rate=Rate(1, per=60),
        stall_timeout=10,
        ping_interval=None,
        reconnect=Backoff(initial=1, jitter="none"),
    ) as conn:
        await trio.testing.wait_all_tasks_blocked()
        await recorder.far.aclose()
        await trio.sleep(62)
        assert recorder.messages == ["subscribe", "subscribe"]
        assert conn.statistics().reconnects == 1
        await trio.sleep(15)
        assert conn.statistics().reconnects == 2


def test_options() -> None:
    """They are checked at the call."""
    with pytest.raises(
        InvalidOption, match=r"send_rate must be a Rate, such as Rate\(5, per=1.0\)"
    ):
        connect(URL, send_rate=5)  # type: ignore[arg-type]
    heartbeat = MessageHeartbeat(message=str, is_answer=bool)
    with pytest.raises(InvalidOption, match="uses up send_rate"):
        connect(URL, send_rate=Rate(1, per=20), heartbeat=heartbeat)
    for wrong, text in [
        ({"messages": 0}, "messages must be at least 1"),
        ({"messages": 1.5}, "messages must be a whole number"),
        ({"messages": 1, "per": 0}, "per must be more than 0 seconds"),
        ({"messages": 1, "margin": -1}, "margin must be more than 0 seconds"),
    ]:
        with pytest.raises(InvalidOption, match=text):
            Rate(**wrong)  # type: ignore[arg-type]
    assert (Rate(1, per=60).window, Rate(1, margin=0).window) == (60.05, 1)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["send", "send", "task", "cancel", "nowait", "reply", "sleep", "cut", "pong"]
        ),
        st.floats(0, 1.5),
    ),
    max_size=40,
)


@given(messages=st.integers(1, 4), per=st.sampled_from([0.5, 2.0]), steps=STEPS)
@pytest.mark.slow
def test_a_connection(messages: int, per: float, steps: list[tuple[str, float]]) -> None:
    """Nothing is lost or reordered, the window holds over all links, and slots are used."""

    class Answers(Socket[None]):
        def handle_receive(self, frame: Any, state: None) -> tuple[Any, None]:
            return Reply(frame), state

    async def main() -> None:
        rate = Rate(messages, per=per)
        recorder = Recorder(MemoryTransport())
        async with trio.open_nursery() as nursery:
            await nursery.start(recorder.run)
            async with connect(
                URL,
                Answers(),
                transport=recorder.transport,
                send_rate=rate,
                ping_interval=None,
                reconnect=Backoff(initial=0.1, jitter="none", max_attempts=None),
            ) as conn:
                await trio.testing.wait_all_tasks_blocked()
                accepted = await _perform(steps, conn, recorder)
                began, left = trio.current_time(), len(accepted) - len(recorder.messages)
                await conn.flush()
                # The link may have to be opened, and the first slot may have to become free.
                assert trio.current_time() - began <= rate.window * (left // messages + 1) + 2
            assert conn.statistics().in_doubt == 0
            nursery.cancel_scope.cancel()
        assert sorted(recorder.messages) == sorted(accepted)
        numbers = [int(one) for one in recorder.messages if one.isdigit()]
        assert numbers == sorted(numbers)
        check_window(recorder.times, messages, per)

    trio.run(main, clock=MockClock(autojump_threshold=0))


async def _perform(
    steps: list[tuple[str, float]], conn: Connection[Any], recorder: Recorder
) -> list[str]:
    """Perform the steps; return the messages that the connection has accepted."""
    accepted: list[str] = []
    scopes: list[trio.CancelScope] = []

    async def send(text: str) -> None:
        with trio.CancelScope() as scope:
            scopes.append(scope)
            await conn.send(text)
            accepted.append(text)

    async with trio.open_nursery() as nursery:
        for number, (step, seconds) in enumerate(steps):
            match step:
                case "send":
                    await send(str(number))
                case "task":
                    nursery.start_soon(send, str(number))
                case "cancel" if scopes:
                    scopes[int(seconds * 1000) % len(scopes)].cancel()
                case "nowait":
                    with suppress(trio.WouldBlock):
                        conn.send_nowait(str(number))
                        accepted.append(str(number))
                case "sleep":
                    await trio.sleep(seconds)
                case "pong":
                    with suppress(trio.WouldBlock):
                        conn.send_frame_nowait(Ping())
                case "reply" if conn.status is Status.OPEN:
                    await recorder.far.write([f"reply {number}"])
                    accepted.append(f"reply {number}")
                case "cut":
                    await trio.testing.wait_all_tasks_blocked()
                    await recorder.far.aclose()
            await trio.testing.wait_all_tasks_blocked()
    return accepted
