"""The press: publishes what is sent to it as JSON, and says what became of it.

A publication is ``{"channel": "news", "data": "hello"}``, with ``"base64"`` in place of ``"data"``
for binary. It may name its ``"hub"``, and carry a ``"token"``. The answer is ``{"published": true,
"delivered": 3}``, with null where nobody knows the number, or ``{"published": false, "error":
"..."}``.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any, TypeAlias

from ...errors import TrioglockError
from ...frames import Data
from ...pubsub import Hub

__all__ = ["MAX_CHANNEL", "Answer", "Press", "channel_problem", "refusal"]

Answer: TypeAlias = dict[str, object]

MAX_CHANNEL = 1024
"""Characters of a channel's name."""

FIELDS = frozenset({"channel", "data", "base64", "hub", "token"})


class NotPublished(Exception):
    """The text says why."""


class Press:
    """Publishes at one hub.

    Args:
        hub: an open one.
        counts: whether all who listen do so in this process, so that they can be counted.
    """

    def __init__(self, hub: Hub, *, counts: bool) -> None:
        self._hub = hub
        self._counts = counts

    async def publish(self, publication: dict[str, Any]) -> Answer:
        """Publish; the answer for whoever asked for it."""
        try:
            channel, data = self._checked(publication)
            before = self._hub.statistics()
            await self._hub.publish(data, channel)
        except (NotPublished, TrioglockError) as error:
            return refusal(str(error))
        after = self._hub.statistics()
        # Others may publish at the same time: then nobody knows who got what.
        known = self._counts and after.received == before.received + 1
        delivered = after.delivered - before.delivered if known else None
        return {"published": True, "delivered": delivered}

    def _checked(self, publication: dict[str, Any]) -> tuple[str, Data]:
        unknown = sorted(publication.keys() - FIELDS)
        if unknown:
            raise NotPublished(f"a publication has no {unknown[0]!r:.40}")
        hub = publication.get("hub", self._hub.name)
        if hub != self._hub.name:
            raise NotPublished(f"this is the hub {self._hub.name}, not {hub!r:.80}")
        channel = publication.get("channel")
        problem = channel_problem(channel)
        if problem is not None:
            raise NotPublished(problem)
        assert isinstance(channel, str)
        return channel, _data_of(publication)


def _data_of(publication: dict[str, Any]) -> Data:
    given = [publication[name] for name in ("data", "base64") if name in publication]
    if len(given) != 1 or not isinstance(given[0], str):
        raise NotPublished("a publication has either data or base64, each a string")
    if "data" in publication:
        return str(given[0])
    try:
        return base64.b64decode(given[0], validate=True)
    except (binascii.Error, ValueError):
        raise NotPublished("that is not base64") from None


def read_publication(frame: Data) -> dict[str, Any] | None:
    """What a frame asks to publish; None if it is no JSON object."""
    if not isinstance(frame, str):
        return None
    try:
        content = json.loads(frame)
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def channel_problem(channel: object) -> str | None:
    """Why nothing can be published on a channel of this name; None if it can."""
    if not isinstance(channel, str):
        return "a channel is a string"
    if len(channel) > MAX_CHANNEL:
        return f"a channel's name has at most {MAX_CHANNEL:,} characters, not {len(channel):,}"
    if channel.startswith("/"):
        return "a channel is named without a slash in front"
    if any(ord(character) < 32 or 127 <= ord(character) < 160 for character in channel):
        return "a channel's name has no control characters"
    try:
        channel.encode()
    except UnicodeEncodeError:
        return "a channel's name is valid Unicode"
    return None


def refusal(why: str) -> Answer:
    """The answer to what was not published."""
    return {"published": False, "error": why}
