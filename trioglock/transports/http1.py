"""HTTP/1.1 over a byte stream (RFC 9112): requests, responses and bodies of refusals.

httptools (llhttp) is the parser. It rejects bare line feeds, folded headers, illegal characters,
and Content-Length together with Transfer-Encoding, as soon as they arrive. This module limits the
size of a head and of a body. The parser receives exactly the head: bytes after it belong to the
WebSocket, or to a body that is read separately.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

import httptools
import trio

from .._redact import printable, redact_subprotocols
from ..errors import ConnectFailed, HandshakeRefused, InvalidHandshake, TLSFailed
from ..headers import Headers, HeadersLike, checked_headers, decode_header
from ..http import Request, Response
from .tls import is_tls_failure, peer_certificate
from .urls import parse_host_header

if TYPE_CHECKING:
    from .native.socket_io import ByteIO

__all__ = [
    "STREAM_ERRORS",
    "NotHTTP",
    "ReceivedRequest",
    "Refusal",
    "ResponseHead",
    "end_stream",
    "read_request",
    "read_response",
    "read_status",
    "refuse",
    "send_response",
    "stream_errors_translated",
    "without_empty_lines",
]

STREAM_ERRORS = (trio.BrokenResourceError, trio.ClosedResourceError, OSError)
"""The exceptions of a broken stream; OSError is raised by streams that are not trio's own."""

CHUNK = 2**12

_SWITCHING_PROTOCOLS = 101

_TLS_ALERT = b"\x15\x03"
"""The beginning of a TLS server's answer to plain text (RFC 8446, section 5.1)."""

MAX_INTERIM = 16
"""Maximum number of interim responses (1xx) before a response."""

# Headers to which the rules for lists (RFC 9110, section 5.6.1) allow no value, or only commas.
_EMPTY_IS_ABSENT = frozenset({b"sec-websocket-protocol", b"sec-websocket-extensions"})
_empty_lines = re.compile(
    rb"\r\n(?:%s):[ \t,]*(?=\r\n)" % b"|".join(sorted(_EMPTY_IS_ABSENT)), re.IGNORECASE
)

# The body of a refusal explains it, but reading the body must not delay the report of the status
# beyond these limits.
BODY_TIMEOUT = 2.0
MAX_BODY = 2**20

# Maximum size of a body that is sent together with the head.
MAX_JOINED = 2**16

# Seconds for a client to read a response before the stream is closed.
LINGER = 1.0

# The absolute form of a target: the scheme, the host, and the path with the query.
_split_absolute = re.compile(r"(https?|wss?)://([^/?#]*)([^#]*)", re.IGNORECASE).fullmatch

# A request line with any method (RFC 9112, section 3), and the beginning of such a line.
_METHOD = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_is_request_line = re.compile(_METHOD + rb" \S+ HTTP/1\.[01]\r\n").match
_begins_request_line = re.compile(_METHOD + rb"( \S*( \S*)?)?\r?").fullmatch


class Refusal(Exception):
    """Raised to answer a request with a plain response instead of a WebSocket.

    Args:
        response: sent to the client.
        reason: the reason, for the log.
    """

    def __init__(self, response: Response, reason: str) -> None:
        super().__init__(reason)
        self.response = response


def refuse(status: int, text: str, headers: HeadersLike = ()) -> Refusal:
    """Return a refusal whose body and reason are ``text``."""
    return Refusal(Response(status, f"{text}\n", headers), f"{status} {text}")


class ReceivedRequest(NamedTuple):
    """A request as received."""

    request: Request
    version: str
    """``"1.1"``, or ``"1.0"``."""
    head: bytes
    """The bytes of the request line and the headers."""
    rest: bytes
    """The bytes that were received after the head."""


class NotHTTP(Exception):
    """The bytes are not HTTP. The exception's text gives the reason without quoting them."""


class _TooLarge(NotHTTP):
    pass


