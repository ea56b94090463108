"""The headers in which proxies report the real client: ``Forwarded`` and ``X-Forwarded-*``.

Each proxy appends an entry to the header that it has received, and clients can send arbitrary
entries. Only the entries appended by trusted proxies are used, so these headers are read from the
right.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeAlias

from ..headers import Headers
from ..http import Request
from ..options import check_whole
from ..transports.urls import is_host_header
from .client_address import ClientAddress, IPNetwork, Networks, check_networks, make_address

__all__ = ["ForwardedHeaders", "TrustedProxies", "check_proxies"]

TrustedProxies: TypeAlias = int | Networks
"""The number of proxies in front of a server, or their networks."""

_SECURE = {"https": True, "wss": True, "http": False, "ws": False}

# IPv4 or IPv6 in brackets, both with an optional port, which may be obfuscated
# (RFC 7239, section 6); or plain IPv6.
_match_node = re.compile(
    r"(?:([0-9.]+)|\[([0-9A-Fa-f:.]+)\])(?::(?:([0-9]{1,5})|_[\w.-]+))?|([0-9A-Fa-f:.]+)",
    re.ASCII,
).fullmatch

# One element of Forwarded (RFC 7239, section 4). An element with a comma in a quoted string has
# been split into two elements, neither of which is valid.
_NAME = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_PAIR = rf'({_NAME})=({_NAME}|"(?:[^"\\]|\\.)*")'
_is_element = re.compile(rf"(?:{_PAIR})?(?:[ \t]*+;[ \t]*+(?:{_PAIR})?)*").fullmatch
_find_pairs = re.compile(_PAIR).findall

_logger = logging.getLogger("trioglock.server")


def check_proxies(proxies: TrustedProxies | None) -> int | tuple[IPNetwork, ...] | None:
    """Check the value of ``forwarded``.

    Raises:
        InvalidOption: it is neither a positive number nor networks.
    """
    if proxies is None or isinstance(proxies, int):
        check_whole("forwarded", proxies, least=1)
        return proxies
    return check_networks("forwarded", proxies, " or the number of proxies")


class _Hop(NamedTuple):
    """The information that one proxy reports about its client."""

    node: str = ""
    proto: str = ""
    host: str = ""


@dataclass(frozen=True, slots=True)
class ForwardedHeaders:
    """Applies the headers of trusted proxies to requests.

    Args:
        proxies: how many proxies there are, or their networks.
    """

    proxies: int | tuple[IPNetwork, ...]

    def trusts(self, client: ClientAddress, hops: int = 0) -> bool:
        """Whether the address ``hops`` hops behind the server's peer is a trusted proxy."""
        if isinstance(self.proxies, int):
            return hops < self.proxies
        return client.is_in(self.proxies)

    def apply(self, request: Request, client: ClientAddress) -> tuple[Request, ClientAddress]:
        """Return the request as sent by the real client, and the address of this client.

        If an entry is malformed, the real client is the last one that a trusted proxy reported.
        """
        if not self.trusts(client):
            return request, client
        said, hops = _Hop(), 0
        for hop in _parse(request.headers, client):
            if not self.trusts(client, hops):
                break
            said, hops = hop, hops + 1
            named = _parse_node(hop.node)
            if named is None:
                break
            client = named
        headers = request.headers
        if is_host_header(said.host):
            headers = Headers([*headers.without("Host").pairs(), ("Host", said.host)])
        secure = _SECURE.get(said.proto.lower(), request.secure)
        return replace(request, headers=headers, peer=client.name, secure=secure), client


def _parse(headers: Headers, client: ClientAddress) -> Iterator[_Hop]:
    """Yield the information from the proxies, starting with the nearest proxy."""
    # Empty elements are ignored (RFC 9110, section 5.6.1.2).
    standard = list(filter(None, _split(headers, "Forwarded")))
    nodes = list(filter(None, _split(headers, "X-Forwarded-For")))
    if standard and nodes:
        # A proxy that appends to one of them forwards the other unchanged from the client.
        _logger.info(
            "%s: both Forwarded and X-Forwarded-For were received, so neither is used",
            client.name or "a client",
        )
    elif standard:
        yield from map(_parse_element, standard)
    else:
        # Most proxies replace these two headers, so a single value applies to all hops.
        protos, hosts = _split(headers, "X-Forwarded-Proto"), _split(headers, "X-Forwarded-Host")
        for hop, node in enumerate(nodes or [""]):
            yield _Hop(node, _nth(protos, hop), _nth(hosts, hop))


def _nth(values: Sequence[str], number: int) -> str:
    return values[min(number, len(values) - 1)] if values else ""


def _split(headers: Headers, name: str) -> list[str]:
    """Return the elements of all headers with this name, the last element first."""
    values = headers.get_all(name)
    return [one.strip(" \t") for one in ",".join(values).split(",")][::-1] if values else []


def _parse_element(element: str) -> _Hop:
    if not _is_element(element):
        return _Hop()
    pairs = {name.lower(): _unquote(value) for name, value in _find_pairs(element)}
    return _Hop(pairs.get("for", ""), pairs.get("proto", ""), pairs.get("host", ""))


def _unquote(value: str) -> str:
    return re.sub(r"\\(.)", r"\1", value[1:-1]) if value.startswith('"') else value


def _parse_node(node: str) -> ClientAddress | None:
    match = _match_node(node)
    if match is None:
        return None
    ipv4, bracketed, port, plain = match.groups()
    try:
        return make_address(ipv4 or bracketed or plain, None if port is None else int(port))
    except ValueError:
        return None
