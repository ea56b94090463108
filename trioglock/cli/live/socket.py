"""The WebSocket of the page: sends all published messages as JSON frames.

* ``{"hello": {...}}``: once, about the server;
* ``{"events": [...], "dropped": 0}``: messages and gaps, and the number of discarded messages;
* ``{"numbers": {...}}``: every second;
* ``{"response": {...}}``: the response to a request to publish.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import trio

from ...connection import Connection
from ...errors import ConnectionClosed, InvalidOption, UsageError
from ...frames import Data
from ...hooks import ConnectionInfo, Reply
from ...pubsub import Gap, Hub, Message, Subscription
from .publishing import InvalidRequest, PublishingSocket

__all__ = ["LIVE", "PageSocket"]

LIVE = "trioglock.live"
"""The subprotocol."""

MAX_QUEUE = 500
"""Maximum number of messages waiting for a page; the oldest are then discarded and counted."""

HISTORY = 200
"""Messages of the history that a page starts with."""

EVENTS_INTERVAL = 0.05
"""Seconds between two frames of events. Events in between are sent together."""

NUMBERS_INTERVAL = 1.0

WRONG_TOKEN_DELAY = 1.0
"""Seconds before the response to a wrong token, to slow down guessing."""

MAX_TEXT = 8192
"""Characters of a text message that a page shows."""

MAX_BINARY = 256
"""Bytes of a binary message that a page shows."""

FULL_FRAME = 2**17
"""Characters after which a frame of events is sent."""


class PageSocket(PublishingSocket):
    """The connection of one page.

    Args:
        hub: an open hub.
        counts: whether all subscribers of the hub are in this process.
        may_publish: whether a request with this token may be published.
        hello: information for the page about the server.
        count_browsers: returns the number of connections, without those of pages.
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

    def init_stream(self, info: ConnectionInfo) -> None:
        """Subscribe to every channel."""
        conn = info.connection
        after = parse_qs(urlsplit(info.url).query).get("after", [""])[-1]
        earlier, events = self._subscribe(after)
        conn.start_soon(self._send_events, conn, earlier, events)
        conn.start_soon(self._send_numbers, conn)

    def handle_connect(self, info: ConnectionInfo, state: None) -> tuple[Reply, None]:
        return Reply(json.dumps({"hello": {**self._hello, "resumed": self._resumed}})), state

    async def handle_receive(self, frame: Data, state: None) -> tuple[Reply, None]:
        """Publish the request of the page's form."""
        return Reply(json.dumps({"response": await self.respond(frame)})), state

    async def check_token(self, token: object) -> None:
        if not self._may_publish(token):
            await trio.sleep(WRONG_TOKEN_DELAY)
            raise InvalidRequest("the publish token is wrong")

    def _subscribe(self, after: str) -> tuple[list[Message], Subscription[Message | Gap]]:
        """The latest messages of the history, and a subscription to all that follow.

        Args:
            after: id of the last message that the page has; empty if it has none.
        """
        try:
            history = self._hub.history
            if after:
                events = self._subscribe_to_all(after)
                self._resumed = True
                return [], events
            earlier = list(history.messages)[-HISTORY:]
        except (InvalidOption, UsageError):
            earlier = []  # there is no history, or it does not contain this id
        return earlier, self._subscribe_to_all()

    def _subscribe_to_all(self, after: str | None = None) -> Subscription[Message | Gap]:
        return self._hub.subscribe(
            "*", gaps=True, after=after, max_queue=MAX_QUEUE, overflow="drop_oldest"
        )

    async def _send_events(
        self, conn: Connection[Any], earlier: list[Message], events: Subscription[Message | Gap]
    ) -> None:
        try:
            with events:
                for frame in _encode_events(earlier, 0):
                    await conn.send_frame(frame)
                async for event in events:
                    waiting = [event, *[await anext(events) for _ in range(len(events))]]
                    for frame in _encode_events(waiting, events.dropped):
                        await conn.send_frame(frame)
                    await trio.sleep(EVENTS_INTERVAL)
            await conn.aclose(1001, "the hub has closed")
        except ConnectionClosed:
            pass

    async def _send_numbers(self, conn: Connection[Any]) -> None:
        received, since = self._hub.statistics().received, trio.current_time()
        try:
            while True:
                await trio.sleep(NUMBERS_INTERVAL)
                now, statistics = trio.current_time(), self._hub.statistics()
                rate = (statistics.received - received) / (now - since)
                received, since = statistics.received, now
                browsers = self._count_browsers()
                numbers = {"rate": rate, "received": received, "browsers": browsers}
                await conn.send_frame(json.dumps({"numbers": numbers}))
        except ConnectionClosed:
            pass


def _encode_events(events: Iterable[Message | Gap], dropped: int) -> Iterator[str]:
    """Encode events in frames that are not much longer than FULL_FRAME."""
    parts: list[str] = []
    size = 0
    for event in events:
        parts.append(json.dumps(_shorten(event)))
        size += len(parts[-1])
        if size >= FULL_FRAME:
            yield f'{{"events": [{", ".join(parts)}], "dropped": {dropped}}}'
            parts, size = [], 0
    if parts:
        yield f'{{"events": [{", ".join(parts)}], "dropped": {dropped}}}'


def _shorten(event: Message | Gap) -> dict[str, object]:
    """An event as JSON, with as much of its payload as a page shows."""
    if isinstance(event, Gap):
        return {"gap": event.seconds}
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
