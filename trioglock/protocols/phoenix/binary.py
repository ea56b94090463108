"""The binary layout of protocol 2.0.0.

A kind, then the length of each field in one byte each, then the fields in UTF-8, then the payload
as it is. Only clients send a ref with a push, only servers send replies and broadcasts::

    push       00 | join_ref ref topic event     (from a client)
    push       00 | join_ref topic event         (from a server)
    reply      01 | join_ref ref topic status
    broadcast  02 | topic event
"""

from __future__ import annotations

from .errors import InvalidMessage
from .message import REPLY, Message

__all__ = ["decode_binary", "encode_binary"]

PUSH, REPLY_KIND, BROADCAST = 0, 1, 2

FIELDS = {PUSH: 3, REPLY_KIND: 4, BROADCAST: 2}
"""How many fields a server's message of each kind has."""


def encode_binary(message: Message) -> bytes:
    """A client's push.

    Raises:
        InvalidMessage: a field is longer than 255 bytes of UTF-8.
    """
    fields = [
        _field("join_ref", message.join_ref or ""),
        _field("ref", message.ref or ""),
        _field("topic", message.topic),
        _field("event", message.event),
    ]
    return b"".join([bytes([PUSH, *map(len, fields)]), *fields, message.payload])


def _field(name: str, value: str) -> bytes:
    try:
        encoded = value.encode()
    except UnicodeEncodeError as error:
        raise InvalidMessage(f"{name} is not valid Unicode: {error}") from None
    if len(encoded) > 255:
        raise InvalidMessage(
            f"with a binary payload, {name} is at most 255 bytes of UTF-8, not {len(encoded)}"
        )
    return encoded


def decode_binary(data: bytes) -> Message:
    """A server's push, reply or broadcast.

    Raises:
        InvalidMessage: it is none of them, or shorter than its own header says.
    """
    count = FIELDS.get(data[0]) if data else None
    if count is None:
        raise InvalidMessage(f"a binary message begins with 0, 1 or 2, not {data[:1]!r}")
    fields = []
    at = 1 + count
    for length in data[1:at]:
        fields.append(data[at : at + length])
        at += length
    if len(fields) < count or at > len(data):
        raise InvalidMessage(f"a binary message is cut short: {data[:64]!r}")
    return _message(data[0], [_text(field) for field in fields], data[at:])


def _message(kind: int, fields: list[str], payload: bytes) -> Message:
    if kind == PUSH:
        join_ref, topic, event = fields
        return Message(join_ref or None, None, topic, event, payload)
    if kind == BROADCAST:
        topic, event = fields
        return Message(None, None, topic, event, payload)
    join_ref, ref, topic, status = fields
    answer = {"status": status, "response": payload}
    return Message(join_ref or None, ref or None, topic, REPLY, answer)


def _text(field: bytes) -> str:
    try:
        return field.decode()
    except UnicodeDecodeError as error:
        raise InvalidMessage(f"a field of a binary message is not UTF-8: {error}") from None
