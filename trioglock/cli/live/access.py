"""Access rules: who may connect, open the page, watch, and publish.

Any page on the internet may open a WebSocket to a server on the user's own machine, and the page's
host name may resolve to that machine (DNS rebinding). Browsers reveal both: ``Origin`` identifies
the page, and ``Host`` contains the name in the address bar. If the server listens on a loopback
address, pages from elsewhere may connect only if their Origin is allowed. A request to open the
page, watch or publish is always refused if its Origin is foreign. Without a token, it is also
refused if its Host is neither a loopback address nor a name of this server.
"""

from __future__ import annotations

import hmac
import logging
import re
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address

from ..._redact import redact_line
from ...errors import InvalidOption
from ...http import Request, Response
from ...transports import UpgradeOptions
from ...transports.urls import (
    is_host_header,
    normalize_origin,
    parse_host_header,
    server_name,
)

__all__ = [
    "ANY_ORIGIN",
    "AccessRules",
    "check_origins",
    "check_token",
    "is_loopback",
    "is_wildcard",
]

_logger = logging.getLogger("trioglock.serve")

ANY_ORIGIN = "*"
"""Allows all pages."""

MAX_REPORTED = 20
"""Maximum number of refused origins that are logged."""

FORWARDED = ("Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-IP", "Via")
"""Headers added by proxies. Behind a proxy, a loopback address does not identify the client."""

_is_token = re.compile(r"[\x21-\x7e]+").fullmatch


def check_token(token: str | None) -> str | None:
    """Return the token. Raise InvalidOption if it cannot be sent in a header.

    The message does not reveal the token.
    """
    if token is not None and not _is_token(token):
        raise InvalidOption(
            "the publish token must consist of visible ASCII characters without spaces"
        )
    return token


def check_origins(origins: Sequence[str]) -> Sequence[str]:
    """Return the origins in the form in which browsers send them, or raise InvalidOption."""
    if ANY_ORIGIN in origins:
        return (ANY_ORIGIN,)
    return [str(origin) for origin in UpgradeOptions(origins=origins).origins or ()]


