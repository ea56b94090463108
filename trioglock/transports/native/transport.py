"""The native transport: the opening handshakes of clients and servers.

websockets' Sans-I/O layer does the handshake (RFC 6455, section 4) and is not used afterwards.
"""

from __future__ import annotations

import trio
from websockets.client import ClientProtocol
from websockets.datastructures import Headers as LibraryHeaders
from websockets.exceptions import InvalidHandshake as LibraryInvalidHandshake
from websockets.extensions.permessage_deflate import enable_client_permessage_deflate
from websockets.http11 import Request, Response
from websockets.typing import Origin, Subprotocol

from ..._redact import without_user_info
from ...errors import InvalidHandshake
from ...headers import Headers
from ...options import DialOptions
from ..base import Handshake, Link, LinkBroken, Transport
from ..connecting import closed_on_failure, open_stream
from ..http1 import STREAM_ERRORS, read_response, stream_errors_translated
from ..listeners import describe_peer
from ..negotiation import SILENT, ServerTransport, Upgrade
from ..redirects import follow_redirects
from ..tls import TLSSocketIO, peer_certificate
from ..urls import WebSocketURI
from .decoder import Decoder
from .deflate import Deflate
from .encoder import Encoder
from .link import NativeLink, NativeServerLink

__all__ = ["NativeTransport"]


class NativeTransport(Transport, ServerTransport):
    """The default transport of clients and servers: the fastest, with every capability."""

    async def connect(self, options: DialOptions, nursery: trio.Nursery) -> Link:  # noqa: ARG002 - the interface
        return await follow_redirects(options, self._attempt)

    async def _attempt(self, uri: WebSocketURI, options: DialOptions) -> Link:
        stream = await open_stream(uri, options)
        async with closed_on_failure(stream):
            return await _upgrade_client(stream, uri, options)

    async def upgrade(
        self,
        stream: trio.abc.Stream,
        upgrade: Upgrade,
        nursery: trio.Nursery,  # noqa: ARG002 - the interface
    ) -> Link:
        try:
            await stream.send_all(upgrade.response)
        except STREAM_ERRORS as error:
            raise LinkBroken(str(error.__cause__ or error)) from error
        decoder = Decoder(masked=True, max_size=upgrade.max_size, deflate=upgrade.deflate)
        encoder = Encoder(mask=False, deflate=upgrade.deflate)
        rest = upgrade.received.rest
        return NativeServerLink(stream, upgrade.handshake, decoder, encoder, rest)


async def _upgrade_client(
    stream: trio.abc.Stream, uri: WebSocketURI, options: DialOptions
) -> NativeLink:
    """Do the client's opening handshake (RFC 6455, section 4.1)."""
    protocol = ClientProtocol(
        uri,
        origin=None if options.origin is None else Origin(options.origin),
        extensions=enable_client_permessage_deflate(None) if options.compression else None,
        subprotocols=[Subprotocol(name) for name in options.subprotocols] or None,
        max_size=None,
        logger=SILENT,
    )
    request = _request(protocol, options)
    with stream_errors_translated():
        await _send_request(stream, request.serialize())
    response = await read_response(stream, trio.current_effective_deadline(), options.subprotocols)
    try:
        protocol.process_response(
            Response(101, "Switching Protocols", LibraryHeaders(response.headers.pairs()))
        )
    except LibraryInvalidHandshake as error:
        cause = error.__cause__
        text = str(error) if cause is None else f"{error}: {cause}"
        raise InvalidHandshake(text) from error
    deflate = Deflate(protocol.extensions[0]) if protocol.extensions else None
    certificate, certificate_der = peer_certificate(stream)
    handshake = Handshake(
        url=without_user_info(options.url),
        subprotocol=protocol.subprotocol,
        request_headers=Headers(request.headers.raw_items()),
        response_headers=response.headers,
        peer=describe_peer(stream),
        peer_certificate=certificate,
        peer_certificate_der=certificate_der,
        extensions=tuple(extension.name for extension in protocol.extensions),
    )
    decoder = Decoder(masked=False, max_size=options.max_size, deflate=deflate)
    encoder = Encoder(mask=True, deflate=deflate)
    return NativeLink(stream, handshake, decoder, encoder, response.rest)


async def _send_request(stream: trio.abc.Stream, request: bytes) -> None:
    try:
        await stream.send_all(request)
    except OSError:
        if isinstance(stream, TLSSocketIO):
            # With TLS 1.3 a server rejects a client's certificate after the handshake. Its alert
            # may have arrived before it closed the connection.
            await stream.receive_some(1)
        raise


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
