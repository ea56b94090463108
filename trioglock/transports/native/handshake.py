"""The client's opening handshake (RFC 6455, section 4.1), by websockets' Sans-I/O layer."""

from __future__ import annotations

import logging

import trio
from websockets.client import ClientProtocol
from websockets.extensions.permessage_deflate import enable_client_permessage_deflate
from websockets.http11 import Request
from websockets.typing import Origin, Subprotocol

from ..._redact import without_user_info
from ...errors import InvalidHandshake
from ...headers import Headers
from ...options import DialOptions
from ..addresses import WebSocketURI
from ..base import Handshake
from ..http_responses import read_answer, unbroken
from ..tcp import describe_peer
from .decoder import Decoder
from .deflate import Deflate
from .encoder import Encoder
from .link import NativeLink

__all__ = ["upgrade"]

# At level DEBUG the library logs whole headers, credentials among them.
_SILENT = logging.Logger("trioglock.handshake")  # noqa: LOG001 - in no hierarchy, on purpose
_SILENT.disabled = True


async def upgrade(stream: trio.abc.Stream, uri: WebSocketURI, options: DialOptions) -> NativeLink:
    """Turn an open stream into a WebSocket.

    Raises:
        HandshakeRefused: the server answered with another status than 101.
        InvalidHandshake: its answer is wrong.
        ConnectFailed, TLSFailed: the stream ended or broke instead.
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
    with unbroken():
        await stream.send_all(b"".join(protocol.data_to_send()))
    answer = await read_answer(stream, trio.current_effective_deadline(), options.subprotocols)
    # The library would parse frames right behind the head: it gets the head alone.
    protocol.receive_data(answer.head)
    if protocol.handshake_exc is not None:
        raise _invalid(protocol.handshake_exc) from protocol.handshake_exc
    deflate = Deflate(protocol.extensions[0]) if protocol.extensions else None
    handshake = Handshake(
        url=without_user_info(options.url),
        subprotocol=protocol.subprotocol,
        request_headers=Headers(request.headers.raw_items()),
        response_headers=Headers(answer.response.headers.raw_items()),
        peer=describe_peer(stream),
        extensions=tuple(extension.name for extension in protocol.extensions),
    )
    decoder = Decoder(masked=False, max_size=options.max_size, deflate=deflate)
    encoder = Encoder(mask=True, deflate=deflate)
    return NativeLink(stream, handshake, decoder, encoder, answer.rest)


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


def _invalid(error: Exception) -> InvalidHandshake:
    cause = error.__cause__
    return InvalidHandshake(str(error) if cause is None else f"{error}: {cause}")
