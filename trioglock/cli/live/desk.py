"""The front desk of a hub: who gets the page, who watches, who publishes, and who just listens."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextvars import ContextVar
from functools import partial
from typing import Any

import trio

from ...hooks import Socket
from ...http import Request, Response
from ...pubsub import Hub
from ...server import Server
from .guard import Guard
from .page import page_for
from .press import Press
from .publisher import PUBLISH, Publisher
from .watcher import LIVE, Watcher

__all__ = ["Desk"]

COUNT_INTERVAL = 0.5
"""Seconds between two counts of the connections, of which there may be many thousands."""

# A client is received, and its Socket made, in one and the same task: of that client alone.
_admitted: ContextVar[tuple[str, Request] | None] = ContextVar("_admitted", default=None)


class Desk:
    """What :func:`trioglock.serve` needs to serve a hub with a page.

    A page and a publisher say by their subprotocol what they are; who offers neither is a browser
    of the hub, whatever its path.

    Args:
        hub: an open one.
        guard: its rules.
        worker: whether other processes listen on the same port.
        counts: whether all who listen to the hub do so in this process.
    """

    def __init__(self, hub: Hub, guard: Guard, *, worker: bool, counts: bool) -> None:
        self.server: Server | None = None
        """To be set when there is one."""
        self._hub = hub
        self._guard = guard
        self._worker = worker
        self._count = 0
        self._count_again = 0.0
        self._press = Press(hub, counts=counts)

    def process_request(self, request: Request) -> Response | None:
        """Answer with the page, or with a refusal; None for a WebSocket that may come in."""
        _admitted.set(None)
        if "Upgrade" in request.headers:
            offered = request.headers.get("Sec-WebSocket-Protocol", "")
            return self._refusal(request, [name.strip() for name in offered.split(",")])
        if not self._guard.has_page or request.path != "/" or request.method not in _READING:
            return None
        return self._guard.refuse_page(request) or page_for(request)

    def select_subprotocol(self, request: Request, offered: Sequence[str]) -> str | None:
        """One of ours, if the client offers it and may do that."""
        for name in (LIVE, PUBLISH):
            if name in offered and self._refusal(request, [name]) is None:
                _admitted.set((name, request))
                return name
        return None

    def _refusal(self, request: Request, offered: Sequence[str]) -> Response | None:
        if LIVE in offered:
            return self._guard.refuse_page(request)
        if PUBLISH in offered:
            return self._guard.refuse_publisher(request)
        return None

    def socket(self) -> Socket[Any]:
        """A Socket for the client that was let in last, in this task."""
        admitted = _admitted.get()
        if admitted is None:
            return self._hub.socket()
        name, request = admitted
        return self._watcher(request) if name == LIVE else Publisher(self._press)

    def _watcher(self, request: Request) -> Watcher:
        guard = self._guard
        neighbour = guard.is_neighbour(request)
        publishing = "open" if neighbour else "token" if guard.needs_token else "off"
        hello: dict[str, object] = {
            "hub": self._hub.name,
            "publish": publishing,
            "process": os.getpid() if self._worker else None,
        }
        may_publish = partial(_always, neighbour) if neighbour else guard.is_token
        return Watcher(self._hub, self._press, may_publish, hello, self._browsers)

    def _browsers(self) -> int:
        """Connections that neither watch nor publish, counted now and then for all pages."""
        now = trio.current_time()
        if self.server is not None and now >= self._count_again:
            self._count_again = now + COUNT_INTERVAL
            own = (LIVE, PUBLISH)
            self._count = sum(conn.subprotocol not in own for conn in self.server.connections)
        return self._count


_READING = ("GET", "HEAD")


def _always(answer: bool, _: object) -> bool:
    return answer
