"""Every frame that real servers send is understood, and sent in their format."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from tests.protocols.phoenix.helpers import JOIN, JOINED, Scripted, Step, joined, recv, sent
from trioglock.protocols.phoenix import (
    ChannelClosed,
    ChannelCrashed,
    JoinRefused,
    Presence,
    PushReply,
)

# Text.


async def test_a_join_and_its_reply(in_memory: Scripted) -> None:
    """The ref of the join is sent twice."""
    script = [
        *sent('["1","1","room:1","phx_join",{"name":"al"}]'),
        *recv('["1","1","room:1","phx_reply",{"response":{"welcome":"room:1"},"status":"ok"}]'),
        *recv('["1",null,"room:1","hello",{"topic":"room:1"}]'),
    ]
    async with in_memory(script) as socket:
        channel = await socket.join("room:1", {"name": "al"})
        assert channel.response == {"welcome": "room:1"}
        assert await channel.receive() == ("hello", {"topic": "room:1"})


@pytest.mark.parametrize(
    ("join_ref", "reason"),
    [
        ('"1"', "unauthorized"),
        ('"1"', "join crashed"),
        ("null", "unmatched topic"),
        ('"1"', "too many channels joined"),
    ],
)
async def test_a_refused_join_raises_the_response(
    in_memory: Scripted, join_ref: str, reason: str
) -> None:
    """The topic can be joined again."""
    script = [
        *JOIN,
        *recv(
            f'[{join_ref},"1","room:1","phx_reply",'
            f'{{"response":{{"reason":"{reason}"}},"status":"error"}}]'
        ),
        *sent('["2","2","room:1","phx_join",{}]'),
        *recv('["2","2","room:1","phx_reply",{"response":{},"status":"ok"}]'),
    ]
    async with in_memory(script) as socket:
        with pytest.raises(JoinRefused) as caught:
            await socket.join("room:1")
        assert caught.value.response == {"reason": reason}
        assert (await socket.join("room:1")).joined


@pytest.mark.parametrize(
    ("status", "response"), [("ok", {"a": 1}), ("ok", {}), ("error", {}), ("other", [1, None])]
)
async def test_a_push_and_its_reply(in_memory: Scripted, status: str, response: Any) -> None:
    """With every status and response."""
    text = str(response).replace("'", '"').replace("None", "null")
    script = [
        *sent('["1","2","room:1","echo",{"a":1}]'),
        *recv(f'["1","2","room:1","phx_reply",{{"response":{text},"status":"{status}"}}]'),
    ]
    async with joined(in_memory, script) as (_socket, channel):
        reply = await channel.push("echo", {"a": 1})
        assert reply == PushReply(status, response)
        assert reply.ok is (status == "ok")


async def test_broadcasts_and_intercepted_messages(in_memory: Scripted) -> None:
    """A broadcast has no refs, an intercepted message has the join_ref."""
    script = [
        *recv('[null,null,"room:1","shout",{"m":"hi"}]', '["1",null,"room:1","intercepted",{}]'),
    ]
    async with joined(in_memory, script) as (_socket, channel):
        assert await channel.receive() == ("shout", {"m": "hi"})
        assert await channel.receive() == ("intercepted", {})


async def test_the_heartbeat_is_a_message_on_the_topic_phoenix(scripted: Scripted) -> None:
    """It has a ref and no join_ref; its answer is not delivered."""
    script = [
        *sent('[null,"1","phoenix","heartbeat",{}]'),
        *recv('[null,"1","phoenix","phx_reply",{"response":{},"status":"ok"}]'),
        *sent('[null,"2","phoenix","heartbeat",{}]'),
    ]
    async with scripted(script, ping_interval=0.05) as socket:
        while socket.connection.latency is None:
            await trio.sleep(0.01)
        await trio.sleep(0.1)
        assert socket.statistics().ignored == 0


@pytest.mark.parametrize("payload", ["{}", '{"reason":"channel_crash"}'])
async def test_a_crashed_channel_is_joined_again(in_memory: Scripted, payload: str) -> None:
    """With a new ref; messages of the old join are ignored."""
    script = [
        *sent('["1","2","room:1","no such event",{}]'),
        *recv(f'["1","1","room:1","phx_error",{payload}]'),
        *sent('["3","3","room:1","phx_join",{}]'),
        *recv('["3","3","room:1","phx_reply",{"response":{"again":true},"status":"ok"}]'),
        *recv('["1",null,"room:1","late",{}]', '["3",null,"room:1","hello",{}]'),
    ]
    async with joined(in_memory, script, rejoin_delays=(0.05,)) as (_socket, channel):
        with pytest.raises(ChannelCrashed):
            await channel.push("no such event")
        assert isinstance(channel.last_error, ChannelCrashed)
        assert await channel.receive() == ("hello", {})
        assert (channel.join_count, channel.response) == (2, {"again": True})
        recovered: Exception | None = channel.last_error
        assert recovered is None


async def test_phx_close_ends_a_channel_and_its_pushes(in_memory: Scripted) -> None:
    """It is not joined again."""
    script = [
        *sent('["1","2","room:1","stop",{}]'),
        *recv('["1",null,"room:1","last",{}]', '["1","1","room:1","phx_close",{}]'),
    ]
    async with joined(in_memory, script) as (_socket, channel):
        with pytest.raises(ChannelClosed):
            await channel.push("stop")
        assert [event async for event, _ in channel] == ["last"]
        assert channel.closed


async def test_fault_27_an_ordinary_leave_is_not_counted_as_ignored(in_memory: Scripted) -> None:
    """Neither the phx_close after the reply, nor a broadcast that was on its way."""
    script = [
        *sent('["1","2","room:1","phx_leave",{}]'),
        *recv('[null,null,"room:1","shout",{}]'),
        *recv('["1",null,"room:1","news",{}]'),
        *recv('["1","2","room:1","phx_reply",{"response":{},"status":"ok"}]'),
        *recv('["1","1","room:1","phx_close",{}]'),
        *sent('["3","3","room:1","phx_join",{}]'),
        *recv('["3","3","room:1","phx_reply",{"response":{},"status":"ok"}]'),
    ]
    async with joined(in_memory, script) as (socket, channel):
        await channel.leave()
        assert channel.closed
        assert (await socket.join("room:1")).joined
        assert socket.statistics().ignored == 0


@pytest.mark.slow
async def test_messages_after_the_end_of_a_left_channel_are_counted(in_memory: Scripted) -> None:
    """The second phx_close is a duplicate."""
    script = [
        *sent('["1","2","room:1","phx_leave",{"why":"bye"}]'),
        *recv('["1","2","room:1","phx_reply",{"response":{},"status":"ok"}]'),
        *recv('["1","1","room:1","phx_close",{}]'),
        *recv('["1","1","room:1","phx_close",{}]', '[null,null,"room:1","shout",{}]'),
    ]
    async with joined(in_memory, script) as (socket, channel):
        await channel.leave({"why": "bye"})
        await trio.sleep(1)
        assert socket.statistics().ignored == 2


@pytest.mark.parametrize("payload", ["{}", '{"reason":"channel_crash"}'])
async def test_fault_23_a_crash_answers_a_leave(in_memory: Scripted, payload: str) -> None:
    """The server sends no reply if the channel crashes before it handles the leave."""
    script = [
        *sent('["1","2","room:1","crash",{}]', '["1","3","room:1","phx_leave",{}]'),
        *recv(f'["1","1","room:1","phx_error",{payload}]'),
        *sent('["4","4","room:1","phx_join",{}]'),
        *recv('["4","4","room:1","phx_reply",{"response":{},"status":"ok"}]'),
    ]
    async with joined(in_memory, script) as (socket, channel):
        began = trio.current_time()
        await channel.send("crash")
        await channel.leave()
        assert trio.current_time() < began + 5
        assert (await socket.join("room:1")).joined
        assert socket.statistics().ignored == 0


@pytest.mark.parametrize("payload", [{}, b"\x01"])
async def test_an_unmatched_topic(in_memory: Scripted, payload: Any) -> None:
    """The reply has no join_ref, and is text even if the push was binary."""
    push = '["1","2","room:1","x",{}]' if payload == {} else b"\x00\x01\x01\x06\x0112room:1x\x01"
    unmatched = '{"response":{"reason":"unmatched topic"},"status":"error"}'
    script = [*sent(push), *recv(f'[null,"2","room:1","phx_reply",{unmatched}]')]
    async with joined(in_memory, script) as (_socket, channel):
        assert await channel.push("x", payload) == PushReply("error", {"reason": "unmatched topic"})


@pytest.mark.parametrize("diff_first", [False, True])
async def test_the_order_of_presence_state_and_diff(in_memory: Scripted, diff_first: bool) -> None:
    """The first diff may arrive before the state or after it."""
    diff = (
        '[null,null,"room:1","presence_diff",'
        '{"joins":{"al":{"metas":[{"phx_ref":"F1","online":true}]}},"leaves":{}}]'
    )
    state = (
        '["1",null,"room:1","presence_state",'
        '{"al":{"metas":[{"phx_ref":"F1","online":true}]},"bo":{"metas":[{"phx_ref":"F0"}]}}]'
    )
    both = [diff, state] if diff_first else [state, diff]
    presence = Presence()
    script: list[Step] = [*JOIN, *JOINED, *recv(*both, '["1",null,"room:1","end",{}]')]
    async with in_memory(script) as socket:
        channel = await socket.join("room:1", presence=presence)
        assert await channel.receive() == ("end", {})
    assert presence.state == {
        "al": {"metas": [{"phx_ref": "F1", "online": True}]},
        "bo": {"metas": [{"phx_ref": "F0"}]},
    }


# Binary.


async def test_a_binary_push_and_its_reply(scripted: Scripted) -> None:
    """Lengths are counted in UTF-8 bytes."""
    script = [
        *sent('["1","1","röom:1","phx_join",{}]'),
        *recv('["1","1","röom:1","phx_reply",{"response":{},"status":"ok"}]'),
        *sent(bytes.fromhex("0001010706") + "12röom:1binary".encode() + b"\x01\x02\xfe\x00"),
        *recv(bytes.fromhex("0101010702") + "12röom:1ok".encode() + b"\x01\x02\xfe\x00"),
    ]
    async with scripted(script) as socket:
        channel = await socket.join("röom:1")
        reply = await channel.push("binary", bytearray(b"\x01\x02\xfe\x00"))
        assert reply == PushReply("ok", b"\x01\x02\xfe\x00")


async def test_binary_pushes_and_broadcasts(in_memory: Scripted) -> None:
    """A push has no ref, a broadcast has no join_ref either."""
    script = [
        *recv(bytes.fromhex("0001060d") + b"1room:1binary_pushed\xaa\xbb"),
        *recv(bytes.fromhex("02060c") + b"room:1shout_binary\xcc"),
        *recv(bytes.fromhex("020605") + b"room:1empty"),
        *recv(bytes.fromhex("00010604") + b"9room:1late\xdd"),
        *recv(bytes.fromhex("00000604") + b"room:1none\xee"),
    ]
    async with joined(in_memory, script) as (socket, channel):
        got = [await channel.receive() for _ in range(4)]
        assert got == [
            ("binary_pushed", b"\xaa\xbb"),
            ("shout_binary", b"\xcc"),
            ("empty", b""),
            ("none", b"\xee"),
        ]
        assert socket.statistics().ignored == 1


async def test_an_empty_binary_payload(in_memory: Scripted) -> None:
    """In both directions; an error reply may be binary as well."""
    script = [
        *sent(b"\x00\x01\x01\x06\x0112room:1e"),
        *recv(b"\x01\x01\x01\x06\x0512room:1error"),
    ]
    async with joined(in_memory, script) as (_socket, channel):
        assert await channel.push("e", b"") == PushReply("error", b"")


async def test_malformed_messages_are_counted(in_memory: Scripted) -> None:
    """They do not end the connection."""
    nonsense: list[str | bytes] = [
        "{",
        "[]",
        "{}",
        '["1",null,"room:1","x"]',
        '[1,null,"room:1","x",{}]',
        '["1",null,7,"x",{}]',
        b"",
        b"\x07",
        b"\x00\x01\x06",
        b"\x02\x06\xff" + b"room:1",
        b"\x02\x01\x01\xff\xfe",
    ]
    script = [*recv(*nonsense, '["1",null,"room:1","x",{}]')]
    async with joined(in_memory, script) as (socket, channel):
        assert await channel.receive() == ("x", {})
        assert socket.statistics().invalid == len(nonsense)
