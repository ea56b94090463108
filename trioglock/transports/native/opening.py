"""The client's opening handshake (RFC 6455, section 4.1), without I/O.

Responses like those of common servers are checked here. All others are checked by the Sans-I/O
layer of websockets, which takes several times as long, so every rejection comes from the library.
"""

from __future__ import annotations

import secrets
from base64 import b64encode
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from websockets.client import ClientProtocol
from websockets.datastructures import Headers as LibraryHeaders
from websockets.exceptions import InvalidHandshake as LibraryInvalidHandshake
from websockets.extensions import Extension
from websockets.headers import (
    build_authorization_basic,
    build_extension,
    build_subprotocol,
)
from websockets.http11 import Response
from websockets.typing import Subprotocol
from websockets.uri import WebSocketURI
from websockets.utils import accept_key

from ...errors import InvalidHandshake
from ...headers import Headers, checked_headers
from ...options import Deflate, DialOptions, deflate_settings
from ..negotiation import SILENT, USUAL_CONNECTIONS, parse_extensions
from ..urls import WebSocketURL
from .deflate import ClientDeflateFactory

__all__ = ["OpeningRequest", "check_response", "make_request"]


@lru_cache(maxsize=32)
def _offer(settings: Deflate) -> tuple[ClientDeflateFactory, str]:
    """Return the extension to offer and its header."""
    factory = ClientDeflateFactory(settings)
    return factory, build_extension([(factory.name, factory.get_request_params())])


class OpeningRequest(NamedTuple):
    """The request of an opening handshake."""

    key: str
    """The value of ``Sec-WebSocket-Key``."""
    headers: Headers
    data: bytes
    """The request as bytes."""


def make_request(url: WebSocketURL, options: DialOptions) -> OpeningRequest:
    """Create the request; explicit headers replace those of the handshake and of other options."""
    key = b64encode(secrets.token_bytes(16)).decode()
    texts = ["Host", url.host_header]
    if url.user_info is not None:
        texts += "Authorization", build_authorization_basic(*url.user_info)
    if options.origin is not None:
        texts += "Origin", options.origin
    texts += "Upgrade", "websocket", "Connection", "Upgrade"
    texts += "Sec-WebSocket-Key", key, "Sec-WebSocket-Version", "13"
    if (settings := deflate_settings(options.compression)) is not None:
        texts += "Sec-WebSocket-Extensions", _offer(settings)[1]
    if options.subprotocols:
        names = [Subprotocol(name) for name in options.subprotocols]
        texts += "Sec-WebSocket-Protocol", build_subprotocol(names)
    if options.user_agent_header is not None:
        texts += "User-Agent", options.user_agent_header
    headers = checked_headers(texts)
    if explicit := options.additional_headers:
        headers = checked_headers(
            text
            for pair in (*headers.without(*explicit).pairs(), *explicit.pairs())
            for text in pair
        )
    lines = [f"{name}: {value}\r\n" for name, value in headers.pairs()]
    request_line = f"GET {url.target} HTTP/1.1\r\n".encode("ascii")
    return OpeningRequest(key, headers, request_line + f"{''.join(lines)}\r\n".encode("latin-1"))


class OpeningResult(NamedTuple):
    """The subprotocol and the extensions that the server has agreed to."""

    subprotocol: str | None
    extensions: Sequence[Extension]


def check_response(
    request: OpeningRequest, response: Headers, url: WebSocketURL, options: DialOptions
) -> OpeningResult:
    """Check the headers of a 101 response.

    Raises:
        InvalidHandshake: the server violates RFC 6455 or agreed to an extension or subprotocol that
            was not offered.
    """
    return _check_usual(request.key, response, options) or _check_any(
        request.key, response, url, options
    )


def _check_usual(key: str, response: Headers, options: DialOptions) -> OpeningResult | None:
    pairs = response.pairs()
    fields = {name.lower(): value for name, value in pairs}
    get = fields.get
    subprotocol = get("sec-websocket-protocol")
    if not (
        len(fields) == len(pairs)  # no header is repeated
        and get("upgrade", "").lower() == "websocket"
        and get("connection", "").lower() in USUAL_CONNECTIONS
        and get("sec-websocket-accept") == accept_key(key)
        and (subprotocol is None or subprotocol in options.subprotocols)
    ):
        return None
    agreed = get("sec-websocket-extensions")
    if agreed is None:
        return OpeningResult(subprotocol, ())
    settings = deflate_settings(options.compression)
    if settings is None:
        return None
    factory, _ = _offer(settings)
    try:
        [(name, parameters)] = parse_extensions(agreed)
        if name != factory.name:
            return None
        extension = factory.process_response_params(parameters, ())
    except (LibraryInvalidHandshake, ValueError):
        return None
    return OpeningResult(subprotocol, (extension,))


def _check_any(
    key: str, response: Headers, url: WebSocketURL, options: DialOptions
) -> OpeningResult:
    settings = deflate_settings(options.compression)
    protocol = ClientProtocol(
        WebSocketURI(url.secure, url.host, url.port, url.target, ""),
        extensions=None if settings is None else [_offer(settings)[0]],
        subprotocols=[Subprotocol(name) for name in options.subprotocols] or None,
        max_size=None,
        logger=SILENT,
    )
    protocol.key = key
    try:
        protocol.process_response(
            Response(101, "Switching Protocols", LibraryHeaders(response.pairs()))
        )
    except LibraryInvalidHandshake as error:
        cause = error.__cause__
        text = str(error) if cause is None else f"{error}: {cause}"
        raise InvalidHandshake(text) from error
    return OpeningResult(protocol.subprotocol, protocol.extensions)
