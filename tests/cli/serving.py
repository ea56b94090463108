"""Servers as ``trioglock serve`` runs them: in memory, in a thread, or in a process."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from tests.cli.helpers import Running, started
from tests.server.helpers import Site, serving
from tests.threads import open_in_thread
from trioglock import Connection, serve
from trioglock.cli.live import PUBLISH, AccessRules, Endpoints
from trioglock.cli.live.sockets import LIVE
from trioglock.cli.serve import Settings, load_target, open_server
from trioglock.pubsub import Hub

__all__ = [
    "HOST",
    "HubServer",
    "Page",
    "open_hub",
    "publish_request",
    "serve_in_process",
    "serve_in_thread",
    "target_in_thread",
]

HOST = "127.0.0.1:8020"
"""The Host header of a client on the machine of the server."""


def publish_request(channel: str = "news", data: str = "hello", **more: object) -> str:
    """A frame with a request to publish."""
    return json.dumps({"channel": channel, "data": data, **more})


class Page:
    """The connection of a page, without a browser."""

    def __init__(self, conn: Connection[None]) -> None:
        self.conn = conn
        self.events: list[dict[str, Any]] = []
        self.dropped = 0

    async def next(self, kind: str) -> Any:
        """Return the next frame of this kind; events on the way are collected."""
        while True:
            frame = json.loads(await self.conn.receive())
            if "events" in frame:
                self.events += frame["events"]
                self.dropped = frame["dropped"]
            if kind in frame:
                return frame[kind]


class HubServer:
    """A hub in memory with its endpoints."""

    def __init__(self, hub: Hub, site: Site) -> None:
        self.hub = hub
        self.site = site

    @asynccontextmanager
    async def publisher(self) -> AsyncIterator[Connection[None]]:
        """Connect as a program that publishes."""
        headers = [("Host", HOST)]
        async with self.site.dial(additional_headers=headers, subprotocols=[PUBLISH]) as conn:
            yield conn

    @asynccontextmanager
    async def page(self, after: str = "", *headers: tuple[str, str]) -> AsyncIterator[Page]:
        """Connect as a page does."""
        async with self.site.dial(
            f"/?after={after}",
            additional_headers=headers or [("Host", HOST)],
            subprotocols=[LIVE],
        ) as conn:
            yield Page(conn)


@asynccontextmanager
async def open_hub(
    host: str = "127.0.0.1", hub: Hub | None = None, **rules: Any
) -> AsyncIterator[HubServer]:
    """Serve a hub in memory, with the access rules of a server that listens on ``host``."""
    async with hub or Hub() as hub:
        endpoints = Endpoints(hub, AccessRules(host, **rules), is_worker=False, counts=True)
        async with serving(endpoints, process_request=endpoints.process_request) as site:
            endpoints.server = site.server
            yield HubServer(hub, site)


@contextmanager
def target_in_thread(target: Any, **options: Any) -> Iterator[str]:
    """Serve a target; its URL."""
    with open_in_thread(lambda: serve(target, "127.0.0.1", 0, **options)) as server:
        yield f"ws://127.0.0.1:{server.port}/"


@contextmanager
def serve_in_thread(**settings: Any) -> Iterator[str]:
    """Serve as ``trioglock serve`` with these settings; the address, ``"127.0.0.1:50812"``."""
    chosen = Settings(**{"port": 0, "shutdown_timeout": 1, **settings})
    with open_in_thread(lambda: open_server(chosen, load_target(chosen))) as server:
        host = f"[{chosen.host}]" if ":" in chosen.host else chosen.host
        yield f"{'127.0.0.1' if host == '0.0.0.0' else host}:{server.port}"


@asynccontextmanager
async def serve_in_process(*arguments: str, **env: str) -> AsyncIterator[tuple[Running, str]]:
    """``trioglock serve`` on a free port, and its address; SIGTERM ends it with 0."""
    async with started("serve", "--port", "0", *arguments, **env) as running:
        words = (await running.line()).split()
        assert words[:2] == ["serving", "on"]
        yield running, words[2]
        running.terminate()
        assert (await running.finish()).code == 0
