"""The serializers of the server and of the client, which are inverse to each other."""

from __future__ import annotations

import json
from contextlib import suppress
from enum import Enum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.strategies import CHARACTERS
from trioglock.channels.topics import add_origin, split_origin
from trioglock.codecs import JSON
from trioglock.codecs.json import LIBRARIES
from trioglock.errors import DecodeError, EncodeError
from trioglock.protocols.phoenix import InvalidMessage, PhoenixMessage, V2Serializer
from trioglock.protocols.phoenix.serializer import JoinReplies, V2ServerSerializer
from trioglock.pubsub.redis.history import decode_data

client, server = V2Serializer(), V2ServerSerializer()
servers = [V2ServerSerializer(JSON(library=library)) for library in LIBRARIES]  # type: ignore[call-overload]

text = st.text(CHARACTERS, max_size=20)
origins = st.from_regex(r"[0-9a-f]{16}-[0-9]{1,9}", fullmatch=True, alphabet=CHARACTERS)
refs = st.none() | st.text("0123456789", min_size=1, max_size=5)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)
payloads = json_values | st.binary(max_size=30)


@given(st.builds(PhoenixMessage, refs, refs, text, text, payloads))
def test_the_server_decodes_what_a_client_encodes(message: PhoenixMessage) -> None:
    assert server.decode(client.encode(message)) == message


@given(st.builds(PhoenixMessage, refs, st.none(), text, text, payloads))
def test_a_client_decodes_a_push(message: PhoenixMessage) -> None:
    assert client.decode(server.encode(message)) == message


@given(refs, refs, text, text, payloads)
def test_a_client_decodes_a_reply(
    join_ref: str | None, ref: str | None, topic: str, status: str, response: Any
) -> None:
    payload = {"response": response, "status": status}
    message = PhoenixMessage(join_ref, ref, topic, "phx_reply", payload)
    assert client.decode(server.encode(message)) == message


@given(refs | st.integers(0, 9), refs | st.integers(0, 9), text, text, payloads)
def test_a_reply_to_a_push_has_the_frame_of_its_message(
    join_ref: Any, ref: Any, topic: str, status: str, response: Any
) -> None:
    payload = {"response": response, "status": status}
    frame = server.encode(PhoenixMessage(join_ref, ref, topic, "phx_reply", payload))
    replies = JoinReplies(join_ref, topic)
    for one in servers:
        assert one.encode_reply(replies, ref, status, response) == frame


class Status(str, Enum):  # noqa: UP042 - formatted, it is not its value
    OK = "ok"


@pytest.mark.parametrize("serializer", servers)
def test_a_reply_may_be_nested_as_deeply_as_any_message(serializer: V2ServerSerializer) -> None:
    replies, value = JoinReplies("1", "room:1"), dict[str, Any]()
    for _ in range(197):
        value = {"a": value}
    frame = serializer.encode_reply(replies, "2", "ok", value)
    assert client.decode(frame).payload == {"response": value, "status": "ok"}
    with pytest.raises(EncodeError, match="200 levels"):
        serializer.encode_reply(replies, "2", "ok", {"a": value})


@pytest.mark.parametrize("serializer", servers)
def test_what_cannot_be_sent_in_a_reply(serializer: V2ServerSerializer) -> None:
    replies = JoinReplies("1", "room:1")
    frame = serializer.encode_reply(replies, "2", Status.OK, {})
    assert frame == '["1","2","room:1","phx_reply",{"response":{},"status":"ok"}]'
    for status, response in (("\ud800", {}), ("ok", {1: 2}), ("ok", {"a": "\ud800"})):
        with pytest.raises(EncodeError):
            serializer.encode_reply(replies, "2", status, response)


@given(text, text, payloads)
def test_everyone_decodes_a_broadcast(topic: str, event: str, payload: Any) -> None:
    frame = server.encode_broadcast(topic, event, payload)
    message = PhoenixMessage(None, None, topic, event, payload)
    assert client.decode(frame) == message
    assert server.decode_broadcast(frame) == message


def _through_redis(frame: str | bytes) -> str | bytes:
    return decode_data(frame.encode() if isinstance(frame, str) else frame)


@given(text, text, payloads, origins)
def test_an_origin_can_be_removed_from_a_broadcast(
    topic: str, event: str, payload: Any, origin: str
) -> None:
    frame = server.encode_broadcast(topic, event, payload)
    others = add_origin(frame, origin)
    assert split_origin(frame) == split_origin(_through_redis(frame)) == (frame, None)
    assert split_origin(others) == split_origin(_through_redis(others)) == (frame, origin)


@given(st.binary(max_size=40) | st.text(CHARACTERS, max_size=40) | json_values.map(repr))
def test_any_frame_is_a_message_or_malformed(frame: str | bytes) -> None:
    for decode in (server.decode, server.decode_broadcast):
        with suppress(DecodeError, InvalidMessage):
            decode(frame)


def test_a_field_of_a_binary_message_has_at_most_255_bytes() -> None:
    server.encode_broadcast("ä" * 127, "x", b"")
    for topic in ("ä" * 128, "x" * 256):
        with pytest.raises(InvalidMessage, match="at most 255 bytes"):
            server.encode_broadcast(topic, "x", b"")
        with pytest.raises(InvalidMessage, match="at most 255 bytes"):
            server.encode(PhoenixMessage("1", None, topic, "x", b""))


def test_only_json_values_and_bytes_can_be_sent() -> None:
    for payload in (object(), {1: 2}, float("nan"), bytearray(b"x"), "\ud800"):
        with pytest.raises(EncodeError):
            server.encode_broadcast("room:1", "x", payload)


def test_text_is_compact() -> None:
    message = PhoenixMessage("1", "2", "room:1", "x", {"a": [1, 2]})
    assert server.encode(message) == '["1","2","room:1","x",{"a":[1,2]}]'
    assert json.loads(str(server.encode(message))) == ["1", "2", "room:1", "x", {"a": [1, 2]}]
