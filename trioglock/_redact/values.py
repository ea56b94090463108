"""Values: the reprs of things that may hold a secret, or be large, or not have one at all."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

from .addresses import redact_query, redact_url
from .headers import redact_subprotocols
from .texts import redact_start, redact_text

__all__ = ["label", "redact_repr", "shorten", "shown", "text_of"]

_SHORT = 80  # characters or bytes of an item that a line shows


def shown(item: object) -> str:
    """The item's repr, whatever that does."""
    try:
        return str.__str__(repr(item))
    except Exception as error:  # noqa: BLE001 - whatever somebody's repr raises
        return f"<{type(item).__name__} whose repr raises {type(error).__name__}>"


def text_of(error: BaseException) -> str:
    """What the error says, whatever its ``__str__`` does."""
    try:
        return str.__str__(str(error))
    except Exception as another:  # noqa: BLE001 - whatever somebody's __str__ raises
        return f"<{type(error).__name__} whose text raises {type(another).__name__}>"


def label(function: object) -> str:
    """What to call a function: its repr may show a partial's arguments, or a method's owner."""
    while isinstance(function, partial):
        function = function.func
    return str(getattr(function, "__qualname__", type(function).__qualname__))


def redact_repr(value: Any) -> str:
    """The repr of a dataclass, with addresses and subprotocols redacted."""
    fields = [
        f"{field.name}={_field(field.name, getattr(value, field.name))}"
        for field in dataclasses.fields(value)
        if field.repr
    ]
    return f"{type(value).__qualname__}({', '.join(fields)})"


def _field(name: str, content: Any) -> str:
    if name in ("subprotocol", "subprotocols"):
        return redact_subprotocols(shown(content))
    if name not in ("url", "target") or not isinstance(content, str):
        return shown(content) if name not in ("url", "target") else redact_text(shown(content))
    # The target of a request is an address only for a proxy.
    is_address = name == "url" or "://" in content
    return repr(redact_url(content) if is_address else redact_query(content))


def shorten(item: object) -> str:
    """The item's repr, redacted; of what is long the beginning, cut before its repr is built."""
    if isinstance(item, str):
        start = repr(redact_start(str.__getitem__(item, slice(4 * _SHORT + 1)), _SHORT))
        return start if len(item) <= _SHORT else f"{start}... ({len(item)} characters)"
    if isinstance(item, bytes):
        text = bytes.__getitem__(item, slice(4 * _SHORT + 1)).decode("latin-1")
        start = repr(redact_start(text, _SHORT).encode("latin-1"))
        return start if len(item) <= _SHORT else f"{start}... ({len(item)} bytes)"
    text = shown(item)
    start = redact_start(text, 2 * _SHORT)
    return start if len(text) <= 2 * _SHORT else f"{start}..."
