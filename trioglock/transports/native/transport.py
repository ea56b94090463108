"""The native transport: the opening handshakes of clients and servers."""

from __future__ import annotations

import trio

from ..._redact import without_user_info
from ..._timer import effective_deadline
from ...options import DialOptions, deflate_settings
from ..base import Capabilities, Handshake, Link, Transport
from ..connecting import open_stream
from ..http1 import read_response, stream_errors_translated
from ..listeners import describe_peer
from ..negotiation import ServerTransport, Upgrade
from ..redirects import follow_redirects
from ..tls import TLSSocketIO, peer_certificate
from ..urls import WebSocketURL
from .decoder import Decoder
from .deflate import DeflateStreams
from .encoder import Encoder
from .fragment_decoder import FragmentDecoder
from .link import NativeLink, NativeServerLink
from .opening import check_response, make_request
from .socket_io import ByteIO, choose_io

__all__ = ["NativeTransport"]


class NativeTransport(Transport, ServerTransport):
    """The default transport of clients and servers: the fastest, with every capability."""

    capabilities: Capabilities = Capabilities(fragments=True)
    receives_fragments: bool = True

    async def connect(self, options: DialOptions, nursery: trio.Nursery) -> Link:  # noqa: ARG002 - the interface
        return await follow_redirects(options, self._attempt)

    async def _attempt(self, url: WebSocketURL, options: DialOptions) -> Link:
        stream = await open_stream(url, options)
        try:
            return await _upgrade_client(stream, url, options)
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise

    async def upgrade(
        self,
        stream: trio.abc.Stream,
        upgrade: Upgrade,
        nursery: trio.Nursery,  # noqa: ARG002 - the interface
    ) -> Link:
        await trio.lowlevel.checkpoint_if_cancelled()
        kind = FragmentDecoder if upgrade.fragments else Decoder
        decoder = kind(masked=True, max_size=upgrade.max_size, deflate=upgrade.deflate)
        encoder = Encoder(mask=False, deflate=upgrade.deflate)
        return NativeServerLink(
            stream,
            upgrade.handshake,
            decoder,
            encoder,
            upgrade.received.rest,
            response=upgrade.response,
        )


async def _upgrade_client(
    stream: trio.abc.Stream, url: WebSocketURL, options: DialOptions
) -> NativeLink:
    """Do the client's opening handshake (RFC 6455, section 4.1)."""
    request = make_request(url, options)
    io = choose_io(stream)
    with stream_errors_translated():
        await _send_request(io, request.data)
    deadline = effective_deadline()
    response = await read_response(io, deadline, options.subprotocols, options.max_header_size)
    subprotocol, extensions = check_response(request, response.headers, url, options)
    deflate = None
    if extensions and (settings := deflate_settings(options.compression)) is not None:
        deflate = DeflateStreams(extensions[0], settings)
    certificate, certificate_der = peer_certificate(stream)
    handshake = Handshake(
        url=without_user_info(options.url),
        subprotocol=subprotocol,
        request_headers=request.headers,
        response_headers=response.headers,
        peer=describe_peer(stream),
        extensions=tuple([extension.name for extension in extensions]),
        peer_certificate=certificate,
        peer_certificate_der=certificate_der,
    )
    kind = FragmentDecoder if options.fragments else Decoder
    decoder = kind(masked=False, max_size=options.max_size, deflate=deflate)
    encoder = Encoder(mask=True, deflate=deflate)
    return NativeLink(stream, handshake, decoder, encoder, response.rest)


async def _send_request(io: ByteIO, request: bytes) -> None:
    try:
        await io.send_all(request)
    except OSError:
        if isinstance(io, TLSSocketIO):
            # With TLS 1.3 a server rejects a client's certificate after the handshake. Its alert
            # may have arrived before it closed the connection.
            await io.receive_some(1)
        raise
