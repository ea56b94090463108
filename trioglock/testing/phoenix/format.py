"""What a Phoenix server reads and writes: protocol 2.0.0, seen from its side.

Written apart from the client's serializer, so that a mistake in one does not cancel out.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from typing import Any

from ...frames import Data

__all__ = ["ClientMessage", "Malformed", "broadcast", "push", "read", "reply"]


class Malformed(Exception):
    """What a client sent is no message: a server's process crashes over it."""


@dataclass(frozen=True, slots=True)
class ClientMessage:
    """One message of a client's; ``bytes`` as payload if it was binary."""

    join_ref: str | None
    ref: str | None
    topic: str
    event: str
    payload: Any


def read(frame: Data) -> ClientMessage:
    """The message in a frame.

    Raises:
        Malformed: there is none.
    """
    try:
        if isinstance(frame, str):
            join_ref, ref, topic, event, payload = json.loads(frame)
            return ClientMessage(join_ref, ref, topic, event, payload)
        kind, *lengths = struct.unpack_from("5B", frame)
        if kind != 0 or len(frame) < 5 + sum(lengths):
            raise Malformed(f"no push of a client's: {frame!r}")
        fields, rest = [], frame[5:]
        for length in lengths:
            fields.append(rest[:length].decode())
            rest = rest[length:]
        return ClientMessage(fields[0] or None, fields[1] or None, fields[2], fields[3], rest)
    except (ValueError, TypeError, struct.error) as error:
        raise Malformed(f"{frame!r:.200}: {error}") from error


def reply(join_ref: str | None, ref: str | None, topic: str, status: str, response: Any) -> Data:
    """A ``phx_reply``."""
    if isinstance(response, bytes):
        return _binary(1, (join_ref or "", ref or "", topic, status), response)
    return _text(join_ref, ref, topic, "phx_reply", {"response": response, "status": status})


def push(
    join_ref: str | None, topic: str, event: str, payload: Any, ref: str | None = None
) -> Data:
    """A push to one client; only ``phx_close`` and ``phx_error`` carry a ref."""
    if isinstance(payload, bytes):
        return _binary(0, (join_ref or "", topic, event), payload)
    return _text(join_ref, ref, topic, event, payload)


def broadcast(topic: str, event: str, payload: Any) -> Data:
    """A broadcast: it belongs to no join."""
    if isinstance(payload, bytes):
        return _binary(2, (topic, event), payload)
    return _text(None, None, topic, event, payload)


def _text(*parts: Any) -> str:
    return json.dumps(parts, separators=(",", ":"))


def _binary(kind: int, fields: tuple[str, ...], payload: bytes) -> bytes:
    encoded = [field.encode() for field in fields]
    return bytes([kind, *map(len, encoded)]) + b"".join(encoded) + payload