class _Message:
    """Collects what httptools parses; its methods are the parser's callbacks."""

    # The parser refers to this object, so this object must not refer to the parser.
    __slots__ = ("body", "complete", "head_complete", "headers", "phrase", "received", "target")

    def __init__(self) -> None:
        self.received = bytearray()  # the head as it arrives, and the bytes that follow it
        self.target = b""
        self.phrase = b""
        self.headers: list[str] = []  # alternating names and values; the parser checks them
        self.body = bytearray()
        self.head_complete = False
        self.complete = False

    def on_url(self, part: bytes) -> None:
        self.target += part

    def on_status(self, part: bytes) -> None:
        self.phrase += part

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.head_complete:  # a trailer
            return
        value = value.rstrip()
        if value.strip(b" \t,") or name.lower() not in _EMPTY_IS_ABSENT:
            self.headers += decode_header(name), decode_header(value)

    def on_headers_complete(self) -> None:
        self.head_complete = True

    def on_body(self, part: bytes) -> None:
        self.body += part

    def on_message_complete(self) -> None:
        self.complete = True


_Parser = httptools.HttpRequestParser | httptools.HttpResponseParser


def _feed(parser: _Parser, data: bytes | bytearray) -> None:
    try:
        parser.feed_data(data)
    except httptools.HttpParserUpgrade:
        pass  # the end of a message that asks for, or agrees to, another protocol
    except httptools.HttpParserError as error:
        raise NotHTTP(str(error)) from None


async def _read_head(
    stream: ByteIO,
    parser: _Parser,
    message: _Message,
    max_size: int,
    max_bytes: int = CHUNK,
    data: bytes | bytearray = b"",
) -> tuple[bytes, bytes]:
    """Feed the head of a message to ``parser``; return its bytes and those received after it.

    ``data`` holds bytes that have already been received.

    Raises:
        NotHTTP: the head is invalid, or larger than ``max_size`` bytes.
        EOFError: the stream ended before the head did; the message gives the number of bytes.
    """
    received = message.received
    while data := data or await stream.receive_some(max_bytes):
        start = len(received)
        received += data
        end = received.find(b"\r\n\r\n", max(0, start - 3)) + 4
        stop = end if end > 3 else len(received)
        _feed(parser, received[start : min(stop, max_size + 1)])
        if stop > max_size:
            raise _TooLarge(f"the head is larger than {max_size} bytes")
        if message.head_complete:
            return bytes(received[:stop]), bytes(received[stop:])
        if end > 3:
            raise NotHTTP("the head is malformed")
        data = b""
    raise EOFError(f"after {len(received)} bytes")


def without_empty_lines(head: bytes) -> bytes:
    """Return a head without the headers that are ignored because they are empty."""
    return _empty_lines.sub(b"", head)


# Requests.


async def read_request(
    stream: ByteIO, max_size: int, *, peer: str = "", secure: bool = False
) -> ReceivedRequest:
    """Read the head of a request.

    Args:
        stream: the stream of a client that has just connected.
        max_size: maximum size of the head in bytes.
        peer: the address of the client.
        secure: whether the stream is encrypted.

    Raises:
        Refusal: the request is too large, invalid, or has a body.
        EOFError: the client closed the stream before the head was complete.
        trio.BrokenResourceError: the stream broke.
    """
    message = _Message()
    parser = httptools.HttpRequestParser(message)
    try:
        head, rest = await _read_head(stream, parser, message, max_size)
    except _TooLarge as error:
        if b"\r\n" not in message.received[:max_size]:
            raise refuse(414, "the request line is too long") from None
        raise refuse(431, str(error)) from None
    except NotHTTP as error:
        unknown_method = str(error).startswith("Invalid method")
        if unknown_method and await _has_request_line(stream, message.received, max_size):
            # RFC 9110, section 9.1: 405 is for methods that the server implements.
            raise refuse(501, "the request method is not implemented") from None
        raise refuse(400, f"invalid HTTP request: {error}") from None
    headers = checked_headers(message.headers)
    version = parser.get_http_version()
    if version not in ("1.1", "1.0"):
        raise refuse(400, f"HTTP/{version} is not supported")
    lowered = [name.lower() for name in message.headers[::2]]
    if "transfer-encoding" in lowered or (
        "content-length" in lowered and headers["content-length"] != "0"
    ):
        raise refuse(400, "a request with a body is not supported")
    certificate, certificate_der = peer_certificate(stream)
    request = Request(
        target=_origin_form(message.target.decode("latin-1"), headers),
        headers=headers,
        method=parser.get_method().decode("latin-1"),
        peer=peer,
        secure=secure,
        peer_certificate=certificate,
        peer_certificate_der=certificate_der,
    )
    return ReceivedRequest(request, version, head, rest)


