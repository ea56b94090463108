"""Where a Phoenix socket is: its URL, its params, its token."""

from __future__ import annotations

import base64
import inspect
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any, TypeAlias, TypeVar
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

from ...errors import InvalidOption, InvalidURL
from .message import VERSION

__all__ = ["Params", "Source", "ask", "socket_url", "token_subprotocols"]

T = TypeVar("T")

Source: TypeAlias = T | Callable[[], T | Awaitable[T]]
"""A value, or a function, plain or async, that is asked for it whenever it is needed."""

Params: TypeAlias = Mapping[str, Any]
"""What goes with an address or a join; values may be nested as JSON's are."""

# "Phoenix.Socket.Transport", and the constant of this name in the JavaScript client.
TOKEN_PREFIX = "base64url.bearer.phx."  # noqa: S105 - the name of a subprotocol


async def ask(source: Source[T]) -> T:
    """The value of a source."""
    if not callable(source):
        return source
    answer = source()
    return await answer if inspect.isawaitable(answer) else answer


def socket_url(url: str, params: Params | None) -> str:
    """The address that is dialled: ``<socket path>/websocket?vsn=2.0.0&<params>``.

    Args:
        url: of the socket, such as ``wss://example.org/socket``, with or without ``/websocket``.
        params: what the server's ``connect/3`` gets.

    Raises:
        InvalidURL: it is no URL.
        InvalidOption: it asks for another version of the protocol; a param cannot be sent.
    """
    if not isinstance(url, str):
        kind = type(url).__name__
        raise InvalidOption(f"url is a str, or a function that returns one, not {kind}")
    try:
        parts = urlsplit(url)
    except ValueError:
        # In our own words: the library's quote the address, and so the password.
        raise InvalidURL("not a URL: the host or port is malformed") from None
    path = parts.path.rstrip("/")
    if not path.endswith("/websocket"):
        path += "/websocket"
    given = [*parse_qsl(parts.query, keep_blank_values=True), *_flat(params)]
    if any(name == "vsn" and value != VERSION for name, value in given):
        raise InvalidOption(f"vsn is {VERSION}; trioglock speaks no other version")
    query = [("vsn", VERSION), *(pair for pair in given if pair[0] != "vsn")]
    try:
        encoded = urlencode(query, quote_via=quote)
    except UnicodeEncodeError:
        raise InvalidOption("a param of the URL is not valid Unicode") from None
    return urlunsplit(parts._replace(path=path, query=encoded))


def _flat(params: Params | None) -> Iterator[tuple[str, str]]:
    if params is None:
        return
    if not isinstance(params, Mapping):
        kind = type(params).__name__
        raise InvalidOption(f"params is a mapping, or a function that returns one, not {kind}")
    for name, value in params.items():
        if not isinstance(name, str):
            raise InvalidOption(f"the name of a param is a str, not {name!r}")
        yield from _pairs(name, value)


def _pairs(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """Nested values as ``user[name]=al&ids[]=1``, which Plug puts together again."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _pairs(f"{name}[{key}]", inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _pairs(f"{name}[]", inner)
    elif value is None or isinstance(value, bool):
        yield name, {None: "", True: "true", False: "false"}[value]
    elif isinstance(value, str | int | float):
        yield name, str(value)
    else:
        kind = type(value).__name__
        raise InvalidOption(f"the param {name!r} is text, a number or a nesting, not {kind}")


def token_subprotocols(token: str) -> tuple[str, str]:
    """The subprotocols that carry ``auth_token`` (Phoenix 1.8), so that no log of URLs has it.

    Raises:
        InvalidOption: it is not text, or nothing that can stand in the header.
    """
    if not isinstance(token, str) or not token:
        raise InvalidOption("auth_token is a str, or a function that returns one")
    try:
        encoded = base64.b64encode(token.encode()).decode().rstrip("=")
    except UnicodeEncodeError:
        raise InvalidOption("auth_token is not valid Unicode") from None
    if "/" in encoded:
        # Not a token of RFC 9110, section 5.6.2; browsers refuse it as well.
        raise InvalidOption("this auth_token cannot be sent: its Base64 form contains a slash")
    return ("phoenix", TOKEN_PREFIX + encoded)
