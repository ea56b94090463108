"""Hubs and other programs that publish while servers fail, and check that nothing is lost."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

import trio

from trioglock.pubsub import Gap, Hub, Message, RedisBroker, publish

__all__ = ["Load", "loaded"]

PAUSE = 0.05
"""Seconds between two messages of a publisher."""


class Load:
    """Publishers and subscribers of one hub."""

    def __init__(
        self,
        url: str,
        name: str,
        history: int | None,
        nursery: trio.Nursery,
        stack: AsyncExitStack,
        options: dict[str, Any],
    ) -> None:
        self.published: dict[str, int] = {}
        """How many messages each publisher has published."""
        self.events: list[list[Message | Gap]] = []
        """What each subscriber has received."""
        self._history = history
        self._url = url
        self._options = options
        self._nursery = nursery
        self._stack = stack
        self._name = name
        self._running = set[str]()
        self._is_over = False

    async def add_hub(self) -> None:
        """Open another hub, which publishes and subscribes."""
        broker = RedisBroker(self._url, history=self._history, publish_timeout=60, **self._options)
        hub = await self._stack.enter_async_context(Hub(self._name, broker, max_queue=2**20))
        received = list[Message | Gap]()
        self.events.append(received)
        self._nursery.start_soon(self._read, hub.subscribe("x", gaps=True), received)
        self._add_publisher(f"hub{len(self.events)}", hub)

    def add_program(self) -> None:
        """Also publish as a program without trio does."""
        self._add_publisher("program", None)

    def _add_publisher(self, name: str, hub: Hub | None) -> None:
        self.published[name] = 0
        self._running.add(name)
        self._nursery.start_soon(self._publish, name, hub)

    async def _read(self, subscription: Any, received: list[Message | Gap]) -> None:
        async for event in subscription:
            received.append(event)  # noqa: PERF401 - others read the list in the meantime

    async def _publish(self, name: str, hub: Hub | None) -> None:
        number = 0
        while not self._is_over:
            number += 1
            text = f"{name} {number}"
            if hub is None:
                job = partial(publish, text, "x", name=self._name, url=self._url, timeout=60)
                await trio.to_thread.run_sync(partial(job, history=self._history, **self._options))
            else:
                await hub.publish(text, channel="x")
            self.published[name] = number
            await trio.sleep(PAUSE)
        self._running.discard(name)

    async def wait_published(self, count: int = 8) -> None:
        """Wait until each publisher has published more messages."""
        start = dict(self.published)
        while any(self.published[name] < start[name] + count for name in start):
            await trio.sleep(PAUSE)

    async def finish(self) -> None:
        """Stop publishing, and wait until the subscribers have received the latest messages."""
        self._is_over = True
        while self._running or self._missing():
            await trio.sleep(PAUSE)

    def _missing(self) -> bool:
        latest = [f"{name} {number}" for name, number in self.published.items()]
        ends = [{e.data for e in events[-200:] if isinstance(e, Message)} for events in self.events]
        return any(text not in end for text in latest for end in ends)

    def check(self) -> None:
        """Check that each subscriber received each message, or a gap in its place."""
        for events in self.events:
            last = dict[str, int]()
            is_gap = dict[str, bool]()
            for event in events:
                if isinstance(event, Gap):
                    is_gap = dict.fromkeys(self.published, True)
                    continue
                name, number = str(event.data).split()
                missing = int(number) - last.get(name, int(number) - 1) - 1
                assert missing <= 0 or is_gap.get(name), (event, last[name])
                last[name] = max(int(number), last.get(name, 0))
                is_gap[name] = False


@asynccontextmanager
async def loaded(
    url: str, plain: str = "plain", kept: str = "kept", **options: Any
) -> AsyncIterator[list[Load]]:
    """Hubs with and without a history, and programs without trio, that publish during a block."""
    with trio.fail_after(90):
        async with trio.open_nursery() as nursery, AsyncExitStack() as stack:
            loads = [
                Load(url, plain, None, nursery, stack, options),
                Load(url, kept, 10_000, nursery, stack, options),
            ]
            for load in loads:
                for _ in range(2):
                    await load.add_hub()
                load.add_program()
            for load in loads:
                await load.wait_published()
            yield loads
            for load in loads:
                await load.wait_published()
                await load.finish()
            await stack.aclose()
            nursery.cancel_scope.cancel()
    for load in loads:
        load.check()