class AccessRules:
    """The access rules of one server.

    Args:
        host: the address or name that the server listens on.
        origins: the origins whose pages may connect; :data:`ANY_ORIGIN` for all. If empty,
            pages from any origin may connect; on a loopback address, only pages from this machine
            may connect.
        token: the token that publishers must send; None if no token is needed.
        page: whether there is a page; None for a page on a loopback address only.
        page_hosts: further host names under which browsers may open the page.
    """

    def __init__(
        self,
        host: str,
        *,
        token: str | None = None,
        page: bool | None = None,
        page_hosts: Sequence[str] = (),
        origins: Sequence[str] = (),
    ) -> None:
        self._is_local = is_loopback(host)
        self._origins = frozenset(check_origins(origins))
        self._reported: set[str] = set()
        self.has_page: bool = is_loopback(host) if page is None else page
        self.needs_token: bool = token is not None
        self.allows_publishing: bool = self.needs_token or is_loopback(host)
        self._token = (token or "").encode()
        self._host = _normalize(host)
        self._any_address = is_wildcard(host)
        if "" in page_hosts:
            raise InvalidOption("a page host must not be empty")
        self._page_hosts = frozenset(map(_normalize, page_hosts))

    def refuse_client(self, request: Request) -> Response | None:
        """Return the response to a request whose Origin may not connect; None if it may."""
        values = request.headers.get_all("Origin")
        if not values or ANY_ORIGIN in self._origins or not (self._is_local or self._origins):
            return None
        origin = values[0]
        if len(values) == 1 and (
            origin in self._origins
            or (self._is_local and _is_local_origin(origin))
            or (self._is_page_host(_host(request)) and _is_same_origin(origin, request))
        ):
            return None
        if origin not in self._reported and len(self._reported) < MAX_REPORTED:
            self._reported.add(origin)
            _logger.warning(
                "refused a connection from a page of %s; to allow this origin, pass --origin",
                redact_line(origin, 100),
            )
        return Response(403, "pages from this origin are refused; see --origin\n")

    def refuse_page(self, request: Request) -> Response | None:
        """Return the response to a request that may not open the page or watch; None if it may."""
        if not self.has_page:
            return Response(404, "this server has no page\n")
        if not self._is_page_host(_host(request)):
            return Response(421, "the page is not served for this host; see --page-host\n")
        return _refuse_origin(request)

    def refuse_publisher(self, request: Request) -> Response | None:
        """Return the response to a request that may not publish; None if it may."""
        if not self.allows_publishing:
            return Response(
                403, "publishing is disabled: the server was started without --publish-token\n"
            )
        refusal = _refuse_origin(request)
        if refusal is not None:
            return refusal
        if not self.needs_token:
            return self._refuse_remote(request)
        values = request.headers.get_all("Authorization")
        scheme, _, token = values[0].partition(" ") if len(values) == 1 else ("", "", "")
        if scheme.lower() == "bearer" and self.is_token(token.strip()):
            return None
        reason = "the publish token is wrong\n" if values else "a publish token is required\n"
        return Response(401, reason, {"WWW-Authenticate": "Bearer"})

    def is_token(self, token: object) -> bool:
        """Whether this is the publish token. The comparison takes constant time."""
        return (
            self.needs_token
            and isinstance(token, str)
            and hmac.compare_digest(token.encode(errors="replace"), self._token)
        )

    def is_local(self, request: Request) -> bool:
        """Whether a request may publish without a token."""
        return self.allows_publishing and not self.needs_token and not self._refuse_remote(request)

    def _refuse_remote(self, request: Request) -> Response | None:
        if any(name in request.headers for name in FORWARDED):
            return Response(403, "publishing through a proxy requires --publish-token\n")
        if not self._is_own_host(_host(request)):
            return Response(421, "publishing without a token requires a loopback address\n")
        return None

    def _is_page_host(self, host: str) -> bool:
        return self._is_own_host(host) or host in self._page_hosts

    def _is_own_host(self, host: str) -> bool:
        """Whether this is a host name or address that clients of this server may use."""
        if is_loopback(host) or host == self._host:
            return True
        return self._any_address and _parse_ip(host) is not None


def is_loopback(host: str) -> bool:
    """Whether a host name or address is local to this machine (RFC 6761, section 6.3)."""
    ip = _parse_ip(host)
    return (
        f".{host.lower().removesuffix('.')}".endswith(".localhost")
        if ip is None
        else ip.is_loopback
    )


def is_wildcard(host: str) -> bool:
    """Whether a host name or address stands for all addresses of the machine."""
    ip = _parse_ip(host)
    return not host if ip is None else ip.is_unspecified


def _normalize(host: str) -> str:
    """Normalize a name or an address, which may have brackets, as :func:`_host` does."""
    try:
        return server_name(host.removeprefix("[").removesuffix("]")) if host else ""
    except ValueError as error:
        raise InvalidOption(f"{host!r} is not a valid host name: {error}") from None


def _parse_ip(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


def _host(request: Request) -> str:
    """The Host of a request without its port; empty if it is missing, repeated or malformed."""
    values = request.headers.get_all("Host")
    authority = parse_host_header(values[0]) if len(values) == 1 else None
    return server_name(authority.host) if authority else ""


def _refuse_origin(request: Request) -> Response | None:
    """Refuse pages from other origins (RFC 6455, section 10.2).

    Non-browser clients send no Origin.
    """
    values = request.headers.get_all("Origin")
    if not values or (len(values) == 1 and _is_same_origin(values[0], request)):
        return None
    return Response(403, "pages from other origins are refused\n")


def _is_same_origin(origin: str, request: Request) -> bool:
    scheme, host = origin.partition("://")[0], request.headers.get("Host", "")
    if scheme not in ("http", "https") or not is_host_header(host):
        return False
    try:
        return normalize_origin(origin) == normalize_origin(f"{scheme}://{host}")
    except ValueError:
        return False


def _is_local_origin(origin: str) -> bool:
    """Whether a page comes from a server on this machine."""
    scheme, _, host = origin.partition("://")
    authority = parse_host_header(host)
    return scheme in ("http", "https") and authority is not None and is_loopback(authority.host)
