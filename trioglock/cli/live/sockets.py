"""The Sockets of publishers and of pages.

Both handle requests to publish; pages also show all messages.

A request to publish is ``{"channel": "news", "data": "hello"}``, with ``"base64"`` instead of
``"data"`` for binary data. It may contain the name of the ``"hub"`` and a ``"token"``. The response
is ``{"published": true, "delivered": 3}``, where ``delivered`` is null if the number is unknown, or
``{"published": false, "error": "..."}``. A page receives all published messages, as JSON frames:

* ``{"hello": {...}}``: once, about the server;
* ``{"events": [...], "dropped": 0}``: messages and gaps, and the number of discarded messages;
* ``{"numbers": {...}}``: every second;
* ``{"response": {...}}``: the response to a request to publish.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from urllib.parse import parse_qs

import trio

from ..._text import is_unicode
from ...connection import Connection
from ...errors import (
    BrokerError,
    BrokerUnavailable,
    ConnectionClosed,
    InvalidOption,
    TrioglockError,
    UsageError,
)
from ...frames import Data
from ...hooks import ConnectionInfo, Reply, Socket
from ...pubsub import Gap, Hub, Message, Subscription
from ...pubsub.history import parse_id
from ...pubsub.patterns import ChannelFilter
from ...transports.urls import split_url

__all__ = ["LIVE", "PUBLISH", "InvalidRequest", "PageSocket", "PublishingSocket", "check_channel"]

PUBLISH = "trioglock.publish"
"""The subprotocol of programs that publish, such as ``trioglock publish``."""

LIVE = "trioglock.live"
"""The subprotocol of pages."""

MAX_QUEUE = 500
"""Maximum number of messages waiting for a page; beyond it, the oldest are dropped and counted."""

HISTORY = 200
"""Maximum number of messages from the history that a new page receives."""

EVENTS_INTERVAL = 0.05
"""Seconds between two frames of events. Events in between are sent together."""

NUMBERS_INTERVAL = 1.0

WRONG_TOKEN_DELAY = 1.0
"""Seconds before the response to a wrong token, to slow down guessing."""

MAX_TEXT = 8192
"""Maximum number of characters of a text message that a page shows."""

MAX_BINARY = 256
"""Maximum number of bytes of a binary message that a page shows."""

FULL_FRAME = 2**17
"""Number of characters after which a frame of events is sent."""

MAX_CHANNEL = 1024
"""Maximum length of a channel name in characters."""

FIELDS = frozenset({"channel", "data", "base64", "hub", "token"})


class InvalidRequest(Exception):
    """A request cannot be published; the message states why."""


class PublishingSocket(Socket[None]):
    """Handles requests to publish, one per message, and responds to each in turn.

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
        """Publish the request in a frame, and return the response."""
        try:
            channel, data = await self._parse(frame)
            counters = self._hub.counters
            received, delivered = counters.received, counters.delivered
            await self._hub.publish(data, channel)
        except (InvalidRequest, TrioglockError) as error:
            return {"published": False, "error": str(error)}
        # Messages published by others at the same time cannot be distinguished.
        is_known = self._counts and counters.received == received + 1
        return {
            "published": True,
            "delivered": counters.delivered - delivered if is_known else None,
        }

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
    """Return the reason why messages cannot be published on this channel; None if they can."""
    if not isinstance(channel, str):
        return "a channel must be a string"
    if len(channel) > MAX_CHANNEL:
        return f"a channel must have at most {MAX_CHANNEL:,} characters, not {len(channel):,}"
    if channel.startswith("/"):
        return "a channel must not start with a slash"
    if any(ord(character) < 32 or 127 <= ord(character) < 160 for character in channel):
        return "a channel must not contain control characters"
    return None if is_unicode(channel) else "a channel must be valid Unicode"


