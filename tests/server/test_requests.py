"""Reading requests: any bytes, cut in any way, are a request, a refusal or an end."""

from __future__ import annotations

import gc
import socket
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.server.helpers import Echo, plain_request, request
from trioglock import Request, Response, serve
from trioglock.transports import Refusal, read_request

LIMIT = 400

heads = st.sampled_from([request(), request("/a?b#c"), plain_request("*", "OPTIONS")])
tails = st.sampled_from([b"", b"\x81\x80\0\0\0\0", b"x" * 5000])


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A request with changed, removed or inserted bytes."""
    data = bytearray(draw(heads) + draw(tails))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(data)))
        match draw(st.sampled_from(["change", "lose", "insert"])):
            case "change" if at < len(data):
                data[at] = draw(st.integers(0, 255))
            case "lose":
                del data[at : at + draw(st.integers(1, 40))]
            case _:
                data[at:at] = draw(st.binary(min_size=1, max_size=20))
    return bytes(data)


async def outcome(chunks: list[bytes]) -> Any:
    """The result of reading a stream of ``chunks``."""
    client, server = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:

        async def send() -> None:
            for chunk in chunks:
                await client.send_all(chunk)
                await trio.testing.wait_all_tasks_blocked()
            await client.send_eof()

        nursery.start_soon(send)
        try:
            call = await read_request(server, LIMIT)
        except Refusal as refusal:
            return refusal.response.status
        except EOFError:
            return "ended"
        finally:
            nursery.cancel_scope.cancel()
        assert len(call.head) <= LIMIT
        assert b"".join(chunks).startswith(call.head + call.rest)
        return call.request


@pytest.mark.slow
@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.data(), st.one_of(mutated(), st.binary(max_size=100)))
def test_any_bytes_come_to_the_same_however_they_are_cut(data: st.DataObject, wire: bytes) -> None:
    """No other exception is raised; a request is the same when read byte by byte."""
    whole = trio.run(outcome, [wire] if wire else [])
    assert whole == "ended" or isinstance(whole, Request) or whole in (400, 414, 431, 501)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=3)))
    pieces = [wire[a:b] for a, b in zip([0, *cuts], [*cuts, len(wire)], strict=True)]
    cut = trio.run(outcome, [piece for piece in pieces if piece])
    # A head that is both too large and wrong is called the one or the other.
    assert cut == whole or {cut, whole} <= {400, 414, 431, "ended"}


def test_a_request_knows_its_parts() -> None:
    """Path and query, as they were sent, also of an invalid URL."""
    asked = read(b"GET /a%20b/c?x=1&y=%20?z HTTP/1.1\r\nHost: h\r\nX: 1\r\nx: 2\r\n\r\n")
    assert (asked.method, asked.path, asked.query) == ("GET", "/a%20b/c", "x=1&y=%20?z")
    assert asked.headers["X"] == "1, 2"
    assert read(plain_request("//[/x?y")).path == "//[/x"
    assert read(plain_request("//host/x")).path == "//host/x"
    assert read(plain_request("http://memory.test/x?y")).path == "/x"
    assert (read(plain_request("/a#b?c")).path, read(plain_request("/a#b?c")).query) == ("/a", "")
    assert read(plain_request("/")).query == ""


def read(data: bytes) -> Request:
    asked = trio.run(outcome, [data])
    assert isinstance(asked, Request)
    return asked


BAD_RESPONSES: dict[str, dict[str, Any]] = {
    "200 to 599, not 101": {"status": 101},
    "599, not True": {"status": True},
    "599, not '200'": {"status": "200"},
    "str or bytes, not int": {"body": 5},
    "Content-Type contains a line break": {"headers": {"Content-Type": "a\r\nEvil: 1"}},
    "connection is set by the server": {"headers": {"Connection": "keep-alive"}},
    "content-length is set by the server": {"headers": [("content-length", "5")]},
}


@pytest.mark.parametrize("words", BAD_RESPONSES)
def test_a_response_that_cannot_be_sent_is_refused_immediately(words: str) -> None:
    """At its construction; the error states what is allowed."""
    with pytest.raises(ValueError, match=words):
        Response(**BAD_RESPONSES[words])


def test_a_response_is_text_or_bytes() -> None:
    """A standard status has its reason phrase."""
    assert Response(299, "\u2603").to_bytes() == (
        b"HTTP/1.1 299 \r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n"
        b"Content-Length: 3\r\n\r\n\xe2\x98\x83"
    )
    assert Response(404).to_bytes() == (
        b"HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    )
    assert repr(Response(200, "abc")) == "Response(200, 3 bytes)"


@pytest.mark.parametrize(
    "data",
    [
        plain_request(),
        plain_request("/", "POST"),
        request(Upgrade="h2c"),
        request(Sec_WebSocket_Key="!!!!"),
        request(Sec_WebSocket_Version="8"),
        request(Host="[1]"),
        b"garbage\r\n\r\n",
    ],
    ids=["plain", "post", "upgrade", "key", "version", "host", "garbage"],
)
async def test_a_refused_request_leaves_no_reference_cycle(data: bytes) -> None:
    """Its memory is free at once: a flood of requests must not wait for the collector."""

    def ask(port: int | None) -> None:
        with socket.create_connection(("127.0.0.1", port or 0)) as client:
            client.sendall(data)
            while client.recv(4096):
                pass

    async with serve(Echo, "127.0.0.1", 0) as server:
        await trio.to_thread.run_sync(ask, server.port)
        await trio.testing.wait_all_tasks_blocked(0.01)
        gc.collect()
        gc.disable()
        try:
            for _ in range(20):
                await trio.to_thread.run_sync(ask, server.port)
            await trio.testing.wait_all_tasks_blocked(0.01)
            left = gc.collect()
        finally:
            gc.enable()
    assert left < 20
