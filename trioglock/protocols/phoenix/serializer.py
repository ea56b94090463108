"""Conversion between messages and frames: JSON text, and binary if the payload is bytes.

A binary message is a kind byte, the length of each field in one byte each, the fields in UTF-8,
and the payload. Only clients send a ref with a push; only servers send replies and broadcasts::

    push       00 | join_ref ref topic event     (from a client)
    push       00 | join_ref topic event         (from a server)
    reply      01 | join_ref ref topic status
    broadcast  02 | topic event
"""

from __future__ import annotations

from collections.abc import Sequence
from json import dumps
from json.encoder import encode_basestring as quote
from typing import Any, Protocol

from ...codecs import JSON, Codec
from ...codecs.json_rules import MAX_DEPTH, check_depth
from ...errors import EncodeError
from ...frames import Data
from .errors import InvalidMessage
from .message import REPLY, PhoenixMessage

__all__ = ["JoinReplies", "Serializer", "V2Serializer", "V2ServerSerializer"]

PUSH_KIND, REPLY_KIND, BROADCAST_KIND = 0, 1, 2

FIELD_COUNTS = {PUSH_KIND: 3, REPLY_KIND: 4, BROADCAST_KIND: 2}
"""The number of fields in each kind of server message."""


class Serializer(Protocol):
    """The interface of a serializer, for servers that do not use Phoenix's own."""

    def encode(self, message: PhoenixMessage) -> Data:
        """Return a frame: ``str`` is sent as text, ``bytes`` as binary.

        Raises:
            TypeError, ValueError: the message cannot be encoded. Subclasses are allowed.
        """

    def decode(self, frame: Data) -> PhoenixMessage:
        """Return the message in a received frame.

        Raises:
            ValueError: the frame is not a message. Subclasses are allowed.
        """


class V2Serializer:
    """The default serializer, compatible with Phoenix's ``V2.JSONSerializer``.

    Args:
        codec: the codec for text messages; by default ``JSON()``.
    """

    def __init__(self, codec: Codec[Any] | None = None) -> None:
        codec = codec or JSON()
        self._encode = codec.encode
        self._decode = codec.decode

    def encode(self, message: PhoenixMessage) -> Data:
        """Return the frame of ``message``.

        Raises:
            InvalidMessage: a field does not fit into the binary layout.
            EncodeError: the payload is neither bytes nor a JSON value.
        """
        payload = message.payload
        if isinstance(payload, bytes):
            return _encode_binary(message)
        return self._encode([message.join_ref, message.ref, message.topic, message.event, payload])

    def decode(self, frame: Data) -> PhoenixMessage:
        """Return the message in ``frame``.

        Raises:
            InvalidMessage: the frame is not a message of this protocol.
            DecodeError: the frame is not JSON.
        """
        if isinstance(frame, bytes):
            return _decode_binary(frame)
        parts: Any = self._decode(frame)
        if parts.__class__ is not list or len(parts) != 5:
            raise InvalidMessage(f"a message must be an array of five items, not {frame:.100}")
        join_ref, ref, topic, event, payload = parts
        if not (
            (join_ref is None or join_ref.__class__ is str)
            and (ref is None or ref.__class__ is str)
            and topic.__class__ is str
            and event.__class__ is str
        ):
            raise InvalidMessage(
                f"refs must be strings or null, topic and event strings: {frame:.100}"
            )
        return PhoenixMessage(join_ref, ref, topic, event, payload)


class JoinReplies:
    """The parts of frames that all replies to the pushes of one join have in common.

    Args:
        join_ref: the ref of the join, as the client has sent it.
        topic: the topic, as the client has sent it.
    """

    __slots__ = ("after_ref", "before_ref", "join_ref", "topic")

    def __init__(self, join_ref: str | None, topic: str) -> None:
        self.join_ref: str | None = join_ref
        self.topic: str = topic
        # A ref may be a number.
        self.before_ref: str = (
            f"[{quote(join_ref) if isinstance(join_ref, str) else dumps(join_ref)},"
        )
        self.after_ref: str = f',{quote(topic)},"{REPLY}",{{"response":'


