"""Requests to a server (RFC 9112): the head of one, bounded, and the plain answer to it."""

from __future__ import annotations

from contextlib import suppress
from typing import NamedTuple

import trio
from websockets.exceptions import HeaderLineTooLong, RequestLineTooLong, TooManyHeaders
from websockets.exceptions import InvalidHandshake as LibraryInvalidHandshake
from websockets.http11 import Request as LibraryRequest
from websockets.streams import StreamReader

from ..headers import Headers
from ..http import Request, Response
from .http_responses import BROKEN, problem_of
from .tcp import describe_peer

__all__ = ["Call", "Refusal", "answer", "hang_up", "read_call"]

# Seconds for a client to take our last words before the stream is freed.
LINGER = 1.0

CHUNK = 2**12


class Refusal(Exception):
    """The client gets this answer instead of a WebSocket; the text says why, for the log.

    Args:
        response: what the client gets.
        why: for the log.
    """

    def __init__(self, response: Response, why: str) -> None:
        super().__init__(why)
        self.response = response


class Call(NamedTuple):
    """A request for an upgrade, or for anything else; and the bytes around it."""

    request: Request
    parsed: LibraryRequest
    head: bytes
    rest: bytes
    """What was received behind the head."""


async def read_call(stream: trio.abc.Stream, max_size: int) -> Call:
    """Read the head of a request, at most ``max_size`` bytes.

    Args:
        stream: of a client that has just come.
        max_size: the most bytes of the head.

    Raises:
        Refusal: it is too large, or no HTTP.
        EOFError: the client hung up before it was whole; the text says after how much.
        trio.BrokenResourceError: the stream broke.
    """
    reader = StreamReader()
    parser = LibraryRequest.parse(reader.read_line)
    received = bytearray()
    try:
        next(parser)
        while data := await stream.receive_some(CHUNK):
            received += data
            reader.feed_data(data)
            if not 65 <= received[0] <= 90:
                raise _bad(400, "no HTTP request", "the first byte is no letter: TLS?")
            next(parser)
            if len(received) > max_size:
                raise _bad(431, "the head is too large", f"head of more than {max_size} bytes")
    except StopIteration as done:
        rest = bytes(reader.buffer)
        size = len(received) - len(rest)
        if size > max_size:
            raise _bad(431, "the head is too large", f"head of {size} bytes") from None
        return Call(_request(stream, done.value), done.value, bytes(received[:size]), rest)
    except RequestLineTooLong as error:
        raise _bad(414, "the request line is too long", problem_of(error)) from None
    except (HeaderLineTooLong, TooManyHeaders) as error:
        raise _bad(431, "too many or too long headers", problem_of(error)) from None
    # The library's EOFError is a line without CR here: it is never told of an end.
    except (EOFError, ValueError, NotImplementedError, LibraryInvalidHandshake) as error:
        why = problem_of(error.__cause__ or error)
        raise _bad(400, "no valid HTTP request, or one with a body", why) from None
    raise EOFError(f"after {len(received)} bytes of its request")


def _request(stream: trio.abc.Stream, parsed: LibraryRequest) -> Request:
    return Request(
        target=parsed.path,
        headers=Headers(parsed.headers.raw_items()),
        method=parsed.method,
        peer=describe_peer(stream),
        secure=isinstance(stream, trio.SSLStream),
    )


def _bad(status: int, told: str, why: str) -> Refusal:
    return Refusal(Response(status, f"{told}\n"), f"{status} {told}: {why!r}")


async def answer(stream: trio.abc.Stream, response: Response, method: str = "GET") -> None:
    """Send ``response`` and end the stream; what breaks now breaks nothing.

    Args:
        stream: of the client.
        response: to send.
        method: of the request; ``"HEAD"`` gets no body (RFC 9110, section 9.3.2).
    """
    with suppress(*BROKEN):
        await stream.send_all(response.to_bytes(head_only=method == "HEAD"))
        await hang_up(stream)


async def hang_up(stream: trio.abc.Stream) -> None:
    """End our direction and wait a moment for the client to end its own.

    To close at once while something of the client's is unread would make TCP throw away what
    the client has not read yet (RFC 9112, section 9.6).
    """
    with suppress(*BROKEN, trio.BusyResourceError), trio.move_on_after(LINGER):
        if isinstance(stream, trio.SSLStream):
            # Says so in TLS's own words, and waits for the client's.
            plain, _ = await stream.unwrap()
            await trio.aclose_forcefully(plain)
            return
        if isinstance(stream, trio.abc.HalfCloseableStream):
            await stream.send_eof()
        while await stream.receive_some(CHUNK):
            pass
