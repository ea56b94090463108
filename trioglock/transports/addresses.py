"""Addresses: which URLs are WebSocket addresses, and what they say (RFC 6455, section 3)."""

from __future__ import annotations

from urllib.parse import urlsplit

from websockets.exceptions import InvalidURI
from websockets.uri import WebSocketURI, parse_uri

from .._redact import redact_query, redact_url, without_secrets
from ..errors import InvalidOption, InvalidURL
from ..options import DialOptions

__all__ = [
    "WebSocketURI",
    "check_host",
    "check_url",
    "parse_url",
    "problem_of",
]


def check_url(options: DialOptions) -> str:
    """The host that ``options`` lead to.

    Raises:
        InvalidURL: the URL is none.
        InvalidOption: ``ssl_context`` or ``server_hostname`` without ``wss://``.
    """
    uri = parse_url(options.url)
    if not uri.secure and (options.ssl_context or options.server_hostname):
        raise InvalidOption("ssl_context and server_hostname need a wss:// URL, not ws://")
    return uri.host


def parse_url(url: str) -> WebSocketURI:
    """The parts of a ``ws://`` or ``wss://`` URL.

    Raises:
        InvalidURL: it is none; the text says why, without the URL's secrets.
    """
    if not isinstance(url, str):
        raise InvalidURL(f"a URL is a str, not {type(url).__name__}")
    problem = problem_of(url)
    if problem is None:
        try:
            uri = parse_uri(url)
            check_host(uri.host)
        except InvalidURI as error:
            problem = error.msg
            if problem.startswith("scheme"):
                problem += ": write ws:// in front of the host, or wss:// for TLS"
        except ValueError:
            problem = _MALFORMED
        else:
            return uri
    # Of a malformed address nobody knows where the password ends.
    shown = redact_query(without_secrets(url)) if problem == _MALFORMED else redact_url(url)
    raise InvalidURL(f"{shown!r}: {problem}")


_MALFORMED = "the host or port is malformed"


def problem_of(url: str) -> str | None:
    """What is wrong with any kind of URL and the library would let pass; None for nothing."""
    if any(c <= " " or c == "\x7f" for c in url):
        return "white space or a control character"
    if any("\ud800" <= c <= "\udfff" for c in url):
        return "text that is not valid Unicode"
    try:
        port = urlsplit(url).port
    except ValueError:
        return _MALFORMED
    return "port 0 cannot be connected to" if port == 0 else None


def check_host(host: str) -> None:
    """Raise ValueError unless a resolver can take the name."""
    host.encode("ascii" if ":" in host else "idna")
