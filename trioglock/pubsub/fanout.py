"""The fan-out: what is the same for all browsers that one event goes to."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable

from ..frames import PreparedMessage
from .message import Gap, Message
from .queue import Event

__all__ = ["Fanout", "Framing"]

SECONDS_BETWEEN = 0.001
"""Events that come faster leave together, in one write; others leave at once."""


class Framing:
    """Makes the frame of an event once, for all browsers that ask for it in a row.

    Args:
        encode: the payload of an event.
    """

    __slots__ = ("_encode", "_event", "_frame")

    def __init__(self, encode: Callable[[Event], str | bytes]) -> None:
        self._encode = encode
        self._event: Event | None = None
        self._frame = PreparedMessage(b"")

    def __call__(self, event: Event) -> PreparedMessage:
        """Its frame."""
        if event is not self._event:
            self._frame = PreparedMessage(self._encode(event))
            self._event = event
        return self._frame


class Fanout:
    """Frames and pace of one hub."""

    def __init__(self) -> None:
        self.raw: Framing = Framing(_raw)
        """A message as it is."""
        self.enveloped: Framing = Framing(_envelope)
        """With its id, as JSON."""
        self.immediate: bool = True
        """Whether the present event leaves in this very step."""
        self._latest = 0.0

    def begin(self) -> None:
        """Another event comes."""
        now = time.perf_counter()
        self.immediate = now - self._latest > SECONDS_BETWEEN
        self._latest = now


def _raw(event: Event) -> str | bytes:
    assert isinstance(event, Message), "a gap has no frame without an envelope"
    return event.data


def _envelope(event: Event) -> str:
    if isinstance(event, Gap):
        return json.dumps({"gap": event.seconds})
    content: dict[str, str | None] = {"id": event.id, "channel": event.channel}
    if isinstance(event.data, str):
        content["data"] = event.data
    else:
        content["base64"] = base64.b64encode(event.data).decode()
    return json.dumps(content, ensure_ascii=False)
