"""Redirects of the opening handshake, and rules for following them (RFC 9110, section 15.4)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

import trio

from .._redact import is_secret, redact_subprotocols, redact_url
from ..errors import HandshakeRefused, InvalidURL, RedirectFailed
from ..options import DialOptions
from .base import Link
from .urls import WebSocketURL, parse_url, resolve_location, split_url

__all__ = ["follow_redirects"]

_REDIRECTS = frozenset({300, 301, 302, 303, 307, 308})


async def follow_redirects(
    options: DialOptions, attempt: Callable[[WebSocketURL, DialOptions], Awaitable[Link]]
) -> Link:
    """Attempt to connect, following at most ``max_redirects`` redirects.

    Raises:
        RedirectFailed: too many redirects, or one that must not be followed.
        ConnectError: raised by ``attempt``.
    """
    url = parse_url(options.url)
    left = options.max_redirects
    while True:
        try:
            return await attempt(url, options)
        except HandshakeRefused as refused:
            is_redirect = refused.status in _REDIRECTS and "Location" in refused.headers
            if not options.max_redirects or not is_redirect:
                raise
            if not left:
                raise RedirectFailed(
                    refused, f"more than {options.max_redirects} redirects"
                ) from None
            left -= 1
            url, options = _redirected(url, options, refused)


def _redirected(
    old: WebSocketURL, options: DialOptions, refused: HandshakeRefused
) -> tuple[WebSocketURL, DialOptions]:
    try:
        url = resolve_location(options.url, refused.headers["Location"])
        new = parse_url(url)
    except InvalidURL as error:
        raise RedirectFailed(refused, f"a redirect to an invalid URL: {error}") from None
    except ValueError:
        raise RedirectFailed(refused, "a redirect to a malformed URL") from None
    shown = redact_url(url)
    if isinstance(options.stream, trio.abc.Stream):
        raise RedirectFailed(refused, f"a redirect to {shown} cannot use the given stream")
    if old.secure and not new.secure:
        raise RedirectFailed(refused, f"a redirect from wss to {shown} would lose encryption")
    if (old.secure, old.host, old.port) == (new.secure, new.host, new.port):
        url = _with_user_info_of(options.url, url)
        return parse_url(url), replace(options, url=url)
    # Another origin must receive neither credentials nor the Host header. Whether the ssl_context
    # contains a client certificate cannot be checked.
    headers = options.additional_headers
    secret = [name for name in headers if is_secret(name)]
    names = options.subprotocols
    shown_names = redact_subprotocols(",".join(names)).split(",")
    return new, replace(
        options,
        url=url,
        additional_headers=headers.without("host", *secret),
        subprotocols=[name for name in names if name in shown_names],
        server_hostname=None,
        ssl_context=options.ssl_context if new.secure else None,
    )


def _with_user_info_of(old: str, new: str) -> str:
    """Return ``new`` with the user and password of ``old``, unless it has its own."""
    user_info, at, _ = (split_url(old).authority or "").rpartition("@")
    parts = split_url(new)
    authority = parts.authority or ""
    if "@" in authority:
        return new
    return parts._replace(authority=f"{user_info}{at}{authority}").join()
