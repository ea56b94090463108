"""Defects of other clients: heartbeats, rejoins, late messages, memory."""

from __future__ import annotations

import gc
import itertools
import tracemalloc
from typing import Any

import pytest
import trio
import trio.testing

from tests.protocols.clock import MOCK_CLOCK, REAL_CLOCK
from tests.protocols.phoenix.helpers import (
    JOIN,
    JOINED,
    Scripted,
    Step,
    connected,
    joined,
    recv,
    sent,
)
from trioglock.protocols import phoenix
from trioglock.protocols.phoenix import (
    ChannelClosed,
    JoinRefused,
    JoinTimeout,
    Machine,
    PhoenixMessage,
    PushReply,
    PushTimeout,
)
from trioglock.testing import MockPhoenixChannel, MockPhoenixServer, MockTopic, RefuseJoin

pytestmark = MOCK_CLOCK


def reply(ref: str, join_ref: str = '"1"', topic: str = "room:1") -> str:
    return f'[{join_ref},"{ref}","{topic}","phx_reply",{{"response":{{}},"status":"ok"}}]'


# Heartbeats.


async def test_24_heartbeats_of_the_old_connection_do_not_affect_the_new_one() -> None:
    """Neither a missing answer, nor a late one, nor a timer."""
    async with connected() as (server, socket):
        channel = await socket.join("room:1")
        server.answers_heartbeats = False
        await trio.sleep(31)  # a heartbeat waits for its answer
        await server.kill()
        await trio.sleep(1)
        server.answers_heartbeats = True
        client = await server.client()
        late = next(m for m in server.past_clients[0].received if m.event == "heartbeat")
        await client.send(reply(f"{late.ref}", "null", "phoenix"))
        await trio.sleep(120)
        assert channel.join_count == 2
        assert len(server.past_clients) == 1
        beats = [m.ref for m in client.received if m.event == "heartbeat"]
        assert len(beats) == 4
        assert late.ref not in beats


async def test_25_a_dead_link_is_dropped_without_a_closing_handshake() -> None:
    async with MockPhoenixServer(memory=True) as server:
        server.answers_heartbeats = False
        async with phoenix.connect(
            server.url, stream=server.open_stream, close_timeout=1000
        ) as socket:
            channel = await socket.join("room:1")
            while channel.join_count < 2:
                await trio.sleep(1)
            assert trio.current_time() < 65
            assert server.past_clients[0].peer.closed is None
            socket.connection.abort()


async def test_26_reconnecting_after_a_heartbeat_timeout_uses_a_new_url() -> None:
    fresh = itertools.count(1)
    async with MockPhoenixServer(memory=True) as server:
        server.answers_heartbeats = False
        async with phoenix.connect(
            lambda: server.url, params=lambda: {"n": next(fresh)}, stream=server.open_stream
        ) as socket:
            channel = await socket.join("room:1")
            while channel.join_count < 3:
                await trio.sleep(1)
            clients = [*server.past_clients, *server.clients]
            assert [client.params["n"] for client in clients] == ["1", "2", "3"]


async def test_27_no_attempts_after_success_or_after_the_end() -> None:
    async with MockPhoenixServer(memory=True) as server:
        async with phoenix.connect(server.url, stream=server.open_stream) as socket:
            await socket.join("room:1")
            await server.kill()
            await trio.sleep(1000)
            assert len(server.peers) == 2
        await trio.sleep(1000)
        assert len(server.peers) == 2


@pytest.mark.slow
async def test_28_ordinary_traffic_does_not_postpone_the_heartbeat() -> None:
    """Servers disconnect after a minute without a heartbeat."""
    async with connected() as (server, socket):
        channel = await socket.join("room:1")
        for _ in range(300):
            await channel.push("echo")
            await trio.sleep(1)
        client = await server.client()
        beats = [m for m in client.received if m.event == "heartbeat"]
        assert len(beats) == pytest.approx(10, abs=1)


# Joins.


@pytest.mark.parametrize("event", ["phx_close", "phx_error"])
async def test_29_a_late_end_of_an_old_join_is_ignored(in_memory: Scripted, event: str) -> None:
    script: list[Step] = [
        *recv('["1","1","room:1","phx_error",{}]'),
        *sent('["2","2","room:1","phx_join",{}]'),
        *recv(reply("2", '"2"'), f'["1","1","room:1","{event}",{{}}]'),
        *recv('["2",null,"room:1","hello",{}]'),
    ]
    async with joined(in_memory, script, rejoin_delays=(0.01,)) as (socket, channel):
        assert await channel.receive() == ("hello", {})
        assert channel.joined
        assert channel.join_count == 2
        assert socket.statistics().ignored == 1


