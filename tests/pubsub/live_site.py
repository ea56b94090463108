"""A site in a thread: a hub, a page, and a server that can be restarted and counts."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import trio

from tests.threads import open_in_thread
from trioglock import ConnectionInfo, Request, Response, serve
from trioglock.disconnect import Disconnect
from trioglock.hooks import MaybeAwaitable
from trioglock.pubsub import Hub, HubSocket, MemoryBroker, browser_module
from trioglock.pubsub.socket import ClientSubscriber

__all__ = ["LiveSite", "live_site"]

SECONDS = 300
"""Time limit for what a page does."""

PAGE = b"""<!doctype html>
<script type="module">
  import { subscribe } from "/trioglock.js";
  window.record = url => {
    const record = window.record = { messages: [], ids: [], gaps: [], states: [] };
    record.feed = subscribe(url, {
      onMessage(data, { id, channel }) {
        record.messages.push(data instanceof Uint8Array ? [channel, ...data] : data);
        record.ids.push(id);
      },
      onGap: gap => record.gaps.push(gap),
      onState: (...state) => record.states.push(state),
    });
  };
</script>"""


class CountingSocket(HubSocket):
    """Records how clients come and go."""

    def __init__(self, site: LiveSite) -> None:
        super().__init__(site.hub)
        self.site = site

    def init_stream(self, info: ConnectionInfo) -> ClientSubscriber | None:
        self.site.connected.append(info.url.rpartition("after=")[2])
        return super().init_stream(info)

    def handle_connect(
        self, info: ConnectionInfo, state: ClientSubscriber | None
    ) -> MaybeAwaitable[tuple[Any, ClientSubscriber | None]]:
        if self.site.silent:
            return None, state
        return super().handle_connect(info, state)

    def terminate(self, reason: Disconnect, state: ClientSubscriber | None) -> object:
        self.site.ended.append(getattr(reason, "code", 0))
        return super().terminate(reason, state)


class LiveSite:
    """The site. Its methods may be called from the thread of the test."""

    def __init__(self, history: int | None) -> None:
        self.hub = Hub(broker=MemoryBroker(history=history))
        self.url = ""
        self.connected: list[str] = []
        """The ids after which clients have subscribed."""
        self.ended: list[int] = []
        """The close codes of clients."""
        self.silent = False
        """Whether subscriptions are not confirmed."""
        self.incoming: list[str | bytes] = []
        """What pages have sent."""
        self.hub.on("incoming")(lambda message: self.incoming.append(message.data))
        self._port = 0
        self._restart = trio.Event()

    def publish(self, *messages: str | bytes, channel: str = "news") -> None:
        for message in messages:
            trio.from_thread.run(self.hub.publish, message, channel, trio_token=self._token)

    def restart(self) -> None:
        """Close all connections with 1001, and serve again."""
        trio.from_thread.run_sync(self._restart.set, trio_token=self._token)

    async def publish_and_restart(self, messages: int, restarts: int) -> None:
        """Publish numbers while the server restarts."""
        for number in range(messages):
            await self.hub.publish(str(number), channel="news")
            await trio.sleep(0.005)
            if number % (messages // restarts) == messages // restarts // 2:
                self._restart.set()

    def wait(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition is true."""
        deadline = time.monotonic() + SECONDS
        while not condition():
            assert time.monotonic() < deadline, "it does not happen"
            time.sleep(0.01)

    def run(self, *call: object) -> None:
        trio.from_thread.run(*call, trio_token=self._token)  # type: ignore[arg-type]

    @asynccontextmanager
    async def open(self) -> AsyncIterator[LiveSite]:
        self._token = trio.lowlevel.current_trio_token()
        async with self.hub, trio.open_nursery() as nursery:
            await nursery.start(self._serve)
            yield self
            nursery.cancel_scope.cancel()

    async def _serve(self, task_status: trio.TaskStatus[None]) -> None:
        while True:
            async with serve(
                self.hub.socket_of(lambda _: CountingSocket(self)),
                "127.0.0.1",
                self._port,
                process_request=process_request,
            ) as server:
                assert server.port is not None
                self._port = server.port
                self.url = f"http://127.0.0.1:{server.port}/"
                task_status.started()
                task_status = trio.TASK_STATUS_IGNORED
                await self._restart.wait()
                self._restart = trio.Event()


def process_request(request: Request) -> Response | None:
    if request.path == "/trioglock.js":
        return browser_module(request)
    if "Upgrade" in request.headers:
        return None
    return Response(200, PAGE, {"Content-Type": "text/html"})


@contextmanager
def live_site(history: int | None = 1000) -> Iterator[LiveSite]:
    """Run a site for the duration of a block."""
    with open_in_thread(LiveSite(history).open) as site:
        yield site