class V2ServerSerializer:
    """The serializer of a server, compatible with Phoenix's ``V2.JSONSerializer``.

    Args:
        codec: the codec for text messages; by default ``JSON()``. It has no ``into``.
    """

    def __init__(self, codec: JSON[Any] | None = None) -> None:
        codec = codec or JSON()
        self._encode = codec.encode
        self._decode = codec.decode

    def decode(self, frame: Data) -> PhoenixMessage:
        """Return the message in a frame of a client.

        Like Phoenix, it accepts refs that are numbers, and ignores items after the fifth.

        Raises:
            InvalidMessage: the frame is not a message of this protocol.
            DecodeError: the frame is not JSON.
        """
        return PhoenixMessage(*self.decode_parts(frame))

    def decode_parts(self, frame: Data) -> Sequence[Any]:
        """Return the message in a frame of a client as a sequence of its five items.

        Raises:
            InvalidMessage, DecodeError: as in :meth:`decode`.
        """
        if isinstance(frame, bytes):
            return _decode_push(frame)
        decode = self._decode
        parts: list[Any] = decode(frame)
        if parts.__class__ is not list or len(parts) < 5:
            raise InvalidMessage("a message must be an array of five items")
        if len(parts) > 5:
            del parts[5:]
        join_ref, ref, topic, event, _ = parts
        if not (
            join_ref.__class__ in _REFS
            and ref.__class__ in _REFS
            and topic.__class__ is str
            and event.__class__ is str
        ):
            raise InvalidMessage("topic and event must be strings, refs strings or null")
        return parts

    def encode(self, message: PhoenixMessage) -> Data:
        """Return the frame of a push or reply to one client.

        Raises:
            InvalidMessage: a field does not fit into the binary layout.
            EncodeError: the payload, or the response of a reply, is neither bytes nor a JSON value.
        """
        join_ref, ref, topic, event, payload = message
        if event == REPLY and isinstance(payload["response"], bytes):
            fields = (str(join_ref or ""), str(ref or ""), topic, payload["status"])
            return _pack(REPLY_KIND, _REPLY_FIELDS, fields, payload["response"])
        if isinstance(payload, bytes):
            return _pack(PUSH_KIND, _PUSH_FIELDS, (str(join_ref or ""), topic, event), payload)
        return self._encode([join_ref, ref, topic, event, payload])

    def encode_reply(
        self, replies: JoinReplies, ref: str | None, status: str, response: Any
    ) -> Data:
        """Return the frame of a reply, as :meth:`encode` does.

        Raises:
            InvalidMessage, EncodeError: as in :meth:`encode`.
        """
        if response.__class__ is dict and ref.__class__ is str and status.__class__ is str:
            # Nearly all replies. Only the response may contain what JSON cannot express.
            encode = self._encode
            quoted_ref = f'"{ref}"' if ref.isalnum() else quote(ref)
            quoted_status = '"ok"' if status == "ok" else encode(status)
            frame = (
                f"{replies.before_ref}{quoted_ref}{replies.after_ref}"
                f'{encode(response)},"status":{quoted_status}}}]'
            )
            if len(frame) > 2 * MAX_DEPTH:
                _check_depth(frame)
            return frame
        payload = {"response": response, "status": status}
        return self.encode(PhoenixMessage(replies.join_ref, ref, replies.topic, REPLY, payload))

    def encode_broadcast(self, topic: str, event: str, payload: Any) -> Data:
        """Return the frame of a broadcast, the same for all clients.

        Raises:
            InvalidMessage, EncodeError: as in :meth:`encode`.
        """
        if isinstance(payload, bytes):
            return _pack(BROADCAST_KIND, _BROADCAST_FIELDS, (topic, event), payload)
        return self._encode([None, None, topic, event, payload])

    def decode_broadcast(self, frame: Data) -> PhoenixMessage:
        """Return the message that :meth:`encode_broadcast` has encoded.

        Raises:
            InvalidMessage, DecodeError: as in :meth:`decode`.
        """
        return _decode_binary(frame) if isinstance(frame, bytes) else self.decode(frame)


_REFS: tuple[Any, ...] = (str, type(None), int)
_REPLY_FIELDS = ("join_ref", "ref", "topic", "status")
_PUSH_FIELDS = ("join_ref", "topic", "event")
_BROADCAST_FIELDS = ("topic", "event")


def _check_depth(frame: str) -> None:
    try:
        check_depth(frame)
    except ValueError as error:
        raise EncodeError(f"not expressible as JSON: {error}") from error


def _encode_binary(message: PhoenixMessage) -> bytes:
    values = (message.join_ref or "", message.ref or "", message.topic, message.event)
    return _pack(PUSH_KIND, ("join_ref", "ref", "topic", "event"), values, message.payload)


def _pack(kind: int, names: Sequence[str], values: Sequence[str], payload: bytes) -> bytes:
    fields = list(map(_encode_field, names, values))
    return b"".join([bytes([kind, *map(len, fields)]), *fields, payload])


def _encode_field(name: str, value: str) -> bytes:
    try:
        encoded = value.encode()
    except UnicodeEncodeError as error:
        raise InvalidMessage(f"{name} is not valid Unicode: {error}") from None
    if len(encoded) > 255:
        raise InvalidMessage(
            f"{name} must be at most 255 bytes of UTF-8 in a binary message, not {len(encoded)}"
        )
    return encoded


def _decode_push(data: bytes) -> PhoenixMessage:
    """Decode a binary message of a client."""
    if data[:1] != bytes([PUSH_KIND]):
        raise InvalidMessage(f"a binary message of a client must begin with 0, not {data[:1]!r}")
    (join_ref, ref, topic, event), payload = _unpack(data, 4)
    return PhoenixMessage(join_ref or None, ref or None, topic, event, payload)


def _decode_binary(data: bytes) -> PhoenixMessage:
    count = FIELD_COUNTS.get(data[0]) if data else None
    if count is None:
        raise InvalidMessage(f"a binary message must begin with 0, 1 or 2, not {data[:1]!r}")
    fields, payload = _unpack(data, count)
    match data[0], fields:
        case 0, [join_ref, topic, event]:
            return PhoenixMessage(join_ref or None, None, topic, event, payload)
        case 1, [join_ref, ref, topic, status]:
            reply = {"status": status, "response": payload}
            return PhoenixMessage(join_ref or None, ref or None, topic, REPLY, reply)
    topic, event = fields
    return PhoenixMessage(None, None, topic, event, payload)


def _unpack(data: bytes, count: int) -> tuple[list[str], bytes]:
    """Return the fields and the payload of a binary message."""
    raw = []
    position = 1 + count
    for length in data[1:position]:
        raw.append(data[position : position + length])
        position += length
    if len(raw) < count or position > len(data):
        raise InvalidMessage(f"a binary message is truncated: {data[:64]!r}")
    try:
        fields = [field.decode() for field in raw]
    except UnicodeDecodeError as error:
        raise InvalidMessage(f"a field of a binary message is not UTF-8: {error}") from None
    return fields, data[position:]
