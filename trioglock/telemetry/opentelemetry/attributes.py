"""Attributes: what events say, by the names of the semantic conventions.

https://opentelemetry.io/docs/specs/semconv/: general attributes, and those of HTTP for the opening
handshake.
"""

from __future__ import annotations

from typing import TypeAlias
from urllib.parse import urlsplit

from opentelemetry.semconv.attributes import (
    client_attributes,
    error_attributes,
    exception_attributes,
    http_attributes,
    network_attributes,
    server_attributes,
    url_attributes,
)

from ..._redact import redact_line, text_of
from ...errors import HandshakeRefused
from ..events import ConnectionId

__all__ = [
    "Attributes",
    "error_type",
    "of_address",
    "of_exception",
    "of_handshake",
    "of_metric",
    "of_peer",
]

Attributes: TypeAlias = dict[str, str | int]

_PORTS = {"ws": 80, "wss": 443}


def of_metric(connection: ConnectionId) -> Attributes:
    """Few and stable, so that a time series of each is affordable.

    What clients call a server is theirs to choose: a server is not told apart by that.
    """
    found = of_address(connection)
    if connection.side == "server":
        found.pop(server_attributes.SERVER_ADDRESS, None)
        found.pop(server_attributes.SERVER_PORT, None)
    return found


def of_address(connection: ConnectionId) -> Attributes:
    """The server's name and port, and the scheme, as far as there is a URL that tells them."""
    found: Attributes = {}
    try:
        parts = urlsplit(connection.url)
        hostname, port = parts.hostname, parts.port
    except ValueError:
        return found  # of a Host header that a client has made up
    if hostname:
        found[server_attributes.SERVER_ADDRESS] = hostname
        found[server_attributes.SERVER_PORT] = port or _PORTS.get(parts.scheme, 0)
    if parts.scheme:
        found[url_attributes.URL_SCHEME] = parts.scheme
    return found


def of_handshake(connection: ConnectionId) -> Attributes:
    """Of the span of an opening handshake (RFC 6455, section 4.1)."""
    found = of_address(connection)
    found[http_attributes.HTTP_REQUEST_METHOD] = "GET"
    if connection.url:
        found[url_attributes.URL_FULL] = connection.url
    return found


def of_peer(connection: ConnectionId, peer: str) -> Attributes:
    """Of the span of a link: the protocol, and who is at the other end."""
    found = of_address(connection)
    found[network_attributes.NETWORK_PROTOCOL_NAME] = "websocket"
    host, _, port = peer.rpartition(":")
    if host and port.isdecimal():
        host = host.strip("[]")
        found[network_attributes.NETWORK_PEER_ADDRESS] = host
        found[network_attributes.NETWORK_PEER_PORT] = int(port)
        if connection.side == "server":
            found[client_attributes.CLIENT_ADDRESS] = host
            found[client_attributes.CLIENT_PORT] = int(port)
    return found


def error_type(error: BaseException) -> str:
    """The value of ``error.type``: the status of a refusal, or the class."""
    if isinstance(error, HandshakeRefused):
        return str(error.status)
    return type(error).__qualname__


def of_exception(error: BaseException) -> Attributes:
    """Of the event ``exception``; without a stack trace, whose lines may show secrets."""
    return {
        exception_attributes.EXCEPTION_TYPE: type(error).__qualname__,
        exception_attributes.EXCEPTION_MESSAGE: redact_line(text_of(error)),
        error_attributes.ERROR_TYPE: error_type(error),
    }
