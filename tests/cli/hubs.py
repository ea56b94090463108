"""A hub as ``trioglock serve`` serves it, in memory, or in a process of its own."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tests.cli.helpers import Running, started
from tests.server.helpers import Site, serving
from trioglock import Connection
from trioglock.cli.live import PUBLISH, Desk, Guard
from trioglock.pubsub import Hub

__all__ = ["HOST", "Front", "fronted", "publication", "served"]

HOST = "127.0.0.1:8020"
"""What a client of a server on this machine sends as Host."""


class Front:
    """A hub behind its front desk."""

    def __init__(self, hub: Hub, site: Site) -> None:
        self.hub = hub
        self.site = site

    @asynccontextmanager
    async def publisher(self, *headers: tuple[str, str]) -> AsyncIterator[Connection[None]]:
        """One who may publish, if the guard lets it."""
        every = [("Host", HOST), *headers]
        async with self.site.dial(additional_headers=every, subprotocols=[PUBLISH]) as conn:
            yield conn


@asynccontextmanager
async def fronted(
    host: str = "127.0.0.1", hub: Hub | None = None, **rules: Any
) -> AsyncIterator[Front]:
    """A hub in memory, with the guard of a server that listens on ``host``."""
    async with hub or Hub() as hub:
        desk = Desk(hub, Guard(host, **rules), worker=False, counts=True)
        async with serving(
            desk.socket,
            process_request=desk.process_request,
            select_subprotocol=desk.select_subprotocol,
        ) as site:
            desk.server = site.server
            yield Front(hub, site)


def publication(channel: str = "news", data: str = "hello", **more: object) -> str:
    """A frame that asks to publish."""
    return json.dumps({"channel": channel, "data": data, **more})


@asynccontextmanager
async def served(*arguments: str, **env: str) -> AsyncIterator[tuple[Running, str]]:
    """``trioglock serve`` on a free port, and its address, such as ``"127.0.0.1:50812"``."""
    async with started("serve", "--port", "0", *arguments, **env) as running:
        words = (await running.line()).split()
        assert words[:2] == ["serving", "on"]
        yield running, words[2]
        running.process.terminate()
        assert (await running.finish()).code == 0
