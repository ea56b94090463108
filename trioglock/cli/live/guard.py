"""The guard: who may see the page, watch, and publish.

Any page on the internet may open a WebSocket to a server on the reader's own machine, and a name
of its own may lead there (DNS rebinding). Browsers tell both: ``Origin`` names the page, and
``Host`` the name. So a foreign Origin is always refused, and without a token so is a Host that is
neither a loopback address nor what the server was told to be called.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
from collections.abc import Sequence
from urllib.parse import urlsplit

from ...errors import InvalidOption
from ...http import Request, Response

__all__ = ["Guard", "check_token", "is_loopback", "is_wildcard"]

FORWARDED = ("Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-IP", "Via")
"""What proxies add: behind one, a loopback address says nothing about who asks."""

_is_token = re.compile(r"[\x21-\x7e]+").fullmatch
_split_host = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[\w.-]+)(?::(\d{0,5}))?", re.ASCII).fullmatch


def check_token(token: str | None) -> str | None:
    """The token that publishers show; None for none.

    Raises:
        InvalidOption: it cannot stand in a header. It is not shown.
    """
    if token is not None and not _is_token(token):
        raise InvalidOption("a publish token is made of visible ASCII characters, without spaces")
    return token


class Guard:
    """The rules of one server.

    Args:
        host: that it listens on, as it was given.
        token: that publishers show; None for none.
        page: whether there is a page; None if there is one on a loopback address only.
        page_hosts: further names by which browsers reach the page.
    """

    def __init__(
        self,
        host: str,
        *,
        token: str | None = None,
        page: bool | None = None,
        page_hosts: Sequence[str] = (),
    ) -> None:
        self.has_page: bool = is_loopback(host) if page is None else page
        self.needs_token: bool = token is not None
        self.may_publish: bool = self.needs_token or is_loopback(host)
        """Whether there is any way to publish."""
        self._token = (token or "").encode()
        self._host = host.lower()
        self._any_address = is_wildcard(host)
        self._page_hosts = frozenset(name.lower() for name in page_hosts)

    def refuse_page(self, request: Request) -> Response | None:
        """The answer to one who may not see the page, or watch; None for one who may."""
        if not self.has_page:
            return Response(404, "there is no page here\n")
        host = _host_of(request)
        if not self._is_served(host) and host not in self._page_hosts:
            return Response(421, "this is not a host that the page is served for: --page-host\n")
        return _refuse_origin(request)

    def refuse_publisher(self, request: Request) -> Response | None:
        """The answer to one who may not publish; None for one who may."""
        if not self.may_publish:
            why = "nobody may publish here: the server has no --publish-token\n"
            return Response(403, why)
        refused = _refuse_origin(request)
        if refused is not None:
            return refused
        if not self.needs_token:
            return self._refuse_stranger(request)
        given = request.headers.get_all("Authorization")
        scheme, _, token = given[0].partition(" ") if len(given) == 1 else ("", "", "")
        if scheme.lower() == "bearer" and self.is_token(token.strip()):
            return None
        why = "the publish token is wrong\n" if given else "a publish token is needed\n"
        return Response(401, why, {"WWW-Authenticate": "Bearer"})

    def is_token(self, token: object) -> bool:
        """Whether it is the publish token; it takes as long for any other of its length."""
        return (
            self.needs_token
            and isinstance(token, str)
            and hmac.compare_digest(token.encode(errors="replace"), self._token)
        )

    def is_neighbour(self, request: Request) -> bool:
        """Whether it may publish without a token."""
        return self.may_publish and not self.needs_token and not self._refuse_stranger(request)

    def _refuse_stranger(self, request: Request) -> Response | None:
        if any(name in request.headers for name in FORWARDED):
            return Response(403, "behind a proxy, publishing needs --publish-token\n")
        if not self._is_served(_host_of(request)):
            return Response(421, "without a token, publish to a loopback address\n")
        return None

    def _is_served(self, host: str) -> bool:
        """Whether a name or address can only lead here on purpose."""
        return is_loopback(host) or host == self._host or (self._any_address and _is_ip(host))


def is_loopback(host: str) -> bool:
    """Whether a name or address leads to this machine alone (RFC 6761, section 6.3)."""
    name = host.lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def is_wildcard(host: str) -> bool:
    """Whether it stands for every address of this machine."""
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return not host


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _host_of(request: Request) -> str:
    """The one Host of a request, without its port; "" if there is no such."""
    given = request.headers.get_all("Host")
    found = _split_host(given[0]) if len(given) == 1 else None
    return found[1].strip("[]").lower() if found else ""


def _refuse_origin(request: Request) -> Response | None:
    """The answer to a page from elsewhere (RFC 6455, section 10.2); programs send no Origin."""
    given = request.headers.get_all("Origin")
    if not given or (len(given) == 1 and _same_origin(given[0], request)):
        return None
    return Response(403, "a page of another origin may not do that\n")


def _same_origin(origin: str, request: Request) -> bool:
    try:
        parts = urlsplit(origin)
        port = parts.port
    except ValueError:
        return False
    default = {"http": 80, "https": 443}.get(parts.scheme)
    found = _split_host(request.headers.get("Host", ""))
    if default is None or found is None or origin != f"{parts.scheme}://{parts.netloc}":
        return False
    host = found[1].strip("[]").lower()
    return (parts.hostname, port or default) == (host, int(found[2] or default))
