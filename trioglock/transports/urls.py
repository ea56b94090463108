"""URLs and hosts: the only module that parses and normalizes them.

URLs follow RFC 3986 and RFC 3987, with the WebSocket rules in RFC 6455, section 3. Hosts are
normalized once: to lower case, without percent-encoding, with names in IDNA 2008 form (RFC 5891)
and IPv6 addresses in RFC 5952 form.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple
from urllib.parse import quote, unquote, urljoin

import idna

from .._redact import redact_query, redact_url, without_secrets
from .._text import as_text
from ..errors import InvalidOption, InvalidURL
from ..options import DialOptions

__all__ = [
    "Authority",
    "SplitURL",
    "WebSocketURL",
    "check_basic_credentials",
    "check_url",
    "find_url_problem",
    "is_host_header",
    "normalize_host",
    "normalize_origin",
    "parse_authority",
    "parse_host_header",
    "parse_url",
    "resolve_location",
    "server_name",
    "split_url",
]

_has_control = re.compile(r"[\0-\x20\x7f]").search
_has_line_control = re.compile(r"[\0-\x1f\x7f]").search
_has_surrogate = re.compile(r"[\ud800-\udfff]").search

# RFC 3986, appendix B. It matches any text.
_match_url = re.compile(
    r"(?:([^:/?#]+):)?(?://([^/?#]*))?([^?#]*)(?:\?([^#]*))?(?:#(.*))?", re.DOTALL
).fullmatch
_match_authority = re.compile(
    r"(?:(.*)@)?(?:\[([^][@]*)\]|([^][@:]*))(?::([0-9]*))?", re.DOTALL
).fullmatch
_is_name = re.compile(r"[a-z0-9._~!$&'()*+,;=-]+").fullmatch  # RFC 3986, section 3.2.2
_is_zone = re.compile(r"[\w.~:-]+", re.ASCII).fullmatch
_is_number = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)\.?").fullmatch
_match_host_header = re.compile(
    r"(?:[\w.~!$&'()*+,;=%-]+|\[([0-9A-Fa-f:.]+)\])(?::([0-9]{0,5}))?", re.ASCII
).fullmatch

_MALFORMED = "the host or port is malformed"
_ASCII = "".join(map(chr, range(128)))
_DEFAULT_PORTS = {"ws": 80, "wss": 443, "http": 80, "https": 443}
_WEBSOCKET_SCHEMES = {"http": "ws", "https": "wss"}


@dataclass(frozen=True, slots=True)
class WebSocketURL:
    """A parsed ``ws://`` or ``wss://`` URL."""

    secure: bool
    host: str
    """The host: a name (possibly with a final dot) or an address (possibly with a zone)."""
    port: int
    target: str
    """The path and the query as they are sent."""
    user_info: tuple[str, str] | None = field(default=None, repr=False)

    @property
    def host_header(self) -> str:
        """The ``Host`` header, without the port if that is the scheme's default."""
        is_default = self.port == (443 if self.secure else 80)
        return _format_host(self.host) if is_default else self.host_and_port

    @property
    def host_and_port(self) -> str:
        """The host and the port, even if the port is the default."""
        return f"{_format_host(self.host)}:{self.port}"


class SplitURL(NamedTuple):
    """The components of a URL as written; None if absent."""

    scheme: str | None
    authority: str | None
    path: str
    query: str | None
    fragment: str | None

    def join(self) -> str:
        """Return the URL (RFC 3986, section 5.3)."""
        scheme = "" if self.scheme is None else f"{self.scheme}:"
        authority = "" if self.authority is None else f"//{self.authority}"
        query = "" if self.query is None else f"?{self.query}"
        fragment = "" if self.fragment is None else f"#{self.fragment}"
        return f"{scheme}{authority}{self.path}{query}{fragment}"


class Authority(NamedTuple):
    """The authority of a URL, decoded and normalized; None if absent."""

    user: str | None
    password: str | None
    host: str
    port: int | None


# URLs.


