"""Fields of a payload, each of the type that the protocol promises."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from ...errors import DecodeError

__all__ = ["Payload", "names", "number", "optional_text", "payload_of", "text"]

Payload: TypeAlias = Mapping[str, Any]


def payload_of(event: Mapping[str, Any]) -> Payload:
    """The payload of an event; empty if there is none.

    Raises:
        DecodeError: it is no object.
    """
    payload = event.get("payload")
    if payload is None:
        return {}
    if not isinstance(payload, dict):
        raise DecodeError(f"payload is an object, not {payload!r:.100}")
    return payload


def text(payload: Payload, name: str) -> str:
    """A text that must be there.

    Raises:
        DecodeError: it is not.
    """
    value = payload.get(name)
    if not isinstance(value, str):
        raise DecodeError(f"{name} is a text, not {value!r:.100}")
    return value


def optional_text(payload: Payload, name: str) -> str:
    """A text, or "" where there is none.

    Raises:
        DecodeError: it is something else.
    """
    return "" if payload.get(name) is None else text(payload, name)


def names(payload: Payload, name: str) -> tuple[str, ...]:
    """A list of texts, or nothing where there is none.

    Raises:
        DecodeError: it is something else.
    """
    value = payload.get(name)
    if value is None:
        return ()
    if not (isinstance(value, list) and all(isinstance(one, str) for one in value)):
        raise DecodeError(f"{name} is a list of texts, not {value!r:.100}")
    return tuple(value)


def number(payload: Payload, name: str) -> int | float | None:
    """A number, or None where there is none.

    Raises:
        DecodeError: it is something else.
    """
    value = payload.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise DecodeError(f"{name} is a number, not {value!r:.100}")
    return value
