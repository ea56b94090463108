"""Redirects of the opening handshake: where they may be followed (RFC 9110, section 15.4)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from urllib.parse import urljoin, urlsplit, urlunsplit

import trio

from ..errors import HandshakeRefused, InvalidURL, RedirectFailed
from ..options import DialOptions
from .addresses import WebSocketURI, parse_url, without_user_info
from .port import Link

__all__ = ["follow_redirects"]

_REDIRECTS = frozenset({300, 301, 302, 303, 307, 308})
_CREDENTIALS = ("authorization", "cookie", "proxy-authorization")


async def follow_redirects(
    options: DialOptions, dial: Callable[[WebSocketURI, DialOptions], Awaitable[Link]]
) -> Link:
    """Dial, and dial again where the server sends us, at most ``max_redirects`` times.

    Raises:
        RedirectFailed: too often, or to where we may not go.
        ConnectError: whatever ``dial`` raises.
    """
    uri = parse_url(options.url)
    left = options.max_redirects
    while True:
        try:
            return await dial(uri, options)
        except HandshakeRefused as refused:
            if not options.max_redirects or not _is_redirect(refused):
                raise
            if not left:
                raise RedirectFailed(
                    refused, f"more than {options.max_redirects} redirects"
                ) from None
            left -= 1
            uri, options = _redirected(uri, options, refused)


def _is_redirect(refused: HandshakeRefused) -> bool:
    return refused.status in _REDIRECTS and "Location" in refused.headers


def _redirected(
    old: WebSocketURI, options: DialOptions, refused: HandshakeRefused
) -> tuple[WebSocketURI, DialOptions]:
    url = urljoin(options.url, refused.headers["Location"])
    parts = urlsplit(url)
    scheme = {"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme)
    url = urlunsplit(parts._replace(scheme=scheme, fragment=""))
    shown = without_user_info(url)
    if isinstance(options.stream, trio.abc.Stream):
        raise RedirectFailed(refused, f"a redirect to {shown} cannot use the given stream")
    try:
        new = parse_url(url)
    except InvalidURL as error:
        raise RedirectFailed(refused, f"a redirect to an invalid URL: {error}") from None
    if old.secure and not new.secure:
        raise RedirectFailed(refused, f"a redirect from wss to {shown} would lose encryption")
    options = replace(options, url=url)
    if (old.secure, old.host, old.port) != (new.secure, new.host, new.port):
        # Another origin must learn neither who we are nor whom we meant.
        options = replace(
            options,
            additional_headers=options.additional_headers.without("host", *_CREDENTIALS),
            server_hostname=None,
            ssl_context=options.ssl_context if new.secure else None,
        )
    return new, options