async def test_30_joining_and_leaving_immediately(in_memory: Scripted) -> None:
    """One join and one leave are sent, and nothing after that."""
    script = [
        *JOIN,
        *sent('["1","2","room:1","phx_leave",{}]'),
        *JOINED,
        *recv(reply("2"), '["1","1","room:1","phx_close",{}]'),
    ]
    async with in_memory(script) as socket:
        channel = await socket.join_soon("room:1")
        await channel.leave()
        with pytest.raises(ChannelClosed):
            await channel.wait_joined()
        await trio.sleep(50)
        assert socket.statistics() == phoenix.PhoenixStatistics(
            channels=0, pending=0, ignored=0, invalid=0
        )


async def test_30_a_join_during_an_outage_waits() -> None:
    """It is sent once, after reconnecting."""
    async with connected() as (server, socket):
        server.reject(503, times=6)
        await server.kill()
        await trio.testing.wait_all_tasks_blocked()
        channel = await socket.join("room:1")
        assert channel.join_count == 1
        [client] = server.clients
        assert [m.event for m in client.received] == ["phx_join"]


@pytest.mark.slow
async def test_a_join_during_a_long_outage_times_out() -> None:
    """It is not sent after reconnecting."""
    async with connected() as (server, socket):
        server.reject(503, times=100)
        await server.kill()
        await trio.testing.wait_all_tasks_blocked()
        began = trio.current_time()
        with pytest.raises(JoinTimeout):
            await socket.join("room:1", timeout=5)
        assert trio.current_time() - began == pytest.approx(5)
        assert socket.statistics().channels == 0
        await trio.sleep(2000)
        [client] = server.clients
        assert {m.event for m in client.received} == {"heartbeat"}


async def test_a_cancelled_join_leaves_the_topic(in_memory: Scripted) -> None:
    script = [
        *JOIN,
        *sent('["1","2","room:1","phx_leave",{}]'),
        *sent('["3","3","room:1","phx_join",{}]'),
        *JOINED,
        *recv(reply("2"), '["1","1","room:1","phx_close",{}]', reply("3", '"3"')),
    ]
    async with in_memory(script) as socket:
        with trio.move_on_after(1):
            await socket.join("room:1")
        assert (await socket.join("room:1")).joined
        assert socket.statistics().ignored == 0


# Replies.


async def test_31_a_buffered_push_gets_one_ref_when_it_is_sent(in_memory: Scripted) -> None:
    """Pushes before the reply to the join are sent in order, once each."""
    script = [
        *JOIN,
        *JOINED,
        *sent('["1","2","room:1","a",{}]', '["1","3","room:1","b",{}]'),
        *sent('["1","4","room:1","c",{}]'),
        *recv(reply("3"), reply("4"), reply("2")),
    ]
    order: list[str] = []
    async with in_memory(script) as socket, trio.open_nursery() as nursery:
        channel = await socket.join_soon("room:1")

        async def push(event: str) -> None:
            assert (await channel.push(event)).ok
            order.append(event)

        for event in "abc":
            nursery.start_soon(push, event)
            await trio.testing.wait_all_tasks_blocked()
        await channel.wait_joined()
    assert sorted(order) == ["a", "b", "c"]


async def test_31_a_reply_in_time_is_no_timeout() -> None:
    """A late one is ignored and does not affect the next push."""

    class Slow(MockPhoenixChannel):
        async def on_event(self, event: str, payload: Any) -> Any:
            await trio.sleep(payload)
            return "ok", payload

    async with connected({"slow:*": Slow}) as (_server, socket):
        channel = await socket.join("slow:1")
        assert (await channel.push("wait", 9.999)).response == 9.999
        with pytest.raises(PushTimeout):
            await channel.push("wait", 10.001)
        assert (await channel.push("wait", 0)).response == 0
        assert socket.statistics().ignored == 1
        assert (await channel.push("wait", 60, timeout=61)).ok


async def test_late_duplicate_reordered_and_unknown_replies(in_memory: Scripted) -> None:
    """Each push gets its own reply."""
    script = [
        *JOINED,
        *recv(reply("77"), reply("0"), reply("2", topic="room:2"), reply("2", '"99"')),
        *recv('["1",null,"room:1","phx_reply",{"response":{},"status":"ok"}]'),
        *recv('["1","2","room:1","phx_reply",{"response":{}}]'),
        *recv('["1","2","room:1","phx_reply","ok"]'),
        *sent('["1","2","room:1","a",{}]', '["1","3","room:1","b",{}]'),
        *recv(reply("3"), reply("3"), reply("2"), reply("2"), reply("1")),
        *sent('["1","4","room:1","last",{}]'),
        *recv(reply("4")),
    ]
    async with joined(in_memory, script) as (socket, channel):
        async with trio.open_nursery() as nursery:
            for event in ("a", "b"):
                nursery.start_soon(channel.push, event)
                await trio.sleep(0.01)
        assert await channel.push("last") == PushReply("ok", {})
        assert socket.statistics().ignored == 11


