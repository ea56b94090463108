"""Addresses: which URLs are WebSocket addresses, and what they say (RFC 6455, section 3)."""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit

from websockets.exceptions import InvalidURI
from websockets.uri import WebSocketURI, parse_uri

from ..errors import InvalidOption, InvalidURL
from ..options import DialOptions

__all__ = ["WebSocketURI", "check_url", "parse_url", "without_user_info"]


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
    try:
        uri = parse_uri(url)
        # Touched here, so that a port out of range is found here.
        if not 0 < uri.port < 65536:
            raise ValueError("port out of range")
        if any(c in uri.resource_name for c in " \r\n\t\0"):
            raise ValueError("white space or a control character in the path or query")
    except InvalidURI as error:
        raise InvalidURL(f"{without_user_info(url)!r}: {error.msg}") from None
    except (ValueError, UnicodeError) as error:
        raise InvalidURL(f"{without_user_info(url)!r}: {error}") from None
    return uri


def without_user_info(url: str) -> str:
    """The URL as it may be shown and logged: without user and password."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return url
    if "@" not in parts.netloc:
        return url
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
