"""The watcher: the hooks of a page that shows what is published on any channel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import trio

from ...connection import Connection
from ...errors import ConnectionClosed, InvalidOption, UsageError
from ...frames import Data
from ...hooks import ConnectionInfo, Reply, Socket
from ...pubsub import Gap, Hub, Message, Subscription
from .feed import frames_of, to_frame
from .press import Answer, Press, read_publication, refusal

__all__ = ["LIVE", "Watcher"]

LIVE = "trioglock.live"
"""The subprotocol."""

EVERYTHING = "*"

MAX_WAITING = 500
"""Messages that wait for a page; older ones are dropped, and the page is told how many."""

RECENT = 200
"""Messages of the history that a page begins with."""

PACE = 0.05
"""Seconds between two frames of events: what comes meanwhile travels in the next one."""

TICK = 1.0
"""Seconds between two frames of numbers."""

PENALTY = 1.0
"""Seconds that the answer to a wrong token takes."""


class Watcher(Socket[None]):
    """One page.

    Args:
        hub: an open one.
        press: publishes what the page's form sends.
        may_publish: whether a publication with this token is welcome.
        hello: what the page is told of the server.
        browsers: how many are connected now, pages aside.
    """

    def __init__(
        self,
        hub: Hub,
        press: Press,
        may_publish: Callable[[object], bool],
        hello: dict[str, object],
        browsers: Callable[[], int],
    ) -> None:
        self._hub = hub
        self._press = press
        self._may_publish = may_publish
        self._hello = hello
        self._browsers = browsers
        self._resumed = False

    def init_stream(self, info: ConnectionInfo) -> None:
        """Begin to listen; the page is told of everything that is published from now on."""
        conn = info.connection
        after = parse_qs(urlsplit(info.url).query).get("after", [""])[-1]
        earlier, events = self._subscribe(after)
        conn.start_soon(self._feed, conn, earlier, events)
        conn.start_soon(self._tick, conn)

    def handle_connect(self, info: ConnectionInfo, state: None) -> tuple[Reply, None]:
        """Tell the page what it looks at."""
        return Reply(to_frame("hello", {**self._hello, "resumed": self._resumed})), state

    async def handle_receive(self, frame: Data, state: None) -> tuple[Reply, None]:
        """Publish what the page's form sends."""
        return Reply(to_frame("answer", await self._answer(frame))), state

    async def _answer(self, frame: Data) -> Answer:
        publication = read_publication(frame)
        if publication is None:
            return refusal("a publication is a JSON object")
        if not self._may_publish(publication.get("token")):
            await trio.sleep(PENALTY)
            return refusal("the publish token is wrong")
        return await self._press.publish(publication)

    def _subscribe(self, after: str) -> tuple[list[Message], Subscription[Message | Gap]]:
        """The latest messages, and those to come; after ``after``, if the page has seen one."""
        try:
            history = self._hub.history
            if after:
                events = self._listen(after)
                self._resumed = True
                return [], events
            earlier = list(history.messages)[-RECENT:]
        except (InvalidOption, UsageError):
            earlier = []  # there is no history, or no such id in it
        return earlier, self._listen()

    def _listen(self, after: str | None = None) -> Subscription[Message | Gap]:
        return self._hub.subscribe(
            EVERYTHING, gaps=True, after=after, max_queue=MAX_WAITING, overflow="drop_oldest"
        )

    async def _feed(
        self, conn: Connection[Any], earlier: list[Message], events: Subscription[Message | Gap]
    ) -> None:
        try:
            with events:
                for frame in frames_of(earlier, 0):
                    await conn.send_frame(frame)
                async for event in events:
                    waiting = [event, *[await anext(events) for _ in range(len(events))]]
                    for frame in frames_of(waiting, events.dropped):
                        await conn.send_frame(frame)
                    await trio.sleep(PACE)
            await conn.aclose(1001, "the hub has closed")
        except ConnectionClosed:
            pass

    async def _tick(self, conn: Connection[Any]) -> None:
        """Tell the numbers, in a frame that must not wait behind those that wait already."""
        received, since = self._hub.statistics().received, trio.current_time()
        try:
            while True:
                await trio.sleep(TICK)
                now, numbers = trio.current_time(), self._hub.statistics()
                rate = (numbers.received - received) / (now - since)
                received, since = numbers.received, now
                shown = {"rate": rate, "received": received, "browsers": self._browsers()}
                await conn.send_frame(to_frame("numbers", shown))
        except ConnectionClosed:
            pass
