"""Regression tests for defects that random scenarios have found."""

from __future__ import annotations

from typing import Any, TypeAlias

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.hooks.helpers import HOOKS
from tests.machines.machine import run
from tests.machines.scenarios import WIRES, Scenario, Setup, Step
from tests.transports.servers import read_request, serving, upgrade
from trioglock import (
    Backoff,
    Close,
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionInfo,
    MemoryTransport,
    MessageHeartbeat,
    Ping,
    Reconnect,
    Socket,
    connect,
)
from trioglock.frames import Event
from trioglock.testing import memory_link_pair
from trioglock.transports import Handshake

URL = "ws://memory.test/"
Clock: TypeAlias = trio.testing.MockClock


async def test_a_link_closed_while_a_frame_arrives_still_returns_it() -> None:
    """Closing a memory link while a frame wakes its reader neither loses it nor raises."""
    near, far = memory_link_pair(Handshake(url="ws://memory.test/"))
    got: list[list[Event]] = []

    async def read() -> None:
        got.append(await far.receive())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        await near.write(["a message"])
        await far.aclose()
    assert got == [[["a message"]]]


async def test_flush_raises_if_a_message_was_not_sent(autojump_clock: MockClock) -> None:
    """A message that was dropped when the stream ended during a write is not flushed."""
    transport = MemoryTransport(capacity=0)
    async with connect(URL, transport=transport) as conn:
        far = await transport.accept()
        async with trio.open_nursery() as nursery:
            # The pong is being written, and the peer does not take it.
            nursery.start_soon(far.write, [Ping(b"still there?")])
            await trio.testing.wait_all_tasks_blocked()
            await conn.send("behind the pong")
            await far.send_eof()
        await conn.wait_closed()
        with pytest.raises(ConnectionClosedError) as caught:
            await conn.flush()
    assert caught.value.unsent == ("behind the pong",)


async def test_a_ping_at_the_end_of_a_link_returns(autojump_clock: MockClock) -> None:
    """A ping that starts while the block is cancelled does not hang, even if the policy retries."""
    returned = False

    async def ping() -> None:
        nonlocal returned
        with pytest.raises(ConnectionClosed):
            await conn.ping()
        returned = True

    transport = MemoryTransport()
    with trio.fail_after(60):
        async with trio.open_nursery() as calls:
            with trio.CancelScope() as scope:
                async with connect(URL, transport=transport, reconnect=Backoff()) as conn:
                    calls.start_soon(ping)
                    scope.cancel()
                    await trio.lowlevel.checkpoint()
    assert returned


async def test_the_heartbeat_is_silent_after_our_close(autojump_clock: MockClock) -> None:
    """While reconnect() waits for the peer's Close frame, no ping or message is sent."""
    transport = MemoryTransport()
    message_heartbeat = MessageHeartbeat(
        message=lambda: "message_heartbeat", is_answer=lambda message: message == "beat!"
    )
    async with connect(
        URL, transport=transport, reconnect=True, ping_interval=1, heartbeat=message_heartbeat
    ) as conn:
        far = await transport.accept()
        conn.start_soon(conn.reconnect)
        await trio.sleep(3.5)
        assert await far.receive() == [Close(1000)]
        conn.abort()


class Slow(Socket[int]):
    """Takes a second for each message and records the calls."""

    def __init__(self) -> None:
        self.going_on: list[str] = []
        self.last_words: list[str] | None = None

    def init_stream(self, info: Any) -> int:
        return 0

    async def handle_send(self, message: Any, state: int) -> Any:
        self.going_on.append("handle_send")
        try:
            await trio.sleep(1)
        finally:
            self.going_on.pop()
        return message, state + 1

    def terminate(self, reason: Any, state: int) -> None:
        self.last_words = list(self.going_on)


async def test_no_hook_goes_on_while_terminate_runs(autojump_clock: MockClock) -> None:
    """An async ``handle_send`` in the task of a caller ends before ``terminate`` starts."""
    async_hooks = Slow()

    async def send() -> None:
        with pytest.raises(ConnectionClosed):
            await conn.send("too slow")

    async with (
        trio.open_nursery() as calls,
        connect(URL, async_hooks, transport=MemoryTransport()) as conn,
    ):
        calls.start_soon(send)
        await trio.sleep(0.5)
        assert async_hooks.going_on == ["handle_send"]
        conn.abort()
    assert async_hooks.last_words == []


class Stubborn(Socket[None]):
    """Decides to reconnect once, after a delay."""

    def __init__(self, thought: float) -> None:
        self.thought = thought
        self.asked = 0

    async def handle_disconnect(self, reason: Any, state: None) -> Any:
        self.asked += 1
        await trio.sleep(self.thought)
        return (Reconnect(delay=0) if self.asked == 1 else None), state


@pytest.mark.parametrize("leave", ["return", "aclose", "abort"])
@pytest.mark.parametrize("thinks", [False, True])
async def test_no_reconnect_after_the_body_ended(
    autojump_clock: MockClock, leave: str, thinks: bool
) -> None:
    """A ``Reconnect`` decision has no effect if the body has ended meanwhile."""
    transport = MemoryTransport()
    with trio.fail_after(60):
        async with connect(URL, Stubborn(2 if thinks else 0.001), transport=transport) as conn:
            far = await transport.accept()
            await far.write([Close(1012)])
            if thinks:
                await far.send_eof()
            await trio.sleep(1)
            if leave == "aclose":
                await conn.aclose()
            elif leave == "abort":
                left = trio.current_time()
                conn.abort()
                await conn.wait_closed()
                assert trio.current_time() == left
    assert len(transport.dialed) == 1


