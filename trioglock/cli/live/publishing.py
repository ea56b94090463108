"""Publishing through a server: requests in JSON, each with a response.

A request is ``{"channel": "news", "data": "hello"}``, with ``"base64"`` instead of ``"data"`` for
binary data. It may contain the name of the ``"hub"`` and a ``"token"``. The response is
``{"published": true, "delivered": 3}``, with null if the number is unknown, or
``{"published": false, "error": "..."}``.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any

from ...errors import TrioglockError
from ...frames import Data
from ...hooks import Reply, Socket
from ...pubsub import Hub

__all__ = ["PUBLISH", "InvalidRequest", "PublishingSocket", "check_channel"]

PUBLISH = "trioglock.publish"
"""The subprotocol of programs that publish, such as ``trioglock publish``."""

MAX_CHANNEL = 1024
"""Maximum length of a channel name in characters."""

FIELDS = frozenset({"channel", "data", "base64", "hub", "token"})


class InvalidRequest(Exception):
    """A request cannot be published; the message says why."""


class PublishingSocket(Socket[None]):
    """Publishes requests, one per message, and responds to each in turn.

    Args:
        hub: an open hub.
        counts: whether all subscribers of the hub are in this process, so that it can count them.
    """

    def __init__(self, hub: Hub, *, counts: bool) -> None:
        self._hub = hub
        self._counts = counts

    async def handle_receive(self, frame: Data, state: None) -> tuple[Reply, None]:
        return Reply(json.dumps(await self.respond(frame))), state

    async def respond(self, frame: Data) -> dict[str, object]:
        """Publish the request in a frame.

        Returns:
            The response.
        """
        try:
            channel, data = await self._parse(frame)
            before = self._hub.statistics()
            await self._hub.publish(data, channel)
        except (InvalidRequest, TrioglockError) as error:
            return {"published": False, "error": str(error)}
        after = self._hub.statistics()
        # Messages that others publish at the same time cannot be told apart.
        is_known = self._counts and after.received == before.received + 1
        delivered = after.delivered - before.delivered if is_known else None
        return {"published": True, "delivered": delivered}

    async def check_token(self, token: object) -> None:
        """Raise InvalidRequest if a request with this token may not be published."""

    async def _parse(self, frame: Data) -> tuple[str, Data]:
        try:
            request = json.loads(frame) if isinstance(frame, str) else None
        except (ValueError, RecursionError):
            request = None
        if not isinstance(request, dict):
            raise InvalidRequest("a request must be a JSON object")
        await self.check_token(request.get("token"))
        unknown = sorted(request.keys() - FIELDS)
        if unknown:
            raise InvalidRequest(f"unknown field {unknown[0]!r:.40}")
        hub = request.get("hub", self._hub.name)
        if hub != self._hub.name:
            raise InvalidRequest(f"the hub is named {self._hub.name}, not {hub!r:.80}")
        channel = request.get("channel")
        problem = check_channel(channel)
        if problem is not None:
            raise InvalidRequest(problem)
        return str(channel), _parse_data(request)


def _parse_data(request: dict[str, Any]) -> Data:
    values = [request[name] for name in ("data", "base64") if name in request]
    if len(values) != 1 or not isinstance(values[0], str):
        raise InvalidRequest("a request must contain either data or base64, as a string")
    if "data" in request:
        return str(values[0])
    try:
        return base64.b64decode(values[0], validate=True)
    except (binascii.Error, ValueError):
        raise InvalidRequest("the value of base64 is not valid base64") from None


def check_channel(channel: object) -> str | None:
    """The reason why this is not a valid channel to publish on; None if it is."""
    if not isinstance(channel, str):
        return "a channel must be a string"
    if len(channel) > MAX_CHANNEL:
        return f"a channel has at most {MAX_CHANNEL:,} characters, not {len(channel):,}"
    if channel.startswith("/"):
        return "a channel must not start with a slash"
    if any(ord(character) < 32 or 127 <= ord(character) < 160 for character in channel):
        return "a channel must not contain control characters"
    try:
        channel.encode()
    except UnicodeEncodeError:
        return "a channel must be valid Unicode"
    return None
