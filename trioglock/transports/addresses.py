"""Addresses: which URLs are WebSocket addresses, and what they say (RFC 6455, section 3)."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from websockets.exceptions import InvalidURI
from websockets.uri import WebSocketURI, parse_uri

from ..errors import InvalidOption, InvalidURL
from ..options import DialOptions

__all__ = ["WebSocketURI", "check_url", "parse_url", "without_user_info"]

_USER_INFO = re.compile(r"^([a-z][a-z0-9+.-]*:)?(//)?[^/?#]*@", re.IGNORECASE)


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
    problem = _problem(url)
    if problem is None:
        try:
            uri = parse_uri(url)
            # The name must have a form that a resolver takes.
            uri.host.encode("ascii" if ":" in uri.host else "idna")
        except InvalidURI as error:
            problem = error.msg
        except (ValueError, UnicodeError):
            problem = "the host or port is malformed"
        else:
            return uri
    raise InvalidURL(f"{without_user_info(url)!r}: {problem}")


def _problem(url: str) -> str | None:
    """What the library would let pass."""
    if any(c <= " " or c == "\x7f" for c in url):
        return "white space or a control character"
    try:
        port = urlsplit(url).port
    except ValueError:
        return "the host or port is malformed"
    return "port 0 cannot be connected to" if port == 0 else None


def without_user_info(url: str) -> str:
    """The URL as it may be shown and logged: without user and password, however malformed."""
    return _USER_INFO.sub(lambda found: (found[1] or "") + (found[2] or ""), url)
