"""Every line that servers were seen to send is understood, and answered as they understand it."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from tests.protocols.phoenix.conversation import Conversation, Step, recv, sent
from trioglock.protocols.phoenix import (
    ChannelClosed,
    ChannelCrashed,
    JoinRefused,
    Presence,
    PushReply,
)

JOIN = sent('["1","1","room:1","phx_join",{}]')
JOINED = recv('["1","1","room:1","phx_reply",{"response":{},"status":"ok"}]')


# Text.


async def test_a_join_is_answered_and_a_push_follows(talk: Conversation) -> None:
    """A join carries its payload and one ref twice; the response and the first push arrive."""
    script = [
        *sent('["1","1","room:1","phx_join",{"name":"al"}]'),
        *recv('["1","1","room:1","phx_reply",{"response":{"welcome":"room:1"},"status":"ok"}]'),
        *recv('["1",null,"room:1","hello",{"topic":"room:1"}]'),
    ]
    async with talk(script) as socket:
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
async def test_a_refused_join_raises_what_the_server_says(
    talk: Conversation, join_ref: str, reason: str
) -> None:
    """Refused, crashed, unknown, too many: JoinRefused, and the topic is free again."""
    script = [
        *JOIN,
        *recv(
            f'[{join_ref},"1","room:1","phx_reply",'
            f'{{"response":{{"reason":"{reason}"}},"status":"error"}}]'
        ),
        *sent('["2","2","room:1","phx_join",{}]'),
        *recv('["2","2","room:1","phx_reply",{"response":{},"status":"ok"}]'),
    ]
    async with talk(script) as socket:
        with pytest.raises(JoinRefused) as caught:
            await socket.join("room:1")
        assert caught.value.response == {"reason": reason}
        assert (await socket.join("room:1")).joined


@pytest.mark.parametrize(
    ("status", "response"), [("ok", {"a": 1}), ("ok", {}), ("error", {}), ("other", [1, None])]
)
async def test_a_push_gets_its_reply(talk: Conversation, status: str, response: Any) -> None:
    """Any status and any response come back as they are; the push carries join_ref and ref."""
    text = str(response).replace("'", '"').replace("None", "null")
    script = [
        *JOIN,
        *JOINED,
        *sent('["1","2","room:1","echo",{"a":1}]'),
        *recv(f'["1","2","room:1","phx_reply",{{"response":{text},"status":"{status}"}}]'),
    ]
    async with talk(script) as socket:
        channel = await socket.join("room:1")
        reply = await channel.push("echo", {"a": 1})
        assert reply == PushReply(status, response)
        assert reply.ok is (status == "ok")


async def test_broadcasts_and_intercepted_messages_arrive(talk: Conversation) -> None:
    """A broadcast has neither ref, an intercepted one has the join_ref."""
    script = [
        *JOIN,
        *JOINED,
        *recv('[null,null,"room:1","shout",{"m":"hi"}]', '["1",null,"room:1","intercepted",{}]'),
    ]
    async with talk(script) as socket:
        channel = await socket.join("room:1")
        assert await channel.receive() == ("shout", {"m": "hi"})
        assert await channel.receive() == ("intercepted", {})


async def test_the_heartbeat_is_a_message_on_the_topic_phoenix(talk: Conversation) -> None:
    """It has a ref and no join_ref, and its answer is heard and handed to nobody."""
    script = [
        *sent('[null,"1","phoenix","heartbeat",{}]'),
        *recv('[null,"1","phoenix","phx_reply",{"response":{},"status":"ok"}]'),
        *sent('[null,"2","phoenix","heartbeat",{}]'),
    ]
    async with talk(script, ping_interval=0.05) as socket:
        while socket.connection.latency is None:
            await trio.sleep(0.01)
        await trio.sleep(0.1)
        assert socket.statistics().ignored == 0


@pytest.mark.parametrize("payload", ["{}", '{"reason":"channel_crash"}'])
async def test_a_crashed_channel_is_joined_again(talk: Conversation, payload: str) -> None:
    """After phx_error a new join with a new ref follows, and what the old one sends is ignored."""
    script = [
        *JOIN,
        *JOINED,
        *sent('["1","2","room:1","no such event",{}]'),
        *recv(f'["1","1","room:1","phx_error",{payload}]'),
        *sent('["3","3","room:1","phx_join",{}]'),
        *recv('["3","3","room:1","phx_reply",{"response":{"again":true},"status":"ok"}]'),
        *recv('["1",null,"room:1","late",{}]', '["3",null,"room:1","hello",{}]'),
    ]
    async with talk(script, rejoin_delays=(0.05,)) as socket:
        channel = await socket.join("room:1")
        with pytest.raises(ChannelCrashed):
            await channel.push("no such event")
        assert isinstance(channel.last_error, ChannelCrashed)
        assert await channel.receive() == ("hello", {})
        assert (channel.join_count, channel.response) == (2, {"again": True})
        recovered: Exception | None = channel.last_error
        assert recovered is None


async def test_a_stopped_channel_ends_and_so_do_its_pushes(talk: Conversation) -> None:
    """phx_close instead of a reply: the push fails, the loop ends, nothing is joined again."""
    script = [
        *JOIN,
        *JOINED,
        *sent('["1","2","room:1","stop",{}]'),
        *recv('["1",null,"room:1","last",{}]', '["1","1","room:1","phx_close",{}]'),
    ]
    async with talk(script) as socket:
        channel = await socket.join("room:1")
        with pytest.raises(ChannelClosed):
            await channel.push("stop")
        assert [event async for event, _ in channel] == ["last"]
        assert channel.closed


async def test_a_leave_is_answered_and_then_closed(talk: Conversation) -> None:
    """phx_leave carries the join_ref; the phx_close that follows the reply is for nobody."""
    script = [
        *JOIN,
        *JOINED,
        *sent('["1","2","room:1","phx_leave",{}]'),
        *recv('["1","2","room:1","phx_reply",{"response":{},"status":"ok"}]'),
        *recv('["1","1","room:1","phx_close",{}]'),
        *sent('["3","3","room:1","phx_join",{}]'),
        *recv('["3","3","room:1","phx_reply",{"response":{},"status":"ok"}]'),
    ]
    async with talk(script) as socket:
        channel = await socket.join("room:1")
        await channel.leave()
        assert channel.closed
        assert (await socket.join("room:1")).joined
        assert socket.statistics().ignored == 1


@pytest.mark.parametrize("payload", [{}, b"\x01"])
async def test_a_server_that_does_not_know_the_topic_says_so_in_text(
    talk: Conversation, payload: Any
) -> None:
    """The reply to a push has no join_ref then, and is text also where the push was binary."""
    push = '["1","2","room:1","x",{}]' if payload == {} else b"\x00\x01\x01\x06\x0112room:1x\x01"
    unmatched = '{"response":{"reason":"unmatched topic"},"status":"error"}'
    script = [*JOIN, *JOINED, *sent(push), *recv(f'[null,"2","room:1","phx_reply",{unmatched}]')]
    async with talk(script) as socket:
        channel = await socket.join("room:1")
        assert await channel.push("x", payload) == PushReply("error", {"reason": "unmatched topic"})


@pytest.mark.parametrize("diff_first", [False, True])
async def test_presence_is_right_whichever_comes_first(
    talk: Conversation, diff_first: bool
) -> None:
    """The first diff may come before the state or after it."""
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
    async with talk(script) as socket:
        channel = await socket.join("room:1", presence=presence)
        assert await channel.receive() == ("end", {})
    assert presence.state == {
        "al": {"metas": [{"phx_ref": "F1", "online": True}]},
        "bo": {"metas": [{"phx_ref": "F0"}]},
    }


# Binary.


async def test_a_binary_push_has_a_binary_reply(talk: Conversation) -> None:
    """The layout is that of the wire, byte for byte; lengths count UTF-8."""
    script = [
        *sent('["1","1","röom:1","phx_join",{}]'),
        *recv('["1","1","röom:1","phx_reply",{"response":{},"status":"ok"}]'),
        *sent(bytes.fromhex("0001010706") + "12röom:1binary".encode() + b"\x01\x02\xfe\x00"),
        *recv(bytes.fromhex("0101010702") + "12röom:1ok".encode() + b"\x01\x02\xfe\x00"),
    ]
    async with talk(script) as socket:
        channel = await socket.join("röom:1")
        reply = await channel.push("binary", bytearray(b"\x01\x02\xfe\x00"))
        assert reply == PushReply("ok", b"\x01\x02\xfe\x00")


async def test_binary_pushes_and_broadcasts_arrive(talk: Conversation) -> None:
    """A push of the server's has no ref, a broadcast no join_ref either; both arrive as bytes."""
    script = [
        *JOIN,
        *JOINED,
        *recv(bytes.fromhex("0001060d") + b"1room:1binary_pushed\xaa\xbb"),
        *recv(bytes.fromhex("02060c") + b"room:1shout_binary\xcc"),
        *recv(bytes.fromhex("020605") + b"room:1empty"),
        *recv(bytes.fromhex("00010604") + b"9room:1late\xdd"),
        *recv(bytes.fromhex("00000604") + b"room:1none\xee"),
    ]
    async with talk(script) as socket:
        channel = await socket.join("room:1")
        got = [await channel.receive() for _ in range(4)]
        assert got == [
            ("binary_pushed", b"\xaa\xbb"),
            ("shout_binary", b"\xcc"),
            ("empty", b""),
            ("none", b"\xee"),
        ]
        assert socket.statistics().ignored == 1


async def test_an_empty_binary_payload_is_legal(talk: Conversation) -> None:
    """Both ways, and an error reply may be binary as well."""
    script = [
        *JOIN,
        *JOINED,
        *sent(b"\x00\x01\x01\x06\x0112room:1e"),
        *recv(b"\x01\x01\x01\x06\x0512room:1error"),
    ]
    async with talk(script) as socket:
        channel = await socket.join("room:1")
        assert await channel.push("e", b"") == PushReply("error", b"")


async def test_messages_that_are_none_are_counted_and_not_fatal(talk: Conversation) -> None:
    """Not JSON, too short, of wrong types, cut short: each is counted, and the next is heard."""
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
    script = [*JOIN, *JOINED, *recv(*nonsense, '["1",null,"room:1","x",{}]')]
    async with talk(script) as socket:
        channel = await socket.join("room:1")
        assert await channel.receive() == ("x", {})
        assert socket.statistics().invalid == len(nonsense)