class PageSocket(PublishingSocket):
    """The connection of one page.

    Args:
        hub: an open hub.
        counts: see :class:`PublishingSocket`.
        may_publish: whether a request with this token may be published.
        hello: information for the page about the server.
        count_browsers: returns the number of connections, excluding those of pages.
    """

    def __init__(
        self,
        hub: Hub,
        *,
        counts: bool,
        may_publish: Callable[[object], bool],
        hello: dict[str, object],
        count_browsers: Callable[[], int],
    ) -> None:
        super().__init__(hub, counts=counts)
        self._may_publish = may_publish
        self._hello = hello
        self._count_browsers = count_browsers
        self._resumed = False
        self._start: str | None = None  # id of the newest message when the page subscribed

    def init_stream(self, info: ConnectionInfo) -> None:
        """Subscribe to every channel."""
        conn = info.connection
        after = parse_qs(split_url(info.url).query or "").get("after", [""])[-1]
        try:
            self._start = self._hub.history.last
        except UsageError:
            self._start = None  # there is no history
        waiting = WaitingEvents()
        conn.start_soon(self._collect_events, self._subscribe(after), waiting)
        conn.start_soon(self._send_events, conn, waiting)
        conn.start_soon(self._send_numbers, conn)

    def handle_connect(self, info: ConnectionInfo, state: None) -> tuple[Reply, None]:
        hello = {**self._hello, "resumed": self._resumed}
        if self._start is not None and not self._resumed:
            hello["id"] = self._start
        return Reply(json.dumps({"hello": hello})), state

    async def handle_receive(self, frame: Data, state: None) -> tuple[Reply, None]:
        """Publish the request of the page's form."""
        return Reply(json.dumps({"response": await self.respond(frame)})), state

    async def check_token(self, token: object) -> None:
        if not self._may_publish(token):
            await trio.sleep(WRONG_TOKEN_DELAY)
            raise InvalidRequest("the publish token is wrong")

    def _subscribe(self, after: str) -> Subscription[Message | Gap]:
        """Subscribe to all messages.

        Args:
            after: id of the last message that the page has; empty if it has none.
        """
        if after:
            try:
                events = self._subscribe_to_all(after)
            except (InvalidOption, UsageError):
                pass  # there is no history, or this is not an id
            else:
                self._resumed = True
                return events
        return self._subscribe_to_all(self._start)

    def _subscribe_to_all(self, after: str | None = None) -> Subscription[Message | Gap]:
        return self._hub.subscribe(
            "*", gaps=True, after=after, max_queue=MAX_QUEUE, overflow="drop_oldest"
        )

    async def _read_latest(self) -> list[Message]:
        """The latest messages of the history up to the start of the subscription."""
        if self._resumed or self._start is None:
            return []
        try:
            latest = await self._hub.history.latest(ChannelFilter("*"), HISTORY)
        except (BrokerUnavailable, BrokerError, UsageError):
            return []
        return [one for one in latest if one.id and parse_id(one.id) <= parse_id(self._start)]

    async def _collect_events(
        self, events: Subscription[Message | Gap], waiting: WaitingEvents
    ) -> None:
        with events:
            for message in await self._read_latest():
                waiting.add(message, 0)
            async for event in events:
                waiting.add(event, events.dropped)
        waiting.end()

    async def _send_events(self, conn: Connection[Any, Any], waiting: WaitingEvents) -> None:
        try:
            while contents := await waiting.take():
                for frame in _encode_events(contents, waiting.dropped):
                    await conn.send_frame(frame)
                await trio.sleep(EVENTS_INTERVAL)
            await conn.aclose(1001, "the hub has closed")
        except ConnectionClosed:
            pass

    async def _send_numbers(self, conn: Connection[Any, Any]) -> None:
        received, since = self._hub.counters.received, trio.current_time()
        try:
            while True:
                await trio.sleep(NUMBERS_INTERVAL)
                before, received = received, self._hub.counters.received
                now = trio.current_time()
                rate, since = (received - before) / (now - since), now
                browsers = self._count_browsers()
                numbers = {"rate": rate, "received": received, "browsers": browsers}
                await conn.send_frame(json.dumps({"numbers": numbers}))
        except ConnectionClosed:
            pass


class WaitingEvents:
    """The events that are waiting to be sent to a page, already in JSON form.

    Events are shortened when they arrive, so that a page that reads slowly does not keep long
    messages in memory.
    """

    def __init__(self) -> None:
        self._contents: deque[dict[str, object]] = deque(maxlen=MAX_QUEUE)
        self._dropped = 0
        self._dropped_before = 0
        self._ended = False
        self._changed = trio.lowlevel.ParkingLot()

    def add(self, event: Message | Gap, dropped_before: int) -> None:
        """Add an event.

        Args:
            event: the event.
            dropped_before: number of events that were dropped before they could be added.
        """
        self._dropped += len(self._contents) == MAX_QUEUE
        self._dropped_before = dropped_before
        self._contents.append(_shorten(event))
        self._changed.unpark()

    def end(self) -> None:
        """Called when no more events follow."""
        self._ended = True
        self._changed.unpark()

    @property
    def dropped(self) -> int:
        """The number of events that have been dropped so far."""
        return self._dropped + self._dropped_before

    async def take(self) -> list[dict[str, object]]:
        """Wait for events and return all that are waiting; an empty list after the last one."""
        while not (self._contents or self._ended):
            await self._changed.park()
        contents = list(self._contents)
        self._contents.clear()
        return contents


def _encode_events(contents: Iterable[dict[str, object]], dropped: int) -> Iterator[str]:
    """Encode events in frames that are not much longer than FULL_FRAME."""
    text = ""
    for content in contents:
        text += f"{', ' if text else ''}{json.dumps(content)}"
        if len(text) >= FULL_FRAME:
            yield f'{{"events": [{text}], "dropped": {dropped}}}'
            text = ""
    if text:
        yield f'{{"events": [{text}], "dropped": {dropped}}}'


def _shorten(event: Message | Gap) -> dict[str, object]:
    """Return an event as JSON, with only the part of its payload that a page shows."""
    if isinstance(event, Gap):
        return {"gap": event.seconds} | ({"id": event.id} if event.id else {})
    content: dict[str, object] = {"channel": event.channel}
    if event.id is not None:
        content["id"] = event.id
    if isinstance(event.data, str):
        content["data"] = event.data[:MAX_TEXT]
        if len(event.data) > MAX_TEXT:
            content["size"] = len(event.data)
    else:
        content["hex"] = event.data[:MAX_BINARY].hex(" ")
        content["size"] = len(event.data)
    return content