def _origin_form(target: str, headers: Headers) -> str:
    """Return the path and query of a target in absolute form (RFC 9112, section 3.2.2)."""
    match = _split_absolute(target)
    if match is None:
        return target
    hosts = headers.get_all("Host")
    # The target must name the host that all other code reads from the header (section 3.2).
    default = 443 if match[1].lower() in ("https", "wss") else 80
    named = [parse_host_header(host) for host in (match[2], *hosts)]
    same = len({one and (one.host, one.port or default) for one in named}) == 1
    if len(hosts) != 1 or None in named or not same:
        raise refuse(400, "the target and the Host header name different hosts")
    return match[3] if match[3].startswith("/") else f"/{match[3]}"


async def _has_request_line(stream: ByteIO, received: bytearray, max_size: int) -> bool:
    """Wait for the rest of the request line; return whether it is valid with any method."""
    while len(received) < max_size and _begins_request_line(received):
        data = await stream.receive_some(CHUNK)
        if not data:
            raise EOFError(f"after {len(received)} bytes")
        received += data
    return _is_request_line(received, 0, max_size) is not None


async def send_response(stream: trio.abc.Stream, response: Response, method: str = "GET") -> None:
    """Send a plain response and end the stream. Stream errors are ignored.

    Args:
        stream: the stream of the client.
        response: the response to send.
        method: the request method; a response to ``"HEAD"`` has no body (RFC 9110, section 9.3.2).
    """
    with suppress(*STREAM_ERRORS):
        head_only = method == "HEAD" or len(response.body) > MAX_JOINED
        await stream.send_all(response.to_bytes(head_only=head_only))
        if head_only and method != "HEAD":
            # Send the body in pieces, because TLS would encrypt it all at once. The memoryview
            # avoids copying it.
            body = memoryview(response.body)
            for start in range(0, len(body), MAX_JOINED):
                await stream.send_all(body[start : start + MAX_JOINED])
        await end_stream(stream)


async def end_stream(stream: trio.abc.Stream) -> None:
    """End the sending side and wait up to :data:`LINGER` seconds for the client to do the same.

    Closing immediately while received bytes are unread would make TCP discard data that the
    client has not read yet (RFC 9112, section 9.6).
    """
    with suppress(*STREAM_ERRORS, trio.BusyResourceError), trio.move_on_after(LINGER):
        if isinstance(stream, trio.SSLStream):
            # Sends TLS's close_notify and waits for the client's.
            plain, _ = await stream.unwrap()
            await trio.aclose_forcefully(plain)
            return
        if isinstance(stream, trio.abc.HalfCloseableStream):
            await stream.send_eof()
        while await stream.receive_some(CHUNK):
            pass


# Responses.


class ResponseHead(NamedTuple):
    """The head of a response to the opening handshake, with status 101."""

    headers: Headers
    head: bytes
    """The bytes of the status line and the headers."""
    rest: bytes
    """The bytes that were received after the head."""


class _ResponseReader:
    """Reads the head of a response, and skips interim responses (RFC 9110, section 15.2)."""

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        self.message = _Message()
        self.parser = httptools.HttpResponseParser(self.message)

    @property
    def status(self) -> int:
        return self.parser.get_status_code()

    async def read(
        self, stream: ByteIO, max_size: int, max_bytes: int = CHUNK
    ) -> tuple[bytes, bytes]:
        """Return the bytes of the head and those received after it, as :func:`_read_head` does."""
        rest, left = b"", max_size
        for _ in range(MAX_INTERIM + 1):
            try:
                head, rest = await _read_head(
                    stream, self.parser, self.message, left, max_bytes, rest
                )
            except _TooLarge:
                raise NotHTTP(
                    f"the head is larger than {max_size} bytes; "
                    "increase max_header_size to allow more"
                ) from None
            if not 100 <= self.status < 200 or self.status == _SWITCHING_PROTOCOLS:
                return head, rest
            left -= len(head)
            self._start()
        raise NotHTTP(f"there are more than {MAX_INTERIM} interim responses")