def check_url(options: DialOptions) -> str:
    """Check the URL of ``options`` and the options that depend on it.

    Args:
        options: the options, which contain the URL.

    Returns:
        The host of the URL.

    Raises:
        InvalidURL: the URL cannot be used.
        InvalidOption: ``ssl_context`` or ``server_hostname`` is given without ``wss://``, or
            ``server_hostname`` is not a valid host name.
    """
    url = parse_url(options.url)
    if not url.secure and (options.ssl_context or options.server_hostname):
        raise InvalidOption("ssl_context and server_hostname need a wss:// URL, not ws://")
    if options.server_hostname is not None:
        try:
            server_name(options.server_hostname)
        except ValueError as error:
            raise InvalidOption(
                f"server_hostname {options.server_hostname!r} is not a valid host name: {error}"
            ) from None
    return url.host


def parse_url(url: str) -> WebSocketURL:
    """Parse a ``ws://`` or ``wss://`` URL.

    Raises:
        InvalidURL: the URL cannot be used; the message states why, without the URL's secrets.
    """
    if not isinstance(url, str):
        raise InvalidURL(f"a URL must be a str, not {type(url).__name__}")
    url = as_text(url)
    try:
        return _parse_url(url)
    except ValueError as error:
        problem = str(error)
    # In a malformed URL the end of the password cannot be found.
    shown = redact_query(without_secrets(url)) if problem == _MALFORMED else redact_url(url)
    raise InvalidURL(f"{shown!r}: {problem}")


def _parse_url(url: str) -> WebSocketURL:
    if problem := find_url_problem(url):
        raise ValueError(problem)
    parts = split_url(url)
    scheme = (parts.scheme or "").lower()
    if scheme not in ("ws", "wss"):
        raise ValueError(
            "scheme isn't ws or wss: write ws:// in front of the host, or wss:// for TLS"
        )
    if parts.fragment:
        raise ValueError("a fragment is never sent to a server; write %23 for #")
    authority = parse_authority(parts.authority or "")
    target = parts.path or "/"
    if parts.query:
        target += f"?{parts.query}"
    return WebSocketURL(
        secure=scheme == "wss",
        host=authority.host,
        port=_DEFAULT_PORTS[scheme] if authority.port is None else authority.port,
        target=target if target.isascii() else quote(target, safe=_ASCII),
        user_info=check_basic_credentials(authority),
    )


def find_url_problem(url: str) -> str | None:
    """Describe characters that no URL may contain; None if there are none."""
    if _has_control(url):
        return "white space or a control character"
    return "text that is not valid Unicode" if _has_surrogate(url) else None


def split_url(url: str) -> SplitURL:
    """Split any text into the components of a URL. This never fails."""
    match = _match_url(url)
    assert match is not None, "the pattern matches any text"
    return SplitURL(*match.groups())


def resolve_location(url: str, location: str) -> str:
    """Resolve the ``Location`` header of a response from ``url`` into a WebSocket URL.

    Raises:
        ValueError: the header is malformed.
    """
    raw = location.encode("latin-1")
    try:
        location = raw.decode()
    except UnicodeDecodeError:
        location = quote(raw, safe=_ASCII)
    parts = split_url(urljoin(url, location))
    scheme = (parts.scheme or "").lower()
    return parts._replace(scheme=_WEBSOCKET_SCHEMES.get(scheme, scheme), fragment=None).join()


# Authorities: user information, host and port.


def parse_authority(text: str) -> Authority:
    """Parse ``[user[:password]@]host[:port]``.

    Raises:
        ValueError: the authority is invalid; the message does not quote it.
    """
    match = _match_authority(text)
    if match is None:
        raise ValueError(_MALFORMED)
    user_info, address, name, digits = match.groups()
    port = int(digits[-6:]) if digits else None
    if (digits or "").lstrip("0")[5:] or (port or 0) > 65535:
        raise ValueError(_MALFORMED)
    if port == 0:
        raise ValueError("cannot connect to port 0")
    if address is not None:
        host = _normalize_ip(*_split_zone(address))
    elif name:
        host = normalize_host(_unquote(name))
    else:
        raise ValueError("the host is missing")
    if user_info is None:
        return Authority(None, None, host, port)
    user, colon, password = user_info.partition(":")
    user, password = _unquote(user), _unquote(password)
    if _has_line_control(user + password):
        raise ValueError("a control character in the user name or the password")
    return Authority(user, password if colon else None, host, port)


