"""Proxies: their URLs, and the environment variables that name them."""

from __future__ import annotations

import logging
import os
import re
import sys
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import Literal, NamedTuple
from urllib.request import getproxies, getproxies_environment, proxy_bypass

from .._redact import redact_query, without_secrets
from .._text import as_text
from ..errors import InvalidOption
from .urls import (
    WebSocketURL,
    check_basic_credentials,
    find_url_problem,
    parse_authority,
    server_name,
    split_url,
)

__all__ = ["Proxy", "check_proxy", "find_proxy", "parse_proxy"]

_PORTS = {
    "http": 80,
    "https": 443,
    "socks4": 1080,
    "socks4a": 1080,
    "socks5": 1080,
    "socks5h": 1080,
}

# RFC 6455, section 4.1: SOCKS is preferred, then the proxy for HTTPS.
_VARIABLES = {
    False: ("ws", "socks", "https", "http", "all"),
    True: ("wss", "socks", "https", "all"),
}

_MAX_SOCKS_TEXT = 255  # RFC 1929, section 2

_logger = logging.getLogger("trioglock.client")


@dataclass(frozen=True, slots=True)
class Proxy:
    """The address of a proxy."""

    scheme: str
    host: str
    port: int
    user_info: tuple[str, str] | None = field(repr=False)
    source: str
    """Where the address comes from (the option or a variable), for messages."""


def check_proxy(proxy: str | Literal[True] | None) -> None:
    """Check the URL of a proxy, if one is given.

    Args:
        proxy: the ``proxy`` option.

    Raises:
        InvalidOption: ``proxy`` is not the URL of a proxy.
    """
    if isinstance(proxy, str):
        parse_proxy(proxy)


def parse_proxy(address: str) -> Proxy:
    """Parse the URL of a proxy.

    Raises:
        InvalidOption: the text is not the URL of a proxy; the message contains no password.
    """
    address = as_text(address)
    try:
        return _parse(address, "proxy")
    except ValueError as error:
        shown = redact_query(without_secrets(address))
        raise InvalidOption(
            f"invalid proxy URL {shown!r}: {error}; it must be scheme://user:password@host:port, "
            "where the user and the password are optional and the scheme is http, https, socks5, "
            "socks5h, socks4 or socks4a"
        ) from None


def _parse(address: str, source: str) -> Proxy:
    """Parse the URL of a proxy; the message of a ValueError does not quote it."""
    if problem := find_url_problem(address):
        raise ValueError(problem)
    parts = split_url(address)
    scheme = (parts.scheme or "").lower()
    if scheme not in _PORTS or parts.authority is None:
        raise ValueError("its scheme is missing or not supported")
    if parts.path.strip("/") or parts.query or parts.fragment:
        raise ValueError("it has a path, a query or a fragment")
    authority = parse_authority(parts.authority)
    user_info = None
    if not scheme.startswith("socks"):
        user_info = check_basic_credentials(authority)
    elif authority.user is not None:
        user_info = authority.user, authority.password or ""
        if max(len(text.encode()) for text in user_info) > _MAX_SOCKS_TEXT:
            raise ValueError("SOCKS limits the user name and the password to 255 bytes each")
    port = _PORTS[scheme] if authority.port is None else authority.port
    return Proxy(scheme, authority.host, port, user_info, source)


# The environment.


def find_proxy(url: WebSocketURL) -> Proxy | None:
    """Return the proxy that the environment or the system names for a URL, or None.

    Variables that cannot be read are logged once and ignored.
    """
    # Reading the environment as urllib does takes longer than connecting.
    if os.name == "posix" and sys.platform != "darwin" and "_proxy" not in _variable_names():
        return None
    proxies = getproxies_environment()
    if proxies:
        if is_excluded(url, proxies.get("no", "")):
            return None
    else:
        # The system's proxies; the system has its own exclusions.
        if proxy_bypass(f"{url.host}:{url.port}"):
            return None
        proxies = getproxies()
    for scheme in _VARIABLES[url.secure]:
        address = proxies.get(scheme)
        proxy = _read_proxy(scheme, address) if address else None
        if proxy is not None:
            return proxy
    return None


def _variable_names() -> str:
    return "\n".join(os.environ).lower()


def _variable(scheme: str) -> str:
    """Return the name of a variable as it is written; the lower-case name takes precedence."""
    name = f"{scheme}_proxy"
    return name if name in os.environ else name.upper()


@lru_cache(maxsize=16)
def _read_proxy(scheme: str, address: str) -> Proxy | None:
    source = _variable(scheme)
    if "://" not in address:
        address = f"{'socks5h' if scheme == 'socks' else 'http'}://{address}"
    elif scheme == "socks" and address.startswith("http://"):
        address = f"socks5h{address[4:]}"  # from the settings of macOS
    elif address.lower().startswith("socks://"):
        address = f"socks4{address[5:]}"  # as curl reads it
    try:
        return _parse(address, source)
    except ValueError as error:
        _logger.warning(
            "%s is ignored: it is not the URL of a proxy, such as http://host:port: %s",
            source,
            error,
        )
        return None


class _Exclusion(NamedTuple):
    """An entry in ``no_proxy``: a network or a domain. An empty domain matches every host."""

    network: IPv4Network | IPv6Network | None
    domain: str
    port: int | None


def is_excluded(url: WebSocketURL, no_proxy: str) -> bool:
    """Whether ``no_proxy`` excludes a URL, by the rules of curl and with optional ports.

    Entries are separated by commas or white space. An entry is ``*``, a domain (which includes
    its subdomains), an address, or a network in CIDR notation.
    """
    if not no_proxy:
        return False
    host = server_name(url.host)
    address = _parse_ip(host)
    for network, domain, port in _read_exclusions(no_proxy):
        if port not in (None, url.port):
            continue
        if network is not None:
            if address is not None and address in network:
                return True
        elif not domain or (address is None and f".{host}".endswith(f".{domain}")):
            return True
    return False


@lru_cache(maxsize=16)
def _read_exclusions(no_proxy: str) -> tuple[_Exclusion, ...]:
    exclusions = []
    for entry in filter(None, re.split(r"[,\s]+", no_proxy)):
        try:
            exclusions.append(_parse_exclusion(entry))
        except ValueError:
            text = "an entry of %s is ignored: %.200r is not a host, an address or a network"
            _logger.warning(text, _variable("no"), entry)
    return tuple(exclusions)


def _parse_exclusion(entry: str) -> _Exclusion:
    if entry == "*":
        return _Exclusion(None, "", None)
    if "/" in entry or (entry.count(":") > 1 and "]:" not in entry):
        network = ip_network(entry.replace("[", "").replace("]", ""), strict=False)
        return _Exclusion(network, "", None)
    _, _, host, port = parse_authority(entry.removeprefix("*.").removeprefix("."))
    address = _parse_ip(host)
    if address is not None:
        return _Exclusion(ip_network(address), "", port)
    return _Exclusion(None, host.removesuffix("."), port)


def _parse_ip(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None
