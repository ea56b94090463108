"""The client's opening handshake (RFC 6455, section 4.1), by websockets' Sans-I/O layer."""

from __future__ import annotations

import logging
import ssl

import trio
from websockets.client import ClientProtocol
from websockets.exceptions import InvalidHandshake as LibraryInvalidHandshake
from websockets.exceptions import InvalidStatus
from websockets.extensions.permessage_deflate import enable_client_permessage_deflate
from websockets.http11 import Request
from websockets.typing import Origin, Subprotocol

from ...errors import ConnectError, ConnectFailed, HandshakeRefused, InvalidHandshake, TLSFailed
from ...headers import Headers
from ...options import DialOptions
from ..addresses import WebSocketURI, without_user_info
from ..codec import Decoder, Deflate, Encoder
from ..port import Handshake
from ..tcp import describe_peer
from .link import NativeLink

__all__ = ["upgrade"]

# A refusal without a length ends only when the server hangs up; its status is not kept waiting.
_BODY_TIMEOUT = 2.0

# At level DEBUG the library logs whole headers, credentials among them.
_SILENT = logging.Logger("trioglock.handshake")  # noqa: LOG001 - in no hierarchy, on purpose
_SILENT.disabled = True

_END_OF_HEADERS = b"\r\n\r\n"


async def upgrade(stream: trio.abc.Stream, uri: WebSocketURI, options: DialOptions) -> NativeLink:
    """Turn an open stream into a WebSocket.

    Raises:
        HandshakeRefused: the server answered with another status than 101.
        InvalidHandshake: its answer is wrong.
        ConnectFailed: it hung up instead.
    """
    protocol = ClientProtocol(
        uri,
        origin=None if options.origin is None else Origin(options.origin),
        extensions=enable_client_permessage_deflate(None) if options.compression else None,
        subprotocols=[Subprotocol(name) for name in options.subprotocols] or None,
        max_size=None,
        logger=_SILENT,
    )
    request = _request(protocol, options)
    protocol.send_request(request)
    try:
        await stream.send_all(b"".join(protocol.data_to_send()))
        rest = await _read_response(stream, protocol)
    except (trio.BrokenResourceError, trio.ClosedResourceError, OSError) as error:
        raise _hung_up(error) from (error.__cause__ or error)
    if protocol.handshake_exc is not None:
        raise _translated(protocol.handshake_exc) from protocol.handshake_exc
    response = protocol.events_received()[0]
    deflate = Deflate(protocol.extensions[0]) if protocol.extensions else None
    handshake = Handshake(
        url=without_user_info(options.url),
        subprotocol=protocol.subprotocol,
        request_headers=Headers(request.headers.raw_items()),
        response_headers=Headers(response.headers.raw_items()),  # type: ignore[union-attr]
        peer=describe_peer(stream),
        extensions=tuple(extension.name for extension in protocol.extensions),
    )
    decoder = Decoder(masked=False, max_size=options.max_size, deflate=deflate)
    encoder = Encoder(mask=True, deflate=deflate)
    return NativeLink(stream, handshake, decoder, encoder, rest)


def _request(protocol: ClientProtocol, options: DialOptions) -> Request:
    request = protocol.connect()
    if options.user_agent_header is not None:
        request.headers["User-Agent"] = options.user_agent_header
    for name in options.additional_headers:
        if name in request.headers:
            del request.headers[name]
    for name, value in options.additional_headers.pairs():
        request.headers[name] = value
    return request


async def _read_response(stream: trio.abc.Stream, protocol: ClientProtocol) -> bytes:
    """Feed the response to ``protocol``; what came behind its headers, if that was a 101."""
    seen = b""
    while protocol.handshake_exc is None:
        data = await stream.receive_some()
        if not data:
            protocol.receive_eof()
            break
        # The library would parse frames right behind the headers: it only gets the headers.
        window = seen + data
        end = window.find(_END_OF_HEADERS)
        if end >= 0:
            split = end + len(_END_OF_HEADERS) - len(seen)
            protocol.receive_data(bytes(data[:split]))
            rest = bytes(data[split:])
            if _has_answered(protocol):
                return rest
            await _read_body(stream, protocol, rest)
            break
        protocol.receive_data(bytes(data))
        seen = window[-3:]
    return b""


async def _read_body(stream: trio.abc.Stream, protocol: ClientProtocol, data: bytes) -> None:
    with trio.move_on_after(_BODY_TIMEOUT):
        if data:
            protocol.receive_data(data)
        while not _has_answered(protocol):
            data = bytes(await stream.receive_some())
            if not data:
                break
            protocol.receive_data(data)
    if not _has_answered(protocol):
        protocol.receive_eof()


def _has_answered(protocol: ClientProtocol) -> bool:
    return protocol.handshake_exc is not None or bool(protocol.events)


def _translated(error: Exception) -> ConnectError:
    if isinstance(error, InvalidStatus):
        response = error.response
        return HandshakeRefused(
            response.status_code,
            Headers(response.headers.raw_items()),
            bytes(response.body),
            response.reason_phrase,
        )
    cause = error.__cause__
    if isinstance(cause, EOFError):
        return ConnectFailed("the server hung up instead of answering the handshake")
    text = str(error) if cause is None else f"{error}: {cause}"
    if isinstance(error, LibraryInvalidHandshake):
        return InvalidHandshake(text)
    return InvalidHandshake(f"the answer cannot be read: {text}")


def _hung_up(error: Exception) -> ConnectError:
    # With TLS 1.3 a rejected client certificate shows only now.
    cause = error.__cause__
    if isinstance(cause, ssl.SSLError):
        return TLSFailed(f"TLS failed during the handshake: {cause}")
    return ConnectFailed(f"the connection broke during the handshake: {cause or error}")
