"""The feed: what a page is told, in frames of JSON that hold many events each.

* ``{"hello": {...}}``: once, what it looks at;
* ``{"events": [...], "dropped": 0}``: messages and gaps, and how many it will never see;
* ``{"numbers": {...}}``: every second;
* ``{"answer": {...}}``: what became of a publication.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

from ...pubsub import Gap, Message

__all__ = ["frames_of", "to_frame"]

SHOWN_TEXT = 8192
"""Characters of a text that a page gets."""

SHOWN_BYTES = 256
"""Bytes of a binary message that a page gets."""

FRAME = 2**17
"""Characters from which on a frame is full."""


def to_frame(kind: str, content: object) -> str:
    """A frame that holds one thing."""
    return json.dumps({kind: content})


def frames_of(events: Iterable[Message | Gap], dropped: int) -> Iterator[str]:
    """Frames for all of them, none much longer than FRAME."""
    parts: list[str] = []
    size = 0
    for event in events:
        part = json.dumps(_shown(event))
        parts.append(part)
        size += len(part)
        if size >= FRAME:
            yield _joined(parts, dropped)
            parts, size = [], 0
    if parts:
        yield _joined(parts, dropped)


def _joined(parts: list[str], dropped: int) -> str:
    return f'{{"events": [{", ".join(parts)}], "dropped": {dropped}}}'


def _shown(event: Message | Gap) -> dict[str, object]:
    """An event, with as much of its payload as a page shows."""
    if isinstance(event, Gap):
        return {"gap": event.seconds}
    content: dict[str, object] = {"channel": event.channel}
    if event.id is not None:
        content["id"] = event.id
    if isinstance(event.data, str):
        content["data"] = event.data[:SHOWN_TEXT]
        shown = SHOWN_TEXT
    else:
        content["hex"] = event.data[:SHOWN_BYTES].hex(" ")
        shown = SHOWN_BYTES
    if len(event.data) > shown or "hex" in content:
        content["size"] = len(event.data)
    return content