async def read_status(stream: trio.abc.Stream, max_size: int) -> int:
    """Read a head byte by byte, because another protocol's bytes follow; return the status."""
    reader = _ResponseReader()
    await reader.read(stream, max_size, 1)
    return reader.status


async def read_response(
    stream: ByteIO, deadline: float, offered: Sequence[str], max_size: int
) -> ResponseHead:
    """Read the server's response to the opening handshake, which must be a 101.

    Args:
        stream: the stream to the server.
        deadline: the deadline of the attempt; reading the body of a refusal ends before it.
        offered: the subprotocols that the server may choose from.
        max_size: maximum size of the head in bytes, including interim responses.

    Raises:
        HandshakeRefused: the response has another status.
        InvalidHandshake: the response is not HTTP/1.1, or chooses a subprotocol that was not
            offered.
        ConnectFailed, TLSFailed: the stream ended or broke before the response was complete.
    """
    reader = _ResponseReader()
    try:
        with stream_errors_translated():
            head, rest = await reader.read(stream, max_size)
    except EOFError:
        raise ConnectFailed(
            "the server closed the connection instead of answering the handshake; "
            "check the URL; it may have to begin with wss://"
        ) from None
    except NotHTTP as error:
        if reader.message.received.startswith(_TLS_ALERT):
            raise InvalidHandshake("the server expects TLS: use a wss:// URL") from None
        if (reader.message.phrase or reader.message.headers) and reader.status >= 200:
            # The status is known, although the framing is invalid.
            raise _refused(reader.parser, reader.message) from error
        raise InvalidHandshake(f"the response cannot be read: {error}") from None
    parser, message = reader.parser, reader.message
    status = reader.status
    switches = status == _SWITCHING_PROTOCOLS
    if status < 100 or (switches and parser.get_http_version() != "1.1"):
        raise InvalidHandshake("the response is not HTTP/1.1")
    if not switches:
        await _read_body(stream, parser, message, rest, deadline)
        raise _refused(parser, message)
    headers = checked_headers(message.headers)
    # RFC 6455, section 4.1. The WebSocket libraries check the subprotocol too, but their messages
    # quote it, and it may be a secret token.
    chosen = headers.get("Sec-WebSocket-Protocol")
    if chosen is not None and chosen.strip(" \t") not in offered:
        raise InvalidHandshake(
            f"the server chose a subprotocol that was not offered: {redact_subprotocols(chosen)}"
        )
    return ResponseHead(headers, head, rest)


def _refused(parser: httptools.HttpResponseParser, message: _Message) -> HandshakeRefused:
    return HandshakeRefused(
        parser.get_status_code(),
        checked_headers(message.headers),
        bytes(message.body[:MAX_BODY]),
        printable(message.phrase.decode("latin-1")),
    )


@contextmanager
def stream_errors_translated() -> Iterator[None]:
    """Translate the exceptions of a stream that breaks during the opening handshake.

    Raises:
        TLSFailed: TLS failed. With TLS 1.3 a rejected client certificate is only noticed here.
        ConnectFailed: the network failed.
    """
    try:
        yield
    except STREAM_ERRORS as error:
        cause = error.__cause__ or error
        if is_tls_failure(cause):
            raise TLSFailed(f"TLS failed during the handshake: {cause}") from cause
        raise ConnectFailed(f"the connection broke during the handshake: {cause}") from cause


async def _read_body(
    stream: ByteIO,
    parser: httptools.HttpResponseParser,
    message: _Message,
    rest: bytes,
    deadline: float,
) -> None:
    """Read a body within the limits; stop at any error."""
    # Reserve some time, so that the error reports the status and not a timeout.
    left = 0.9 * (deadline - trio.current_time())
    with (
        trio.move_on_after(max(0, min(BODY_TIMEOUT, left))),
        suppress(NotHTTP, *STREAM_ERRORS),
    ):
        _feed(parser, rest)
        received = len(rest)
        while not message.complete and received < MAX_BODY:
            data = await stream.receive_some(CHUNK)
            if not data:
                return
            _feed(parser, data)
            received += len(data)
