"""The endpoints of a hub's server: browsers, the page, its WebSocket, and publishers."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any

import trio

from ...hooks import Socket
from ...http import Request, Response
from ...pubsub import Hub, HubSocket
from ...pubsub.socket import HubTarget
from ...server import HandshakeTarget, Server
from .access import AccessRules
from .sockets import LIVE, PUBLISH, PageSocket, PublishingSocket

__all__ = ["Endpoints", "read_page"]

COUNT_INTERVAL = 0.5
"""Seconds for which the number of connections is cached: counting thousands of them takes time."""

HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class Endpoints(HandshakeTarget):
    """A target for :func:`trioglock.serve` that adds the page and publishers to a hub.

    Pages and publishers identify themselves by their subprotocol. All other clients are browsers of
    the hub, regardless of their path.

    Args:
        hub: an open hub.
        rules: the rules for opening the page and publishing.
        is_worker: whether other processes listen on the same port.
        counts: whether all subscribers of the hub are in this process.
    """

    _codec_hint = "encode the messages that you publish"

    def __init__(self, hub: Hub, rules: AccessRules, *, is_worker: bool, counts: bool) -> None:
        self.server: Server | None = None
        """Set this once the server is open."""
        self._hub = hub
        self._browsers = HubTarget(hub, HubSocket)
        self._rules = rules
        self._is_worker = is_worker
        self._counts = counts
        self._count = 0
        self._count_expires = 0.0

    def process_request(self, request: Request) -> Response | None:
        """Return the page or a refusal; None for a WebSocket that may connect."""
        if "Upgrade" in request.headers:
            return self._refuse(request, offered_subprotocols(request))
        is_page = request.path == "/" and request.method in ("GET", "HEAD")
        if not is_page or not self._rules.has_page:
            return None
        return self._rules.refuse_page(request) or _page_response(request)

    def _select_subprotocol(self, request: Request, offered: Sequence[str]) -> str | None:
        """Select the subprotocol of pages or publishers, if the client offers and may use it."""
        for name in (LIVE, PUBLISH):
            if name in offered and self._refuse(request, [name]) is None:
                return name
        return None

    def _refuse(self, request: Request, offered: Sequence[str]) -> Response | None:
        if LIVE in offered:
            return self._rules.refuse_page(request)
        if PUBLISH in offered:
            return self._rules.refuse_publisher(request)
        return self._rules.refuse_client(request)

    async def _admit(self, request: Request) -> object:
        name = self._select_subprotocol(request, offered_subprotocols(request))
        if name is None:
            return await self._browsers._admit(request)  # noqa: SLF001 - the same interface
        return name, request

    def _make_socket(self, admitted: object) -> Socket[Any, Any]:
        if not isinstance(admitted, tuple):
            return self._browsers._make_socket(admitted)  # noqa: SLF001
        name, request = admitted
        if name == PUBLISH:
            return PublishingSocket(self._hub, counts=self._counts)
        is_local, needs_token = self._rules.is_local(request), self._rules.needs_token
        return PageSocket(
            self._hub,
            counts=self._counts,
            may_publish=lambda token: is_local or self._rules.is_token(token),
            hello={
                "hub": self._hub.name,
                "publish": "open" if is_local else "token" if needs_token else "off",
                "process": os.getpid() if self._is_worker else None,
            },
            count_browsers=self._count_browsers,
        )

    def _count_browsers(self) -> int:
        now = trio.current_time()
        if self.server is not None and now >= self._count_expires:
            self._count_expires = now + COUNT_INTERVAL
            own = (LIVE, PUBLISH)
            self._count = sum(conn.subprotocol not in own for conn in self.server.connections)
        return self._count


def offered_subprotocols(request: Request) -> list[str]:
    """Return the subprotocols that a client offers."""
    offered = request.headers.get("Sec-WebSocket-Protocol", "")
    return [name.strip() for name in offered.split(",")]


def _page_response(request: Request) -> Response:
    text, policy = read_page()
    host = request.headers["Host"]
    # Not every browser regards a WebSocket to the server of the page as 'self'.
    policy = f"{policy}; connect-src 'self' ws://{host} wss://{host}"
    return Response(200, text, {**HEADERS, "Content-Security-Policy": policy})


@cache
def read_page() -> tuple[str, str]:
    """The page including its style and script, and a Content-Security-Policy for these two."""
    folder = files(__package__)
    text, style, script = (
        folder.joinpath(f"page.{kind}").read_text("utf-8") for kind in ("html", "css", "js")
    )
    text = text.replace("/*style*/", style).replace("/*script*/", script)
    policy = (
        f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return text, policy


def _hash(source: str) -> str:
    """The source expression for an inline block (Content Security Policy Level 3, section 8.3)."""
    digest = hashlib.sha256(source.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
