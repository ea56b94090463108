"""HTTP answers to the opening handshake and to CONNECT (RFC 9112): the head, and why not."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import NamedTuple

import trio
from websockets.exceptions import InvalidHandshake as LibraryInvalidHandshake
from websockets.http11 import Response
from websockets.streams import StreamReader

from .._redact import redact_query, redact_subprotocols, redact_text
from ..errors import ConnectFailed, HandshakeRefused, InvalidHandshake, TLSFailed
from ..headers import Headers

__all__ = ["BROKEN", "Answer", "NotHTTP", "problem_of", "read_answer", "read_head", "unbroken"]

BROKEN = (trio.BrokenResourceError, trio.ClosedResourceError, OSError)
"""What a stream raises that broke; OSError comes from streams that are not trio's own."""

# A refusal's body explains; its status is kept neither waiting nor from memory for it.
_BODY_TIMEOUT = 2.0
_MAX_BODY = 2**20

# Enough of an error's text, which may quote long lines of a server.
_MAX_TEXT = 200


class NotHTTP(Exception):
    """The bytes are no HTTP response."""


class Answer(NamedTuple):
    """The head of a response; its bytes, and those that were received behind it."""

    response: Response
    head: bytes
    rest: bytes


async def read_head(stream: trio.abc.Stream, max_bytes: int | None = None) -> Answer:
    """Read the head of a response, at most ``max_bytes`` at a time.

    Raises:
        EOFError: the stream ended before it did.
        NotHTTP: it cannot be read; the text says why.
    """
    reader = StreamReader()
    # For a proxy the library takes no body, and HTTP/1.0.
    parser = Response.parse(reader.read_line, reader.read_exact, reader.read_to_eof, proxy=True)
    received = bytearray()
    try:
        next(parser)
        while data := await stream.receive_some(max_bytes):
            received += data
            reader.feed_data(data)
            next(parser)
    except StopIteration as done:
        rest = bytes(reader.buffer)
        return Answer(done.value, bytes(received[: len(received) - len(rest)]), rest)
    # The library's EOFError is a line without CR here: it is never told of an end.
    except (EOFError, ValueError, LibraryInvalidHandshake) as error:
        raise NotHTTP(problem_of(error)) from None
    if not b"HTTP/".startswith(received[:5]):
        raise NotHTTP(f"it begins with {bytes(received[:20])!r}")
    raise EOFError


def problem_of(error: BaseException) -> str:
    """What the library says is wrong with a head; what it quotes may be a cookie or a token."""
    text = str(error)
    if "HTTP header" in text:
        text = text.partition(":")[0]
    return redact_text(redact_query(text))[:_MAX_TEXT]


async def read_answer(stream: trio.abc.Stream, deadline: float, offered: Sequence[str]) -> Answer:
    """Read the server's answer to the opening handshake, which must be a 101.

    Args:
        stream: where it comes.
        deadline: when the whole attempt ends: the body of a refusal is cut short before.
        offered: the subprotocols that the server may choose from.

    Raises:
        HandshakeRefused: it has another status.
        InvalidHandshake: it is not HTTP, or chooses what was not offered.
        ConnectFailed, TLSFailed: the stream ended or broke before.
    """
    try:
        with unbroken():
            answer = await read_head(stream)
    except EOFError:
        raise ConnectFailed("the server hung up instead of answering the handshake") from None
    except NotHTTP as error:
        raise InvalidHandshake(f"the answer cannot be read: {error}") from None
    response = answer.response
    if response.status_code == 101:
        _check_choice(response, offered)
        return answer
    body = _Body(response)
    await _read_body(stream, body, answer.rest, deadline)
    headers = Headers(response.headers.raw_items())
    raise HandshakeRefused(response.status_code, headers, body.data, response.reason_phrase)


def _check_choice(response: Response, offered: Sequence[str]) -> None:
    """At most one subprotocol, of those offered (RFC 6455, section 4.1).

    The libraries look, too, but what they quote may be a token.
    """
    values = response.headers.get_all("Sec-WebSocket-Protocol")
    chosen = ", ".join(values)
    if values and chosen.strip(" \t") not in offered:
        raise InvalidHandshake(
            f"the server chose a subprotocol that was not offered: {redact_subprotocols(chosen)}"
        )


@contextmanager
def unbroken() -> Iterator[None]:
    """Within the opening handshake: what a stream that breaks in the block means.

    Raises:
        TLSFailed: TLS broke it. With TLS 1.3 a rejected client certificate shows only here.
        ConnectFailed: the network did.
    """
    try:
        yield
    except BROKEN as error:
        cause = error.__cause__ or error
        if isinstance(cause, ssl.SSLError):
            raise TLSFailed(f"TLS failed during the handshake: {cause}") from cause
        raise ConnectFailed(f"the connection broke during the handshake: {cause}") from cause


async def _read_body(stream: trio.abc.Stream, body: _Body, rest: bytes, deadline: float) -> None:
    """Read as much of a body as comes in good time; what goes wrong only ends it."""
    body.feed(rest)
    # A part of the time is left over, so that the deadline finds us done.
    left = 0.9 * (deadline - trio.current_time())
    with trio.move_on_after(max(0, min(_BODY_TIMEOUT, left))), suppress(*BROKEN):
        while not body.complete and (data := await stream.receive_some()):
            body.feed(data)


class _Body:
    """The body of a response as far as it came (RFC 9112, section 6)."""

    # A chunk's size, behind the end of the chunk before.
    _CHUNK = re.compile(rb"(?:\r\n)?([0-9a-f]{1,8})[^\n]*\r\n", re.IGNORECASE)

    def __init__(self, response: Response) -> None:
        headers = response.headers
        codings = headers.get_all("Transfer-Encoding")
        self._chunked = bool(codings) and codings[-1].lower().endswith("chunked")
        lengths = [] if self._chunked else headers.get_all("Content-Length")
        self._limit = min([_MAX_BODY, *map(_length, lengths)])
        if response.status_code < 200 or response.status_code in (204, 304):
            self._limit = 0
        self._raw = bytearray()  # not taken apart yet
        self._data = bytearray()
        self._received = 0
        self._need = 0  # bytes of the open chunk still to come
        self._ended = False

    @property
    def complete(self) -> bool:
        """Whether nothing more needs to be read."""
        return self._ended or self._received >= self._limit

    @property
    def data(self) -> bytes:
        """What it says, without the chunks around it."""
        return bytes(self._data[: self._limit])

    def feed(self, raw: bytes | bytearray) -> None:
        """Take the next bytes of it."""
        self._received += len(raw)
        if not self._chunked:
            self._data += raw
            return
        self._raw += raw
        while not self._ended:
            part = self._raw[: self._need]
            self._data += part
            self._need -= len(part)
            del self._raw[: len(part)]
            size = None if self._need else self._CHUNK.match(self._raw)
            if size is None:
                return
            self._need = int(size[1], 16)
            del self._raw[: size.end()]
            # What the trailer says is not waited for.
            self._ended = not self._need


def _length(text: str) -> int:
    """The value of a Content-Length, as far as it matters."""
    return int(text) if text.isdecimal() and len(text) < 20 else _MAX_BODY
