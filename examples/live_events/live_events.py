"""Live events: a chart in every browser shows numbers as they are published.

    python examples/live_events/live_events.py

Open http://127.0.0.1:8020/ in a browser. Without Redis, the server publishes random numbers. With
Redis, the chart shows all numbers published there, and several servers can share the load:

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
from trioglock.pubsub import Gap, Hub, MemoryBroker, Message, RedisBroker, browser_module

PAGE = Path(__file__).with_name("page.html").read_bytes()
HTML = {"Content-Type": "text/html; charset=utf-8"}


def process_request(request: Request) -> Response | None:
    """Serve the page, its module and a health check; return None for WebSockets."""
    if "Upgrade" in request.headers:
        return None
    if request.path == "/":
        return Response(200, PAGE, HTML)
    if request.path == "/trioglock.js":
        return browser_module(request)
    if request.path == "/health":
        return Response(200, "ok")
    return Response(404, "not found")


async def publish_numbers(hub: Hub) -> None:
    """Publish a random walk."""
    number = 50
    while True:
        number = min(100, max(0, number + random.randint(-8, 8)))  # noqa: S311 - not a secret
        await hub.publish(str(number), channel="visitors")
        await trio.sleep(0.2)


async def main(port: int, redis: str | None) -> None:
    broker = MemoryBroker(history=100) if redis is None else RedisBroker(redis)
    hub = Hub(broker=broker)

    @hub.on("incoming")
    def print_incoming(message: Message) -> None:
        print(f"from a browser: {message.data!r}", flush=True)

    @hub.on(Gap)
    def print_gap(gap: Gap) -> None:
        print(f"Redis was unavailable for {gap.seconds:.1f} seconds", flush=True)

    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with (
            hub,
            serve(hub.socket, "127.0.0.1", port, process_request=process_request) as server,
            trio.open_nursery() as nursery,
        ):
            print(f"open http://127.0.0.1:{server.port}/", flush=True)
            if redis is None:
                nursery.start_soon(publish_numbers, hub)
            await anext(signals)
            nursery.cancel_scope.cancel()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=8020, help="0 for a free port")
    parser.add_argument("--redis", help="URL, such as redis://127.0.0.1:6379")
    options = parser.parse_args()
    trio.run(main, options.port, options.redis)