async def test_nothing_is_accepted_after_abort(autojump_clock: MockClock) -> None:
    """``send`` raises immediately after ``abort()``, before the next step of the scheduler."""
    async with connect(URL, transport=MemoryTransport()) as conn:
        conn.abort()
        with pytest.raises(ConnectionClosed):
            conn.send_nowait("too late")


class Reluctant(Socket[str]):
    """Aborts in ``init_stream``."""

    def __init__(self) -> None:
        self.called: list[str] = []

    def init_stream(self, info: ConnectionInfo) -> str:
        info.connection.abort()
        return "state"

    def handle_connect(self, info: ConnectionInfo, state: str) -> Any:
        self.called.append("handle_connect")
        return None, state

    def terminate(self, reason: Any, state: str) -> None:
        self.called.append("terminate")


async def test_abort_in_init_stream(autojump_clock: MockClock) -> None:
    """After ``abort()`` only ``terminate`` is called."""
    reluctant = Reluctant()
    async with connect(URL, reluctant, transport=MemoryTransport()) as conn:
        await conn.wait_closed()
    assert reluctant.called == ["terminate"]


async def test_a_policy_that_raises_at_a_violation_closes_once() -> None:
    """The block raises the exception, and one Close frame is sent."""
    said = bytearray()

    async def script(stream: trio.abc.Stream) -> None:
        await stream.send_all(upgrade(await read_request(stream)) + b"no frame")
        async for data in stream:
            said.extend(data)

    def retryable(reason: Any) -> bool:
        raise LookupError("of the policy")

    with trio.fail_after(10):
        async with serving(script) as port:
            url, policy = f"ws://127.0.0.1:{port}", Backoff(retryable=retryable)
            with pytest.raises(LookupError, match="of the policy"):
                async with connect(url, reconnect=policy, close_timeout=0.3) as conn:
                    await conn.wait_closed()
    assert said[0] == 0x88
    assert len(said) == 6 + (said[1] & 0x7F)


ALL_PLAIN = frozenset(HOOKS)


def test_a_reply_before_handle_connect_waits_behind_data() -> None:
    """It does not belong to the link that is being opened. trio runs the tasks in random order."""
    backoff = (("initial", 1), ("jitter", "none"))
    steps = (Step("peer_ends"), Step("settle"), Step("cast", "reply"), Step("send", ("one", 0)))
    scenario = Scenario(Setup(hooks=ALL_PLAIN, backoff=backoff), (*steps, Step("reconnect")))
    for _ in range(30):
        run(scenario)


FOUND = {
    "a call in the tick in which the nursery closes": Scenario(
        Setup(hooks=ALL_PLAIN, decisions=("again",), attempts=("ok", "hang")),
        (Step("peer_ends"), Step("settle"), Step("call", ("none", None))),
    ),
    "flush and loss in one tick": Scenario(
        Setup(), (Step("send", ("one", 0)), Step("yield"), Step("flush"), Step("peer_drops"))
    ),
    "flush after a loss under a pong": Scenario(
        Setup(),
        (
            *(Step("peer_pings", "none"), Step("yield"), Step("peer_drops"), Step("yield")),
            *(Step("yield"), Step("send", ("one", 0)), Step("yield"), Step("yield")),
            Step("flush"),
        ),
    ),
    "a sender behind the pings of an old link": Scenario(
        Setup(
            peer="silent",
            capacity=3,
            options=(("write_limit", 1), ("ping_interval", 1), ("close_timeout", 1)),
        ),
        (Step("nap", 7), Step("send", ("one", 0)), Step("reconnect", inline=True)),
    ),
    "a violation, and then the body returns": Scenario(
        Setup(hooks=ALL_PLAIN, decisions=("again",), peer="reads"),
        (Step("peer_violates"), Step("settle")),
    ),
    "a block that is cancelled": Scenario(Setup(leave="cancel"), ()),
    "a listener that closes at a violation": Scenario(
        Setup(writes_now=True, interference=("CloseStarted", "close")), (Step("peer_violates"),)
    ),
    "a listener that sends at once while a ping leaves": Scenario(
        Setup(writes_now=True, capacity=3, interference=("FrameSent", "immediate")), (Step("ping"),)
    ),
    "a listener that sends while a message is written, and a reset": Scenario(
        Setup(
            wire="socket" if "socket" in WIRES else "memory",
            writes_now=True,
            interference=("FrameSent", "frame"),
        ),
        (
            *(Step("receive"), Step("yield"), Step("ping"), Step("yield"), Step("yield")),
            Step("peer_resets"),
        ),
    ),
    "several replies of handle_connect to a link that ends": Scenario(
        Setup(
            hooks=ALL_PLAIN,
            connect_actions=("many",),
            peer="silent",
            capacity=0,
            writes_now=True,
            listened=False,
        ),
        (Step("reconnect"), Step("nap", 30.0)),
    ),
}


@pytest.mark.parametrize("name", FOUND)
def test_a_scenario_that_once_failed(name: str) -> None:
    """The scenario passes all checks."""
    run(FOUND[name])
