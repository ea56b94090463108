"""Conversion between messages and frames: JSON text, and binary if the payload is bytes.

A binary message is a kind byte, the length of each field in one byte each, the fields in UTF-8,
and the payload. Only clients send a ref with a push; only servers send replies and broadcasts::

    push       00 | join_ref ref topic event     (from a client)
    push       00 | join_ref topic event         (from a server)
    reply      01 | join_ref ref topic status
    broadcast  02 | topic event
"""

from __future__ import annotations

from typing import Any, Protocol

from ...codecs import JSON, Codec
from ...frames import Data
from .errors import InvalidMessage
from .message import REPLY, PhoenixMessage

__all__ = ["Serializer", "V2Serializer"]

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


def _encode_binary(message: PhoenixMessage) -> bytes:
    fields = [
        _encode_field("join_ref", message.join_ref or ""),
        _encode_field("ref", message.ref or ""),
        _encode_field("topic", message.topic),
        _encode_field("event", message.event),
    ]
    return b"".join([bytes([PUSH_KIND, *map(len, fields)]), *fields, message.payload])


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


def _decode_binary(data: bytes) -> PhoenixMessage:
    count = FIELD_COUNTS.get(data[0]) if data else None
    if count is None:
        raise InvalidMessage(f"a binary message must begin with 0, 1 or 2, not {data[:1]!r}")
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
    payload = data[position:]
    match data[0], fields:
        case 0, [join_ref, topic, event]:
            return PhoenixMessage(join_ref or None, None, topic, event, payload)
        case 1, [join_ref, ref, topic, status]:
            reply = {"status": status, "response": payload}
            return PhoenixMessage(join_ref or None, ref or None, topic, REPLY, reply)
    topic, event = fields
    return PhoenixMessage(None, None, topic, event, payload)
