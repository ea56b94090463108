"""Live events: what is published from anywhere moves a chart in every browser.

    python examples/live_events/live_events.py

Open http://127.0.0.1:8020/ and watch: without Redis the program publishes numbers of its own.
With Redis anything that can PUBLISH moves the chart, and several servers may share the browsers:

    python examples/live_events/live_events.py --redis redis://127.0.0.1:6379
    redis-cli PUBLISH trioglock/visitors 17
"""

from __future__ import annotations

import argparse
import random
import signal
from pathlib import Path

import trio

from trioglock import Request, Response, serve
from trioglock.pubsub import Gap, Hub, MemoryBroker, Message, RedisBroker

PAGE = Path(__file__).with_name("page.html").read_bytes()
HTML = {"Content-Type": "text/html; charset=utf-8"}


def answer(request: Request) -> Response | None:
    """The page for whoever asks for it; WebSockets go on."""
    if "Upgrade" in request.headers:
        return None
    if request.path == "/":
        return Response(200, PAGE, HTML)
    if request.path == "/health":
        return Response(200, "ok")
    return Response(404, "there is nothing here")


async def publish_numbers(hub: Hub) -> None:
    """A walk at random, so that there is something to see."""
    number = 50
    while True:
        number = min(100, max(0, number + random.randint(-8, 8)))  # noqa: S311 - no secret
        await hub.publish(str(number), channel="visitors")
        await trio.sleep(0.2)


async def main(port: int, redis: str | None) -> None:
    broker = MemoryBroker(history=100) if redis is None else RedisBroker(redis)
    hub = Hub(broker=broker)

    @hub.on("incoming")
    def from_a_browser(message: Message) -> None:
        print(f"a browser says: {message.data!r}", flush=True)

    @hub.on(Gap)
    def redis_was_away(gap: Gap) -> None:
        print(f"nothing was heard for {gap.seconds:.1f} seconds", flush=True)

    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as stop:
        async with (
            hub,
            serve(hub.socket, "127.0.0.1", port, process_request=answer) as server,
            trio.open_nursery() as nursery,
        ):
            print(f"open http://127.0.0.1:{server.port}/", flush=True)
            if redis is None:
                nursery.start_soon(publish_numbers, hub)
            await anext(stop)
            nursery.cancel_scope.cancel()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=8020, help="0 for one that is free")
    parser.add_argument("--redis", help="such as redis://127.0.0.1:6379")
    options = parser.parse_args()
    trio.run(main, options.port, options.redis)
