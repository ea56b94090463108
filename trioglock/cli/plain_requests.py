"""Plain HTTP requests to ``trioglock serve``: health checks and static files."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable

from ..errors import InvalidOption
from ..http import Request, Response
from ..pubsub import Hub
from ..server import Server
from .static_files import StaticFiles

__all__ = ["PlainRequests", "check_health_path"]

NO_STORE = {"Cache-Control": "no-store"}

# The path of a URL (RFC 3986, section 3.3), without percent-encoding, because paths are compared as
# they are received.
_is_path = re.compile(r"/[A-Za-z0-9._~!$&'()*+,;=:@/-]*").fullmatch


def check_health_path(path: str) -> None:
    """Raise InvalidOption if no request can have this path."""
    if not _is_path(path):
        raise InvalidOption(f"--health must be a path such as /health, not {path!r}")


class PlainRequests:
    """Answers requests that do not request a WebSocket.

    Args:
        health: the path of the health check, if there is one.
        files: the files to serve, if there are any.
        hubs: the hubs whose brokers the server needs.
        process_others: answers all other requests, including those for a WebSocket.
    """

    def __init__(
        self,
        health: str | None,
        files: StaticFiles | None,
        hubs: Iterable[Hub],
        process_others: Callable[[Request], Response | None],
    ) -> None:
        self.server: Server | None = None
        """Set this attribute once the server is open."""
        self._health = health
        self._files = files
        self._hubs = hubs
        self._process_others = process_others

    def process_request(self, request: Request) -> Response | Awaitable[Response] | None:
        """Return the response, or None for a WebSocket that may connect."""
        if not _asks_for_websocket(request):
            if request.path == self._health and request.method in ("GET", "HEAD"):
                return self._check_health()
            if self._files is not None:
                return self._files.respond(request)
        return self._process_others(request)

    def _check_health(self) -> Response:
        if self.server is not None and self.server.closing:
            return Response(503, "the server is shutting down\n", NO_STORE)
        if not all(hub.statistics().broker_up for hub in self._hubs):
            return Response(503, "the hub cannot reach its broker\n", NO_STORE)
        return Response(200, "ok\n", NO_STORE)


def _asks_for_websocket(request: Request) -> bool:
    """Whether the request is for a WebSocket.

    Other upgrades may be ignored (RFC 9110, section 7.8).
    """
    values = request.headers.get_all("Upgrade")
    return any("websocket" in value.lower() for value in values)