def check_basic_credentials(authority: Authority) -> tuple[str, str] | None:
    """Return the user and password for basic authentication (RFC 7617), or None if there are none.

    Raises:
        ValueError: the user and password cannot be sent.
    """
    user, password = authority.user, authority.password
    if user is None:
        return None
    if password is None:
        raise ValueError("a user name without a password: write user:password@host")
    if ":" in user:
        raise ValueError("basic authentication allows no colon (%3A) in the user name (RFC 7617)")
    return user, password


def _unquote(text: str) -> str:
    return unquote(text, errors="strict") if "%" in text else text


# Hosts.


def normalize_host(host: str) -> str:
    """Normalize a name or an address without brackets. A final dot and a zone are kept.

    Raises:
        ValueError: no resolver can accept it.
    """
    host = as_text(host)
    if ":" in host:
        return _normalize_ip(*host.partition("%")[::2])
    name = (host if host.isascii() else _encode_name(host)).lower()
    labels = name.removesuffix(".").split(".")
    if not (_is_name(name) and all(labels) and max(map(len, labels)) < 64 and len(name) < 255):
        raise ValueError(_MALFORMED)
    return name


def _encode_name(name: str) -> str:
    # Only labels that are not ASCII, because others may contain underscores, which IDNA forbids.
    try:
        mapped = idna.uts46_remap(name, std3_rules=False, transitional=False)
        labels = [
            label if label.isascii() else idna.alabel(label).decode() for label in mapped.split(".")
        ]
    except idna.IDNAError:
        raise ValueError(
            "the host is not a valid internationalized name (IDNA 2008); write its xn-- form"
        ) from None
    return ".".join(labels)


def _split_zone(address: str) -> tuple[str, str]:
    """Split an address from its zone, which follows "%25" (RFC 6874, section 2) or "%"."""
    address, _, zone = address.partition("%")
    if zone.startswith("25") and len(zone) > 2:
        zone = _unquote(zone[2:])
    return address, zone


def _normalize_ip(address: str, zone: str) -> str:
    try:
        normal = str(IPv6Address(address))
    except ValueError:
        raise ValueError(_MALFORMED) from None
    if not zone:
        return normal
    if not _is_zone(zone):
        raise ValueError("the zone of the address is malformed")
    return f"{normal}%{zone}"


def server_name(host: str) -> str:
    """Return the name that a certificate must match, which TLS also sends to the server.

    It has no final dot (RFC 6066, section 3) and no zone (RFC 6874, section 4).

    Raises:
        ValueError: ``host`` is not a host.
    """
    return normalize_host(host).partition("%")[0].removesuffix(".")


def _format_host(host: str) -> str:
    """Return a host for a header; a zone has no meaning for the peer (RFC 6874, section 4)."""
    return f"[{host.partition('%')[0]}]" if ":" in host else host


# Headers of requests.


def is_host_header(text: str) -> bool:
    """Whether a ``Host`` header is valid, so that a URL can be made from it."""
    match = _match_host_header(text)
    if match is None or int(match[2] or 0) > 65535:
        return False
    try:
        return match[1] is None or bool(IPv6Address(match[1]))
    except ValueError:
        return False


def parse_host_header(text: str) -> Authority | None:
    """Parse a ``Host`` header; None if it is invalid."""
    try:
        return parse_authority(text) if is_host_header(text) else None
    except ValueError:
        return None


def normalize_origin(origin: str) -> str:
    """Normalize an origin to the form in which browsers send it (RFC 6454, section 6.2).

    Raises:
        ValueError: no browser sends this origin; the message states why.
    """
    if origin in ("null", "file://"):
        return origin
    scheme, authority, path, query, fragment = split_url(origin)
    if find_url_problem(origin) or not (scheme and authority) or path or query or fragment:
        raise ValueError(
            "it must have a scheme, a host and nothing after the port: write it as 'https://example.org'"
        )
    scheme = scheme.lower()
    if "*" in authority:
        raise ValueError("wildcards are not supported; use a compiled regular expression")
    if scheme in ("ws", "wss"):
        raise ValueError("an origin identifies a web page and begins with http:// or https://")
    if scheme not in ("http", "https"):
        return f"{scheme}://{authority}"  # of an application or a browser extension
    user, _, host, port = parse_authority(authority)
    if user is not None:
        raise ValueError("an origin has no user")
    if _is_number(host):
        IPv4Address(host)
    shown = f"{scheme}://{_format_host(host)}"
    return shown if port in (None, _DEFAULT_PORTS[scheme]) else f"{shown}:{port}"
