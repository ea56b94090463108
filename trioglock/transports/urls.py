"""Parses WebSocket URLs (RFC 6455, section 3) and rejects invalid ones."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from websockets.exceptions import InvalidURI
from websockets.uri import WebSocketURI, parse_uri

from .._redact import redact_query, redact_url, without_secrets
from ..errors import InvalidOption, InvalidURL
from ..options import DialOptions

__all__ = ["WebSocketURI", "check_host", "check_url", "find_url_problem", "parse_url"]

_has_control = re.compile(r"[\0-\x20\x7f]").search
_has_surrogate = re.compile(r"[\ud800-\udfff]").search

_MALFORMED = "the host or port is malformed"


def check_url(options: DialOptions) -> str:
    """Check the URL of ``options`` and the options that depend on it.

    Args:
        options: the options, which contain the URL.

    Returns:
        The host of the URL.

    Raises:
        InvalidURL: the URL cannot be used.
        InvalidOption: ``ssl_context`` or ``server_hostname`` is given without ``wss://``.
    """
    uri = parse_url(options.url)
    if not uri.secure and (options.ssl_context or options.server_hostname):
        raise InvalidOption("ssl_context and server_hostname need a wss:// URL, not ws://")
    return uri.host


def parse_url(url: str) -> WebSocketURI:
    """Parse a ``ws://`` or ``wss://`` URL.

    Raises:
        InvalidURL: the URL cannot be used; the message says why, without the URL's secrets.
    """
    if not isinstance(url, str):
        raise InvalidURL(f"a URL must be a str, not {type(url).__name__}")
    problem = find_url_problem(url)
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
    # In a malformed URL the end of the password cannot be found.
    shown = redact_query(without_secrets(url)) if problem == _MALFORMED else redact_url(url)
    raise InvalidURL(f"{shown!r}: {problem}")


def find_url_problem(url: str) -> str | None:
    """Describe a problem in a URL that websockets does not reject; None if there is none."""
    if _has_control(url):
        return "white space or a control character"
    if _has_surrogate(url):
        return "text that is not valid Unicode"
    try:
        port = urlsplit(url).port
    except ValueError:
        return _MALFORMED
    return "cannot connect to port 0" if port == 0 else None


def check_host(host: str) -> None:
    """Raise ValueError if a resolver cannot accept the name."""
    host.encode("ascii" if ":" in host else "idna")