async def test_an_answer_after_the_timeout_of_a_join_is_ignored(in_memory: Scripted) -> None:
    script = [
        *JOIN,
        *sent('["1","2","room:1","phx_leave",{}]'),
        *JOINED,
        *recv('["1",null,"room:1","hello",{}]', reply("2"), '["1","1","room:1","phx_close",{}]'),
        *sent('["3","3","room:1","phx_join",{}]'),
        *recv(reply("3", '"3"')),
    ]
    async with in_memory(script) as socket:
        with pytest.raises(JoinTimeout):
            await socket.join("room:1")
        channel = await socket.join("room:1")
        assert channel.join_count == 1
        with pytest.raises(trio.WouldBlock):
            channel.receive_nowait()


async def test_rejoin_delays() -> None:
    """1, 2, 5, then 10 seconds."""
    times: list[float] = []

    class Unreliable(MockPhoenixChannel):
        async def on_join(self, payload: Any) -> Any:
            times.append(trio.current_time())
            if 1 < len(times) < 7:
                raise RefuseJoin({"reason": "not now"})
            return {}

    async with connected({"unreliable:*": Unreliable}) as (server, socket):
        channel = await socket.join("unreliable:1")
        client = await server.client()
        await client.channels["unreliable:1"].crash()
        await trio.sleep(4)
        assert isinstance(channel.last_error, JoinRefused)
        while channel.join_count < 2:
            await trio.sleep(0.1)
        waits = [after - before for before, after in itertools.pairwise(times)]
        assert waits == pytest.approx([1, 2, 5, 10, 10, 10], abs=0.01)
        await client.channels["unreliable:1"].crash()
        await trio.sleep(1.01)
        assert channel.join_count == 3  # the delays start over


async def test_a_push_during_an_outage_is_sent_after_the_rejoin() -> None:
    """Unless its timeout has passed."""
    async with connected() as (server, socket):
        channel = await socket.join("room:1")
        server.reject(503, times=8)
        await server.kill()
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(PushTimeout):
            await channel.push("echo", "early", timeout=0.001)
        with pytest.raises(PushTimeout):
            await channel.send("echo", "early too", timeout=0.001)
        await channel.send("echo", "sent")
        assert (await channel.push("echo", "late", timeout=60)).response == "late"
        client = await server.client()
        assert [m.payload for m in client.received] == [{}, "sent", "late"]


# Size.


@pytest.mark.slow
async def test_32_memory_is_constant_over_10000_failed_joins() -> None:
    """Refused, left, or timed out."""
    machine = Machine()
    machine.connect(0)
    numbers = itertools.count()

    def fail_joins(times: int) -> None:
        for number in itertools.islice(numbers, times):
            channel, [_ask] = machine.join(f"room:{number}", 10, number + 10)
            machine.push(channel, "x", {}, number + 10)
            [send] = machine.payload(channel, 1, {})
            ref = send.message.ref  # type: ignore[union-attr]
            if number % 3 == 0:
                refusal = {"status": "error", "response": {"reason": "unauthorized"}}
                machine.received(
                    PhoenixMessage(ref, ref, f"room:{number}", "phx_reply", refusal), number
                )
            elif number % 3 == 1:
                machine.leave(channel, number + 10)
            machine.tick(number)

    fail_joins(1000)
    gc.collect()
    tracemalloc.start()
    try:
        fail_joins(2000)  # 1,000 left joins are remembered
        before = tracemalloc.get_traced_memory()[0]
        fail_joins(10_000)
        machine.tick(10**7)
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert machine.pending == 0
    assert grown < 20_000


async def test_32_refused_joins_over_a_socket_leave_nothing_behind() -> None:
    async with connected() as (_server, socket):
        for _ in range(100):
            with pytest.raises(JoinRefused):
                await socket.join("room:forbidden")
        assert socket.statistics() == phoenix.PhoenixStatistics(
            channels=0, pending=0, ignored=0, invalid=0
        )


@REAL_CLOCK
@pytest.mark.slow
async def test_1000_topics_on_one_socket() -> None:
    """Each has its own queue and replies, also after reconnecting."""
    with trio.fail_after(300):
        async with (
            MockPhoenixServer(max_channels=1000) as server,
            phoenix.connect(server.url) as socket,
        ):
            channels = [await socket.join_soon(f"room:{n}") for n in range(1000)]
            for channel in channels:
                await channel.wait_joined()
                assert await channel.receive() == ("hello", {"topic": channel.topic})
            with pytest.raises(JoinRefused, match="too many"):
                await socket.join("room:one too many")
            await server.kill()
            for channel in channels:
                assert await channel.receive() == ("hello", {"topic": channel.topic})
                assert channel.join_count == 2
            replies: list[Any] = []

            async def push(channel: phoenix.Channel) -> None:
                reply = await channel.push("echo", channel.topic)
                replies.append(reply.response == channel.topic)

            async with trio.open_nursery() as nursery:
                for channel in channels:
                    nursery.start_soon(push, channel)
            assert replies == [True] * 1000


async def test_the_default_channel_of_the_mock_server() -> None:
    async with connected() as (server, socket):
        await socket.join("room:1")
        assert type((await server.client()).channels["room:1"]) is MockTopic
        with pytest.raises(JoinRefused, match="unmatched topic"):
            await socket.join("nope:1")
