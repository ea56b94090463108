"""Opening handshakes compared with those of websockets, and accepted from curl."""

from __future__ import annotations

import asyncio
import shutil
import zlib
from collections.abc import Mapping
from typing import Any

import pytest
import trio
from websockets.extensions.permessage_deflate import enable_server_permessage_deflate
from websockets.http11 import Request as LibraryRequest
from websockets.server import ServerProtocol

from tests.cases import case_of
from tests.server.helpers import Echo, MakeTransport, echo, frame, on_both, request, serving
from trioglock import serve

OFFER = "Sec_WebSocket_Extensions"
BROWSER = "permessage-deflate; client_max_window_bits"

# Usual requests, unusual legal ones, and illegal ones. A header that is None is left out.
REQUESTS: Mapping[str, dict[str, Any]] = {
    "the least": {},
    "a browser": {
        "Connection": "keep-alive, Upgrade",
        "Origin": "https://example.org",
        "User_Agent": "Mozilla/5.0",
        "Cookie": "a=b; c=d",
        OFFER: BROWSER,
    },
    "other cases": {"Connection": "upgrade", "Upgrade": "WebSocket"},
    "more of Connection": {"Connection": "te, Upgrade , keep-alive"},
    "empty items": {"Connection": ", Upgrade,,"},
    "Connection without Upgrade": {"Connection": "keep-alive"},
    "no Connection": {"Connection": None},
    "a malformed Connection": {"Connection": "Upgrade, @"},
    "an empty Connection": {"Connection": ""},
    "no Upgrade": {"Upgrade": None},
    "another Upgrade": {"Upgrade": "h2c"},
    "two protocols": {"Upgrade": "h2c, websocket"},
    "no key": {"Sec_WebSocket_Key": None},
    "an empty key": {"Sec_WebSocket_Key": ""},
    "a short key": {"Sec_WebSocket_Key": "c2hvcnQ="},
    "a long key": {"Sec_WebSocket_Key": "dGhlIHNhbXBsZSBub25jZSBpcyB0b28gbG9uZw=="},
    "a key with stray bits": {"Sec_WebSocket_Key": "dGhlIHNhbXBsZSBub25jZR=="},
    "a key that is not base64": {"Sec_WebSocket_Key": "!!!!!!!!!!!!!!!!!!!!!!=="},
    "a key without padding": {"Sec_WebSocket_Key": "dGhlIHNhbXBsZSBub25jZQ"},
    "no version": {"Sec_WebSocket_Version": None},
    "version 8": {"Sec_WebSocket_Version": "8"},
    "two versions": {"Sec_WebSocket_Version": "13, 8"},
    "an extension without parameters": {OFFER: "permessage-deflate"},
    "an unknown extension": {OFFER: "x-webkit-deflate-frame"},
    "several offers": {OFFER: "permessage-deflate; server_max_window_bits=10, permessage-deflate"},
    "an offer after an unknown one": {OFFER: f"mux; max-channels=4, {BROWSER}"},
    "no takeover": {
        OFFER: "permessage-deflate; client_no_context_takeover; server_no_context_takeover"
    },
    "a quoted value": {OFFER: 'permessage-deflate; client_max_window_bits="12"'},
    "an invalid value": {OFFER: "permessage-deflate; client_max_window_bits=99"},
    "a repeated parameter": {
        OFFER: "permessage-deflate; client_max_window_bits; client_max_window_bits"
    },
    "a malformed offer": {OFFER: "permessage-deflate; ="},
    "an offer that is too long to be remembered": {OFFER: ", ".join([BROWSER] * 5)},
    "subprotocols": {"Sec_WebSocket_Protocol": "x, b,a"},
    "no subprotocol of ours": {"Sec_WebSocket_Protocol": "x"},
    "malformed subprotocols": {"Sec_WebSocket_Protocol": "a, b c"},
    "an empty subprotocol": {"Sec_WebSocket_Protocol": "a,,b"},
}


def library(data: bytes, subprotocols: list[Any]) -> tuple[int, list[tuple[str, str]]]:
    """Status and headers of the response of websockets."""
    protocol = ServerProtocol(
        subprotocols=subprotocols or None, extensions=enable_server_permessage_deflate(None)
    )
    protocol.receive_data(data)
    [asked] = protocol.events_received()
    assert isinstance(asked, LibraryRequest)
    response = protocol.accept(asked)
    kept = [pair for pair in response.headers.raw_items() if pair[0] != "Date"]
    return response.status_code, kept


@pytest.mark.parametrize("subprotocols", [[], ["a", "b"]], ids=["plain", "subprotocols"])
async def test_the_response_is_that_of_websockets(subprotocols: list[str]) -> None:
    """The same status; the same headers in the same order, if it accepts.

    Other versions get 426 instead of 400.
    """
    async with serving(Echo, subprotocols=subprotocols) as site:
        for name, headers in REQUESTS.items():
            data = request(**headers)
            status, expected = library(data, subprotocols)
            if headers.get("Sec_WebSocket_Version"):
                status = 426
            client = await site.raw()
            await client.send(data)
            line, *lines = (await client.head()).decode("latin-1").strip().split("\r\n")
            await client.stream.aclose()
            with case_of(name):
                assert line.split()[1] == str(status)
                if status == 101:
                    pairs = [tuple(line.split(": ", 1)) for line in lines]
                    assert pairs[0][0] == "Date"
                    assert pairs[1:] == expected


@on_both
async def test_fault_20_a_window_that_zlib_does_not_have_is_no_error(
    transport: MakeTransport,
) -> None:
    """An offer that cannot be accepted is ignored: no 500, as with websockets before 17.2."""
    offers = "permessage-deflate; server_max_window_bits=8"
    async with serving(Echo, transport=transport()) as site:
        for offered in (offers, f"{offers}, {BROWSER}"):
            client = await site.raw()
            await client.send(request(Sec_WebSocket_Extensions=offered))
            head = await client.head()
            assert head.startswith(b"HTTP/1.1 101 ")
            assert b"server_max_window_bits=8" not in head
            await client.stream.aclose()


async def test_fault_63_a_compressed_message_without_payload_is_empty() -> None:
    """And the next message is inflated as usual."""
    async with serving(Echo) as site:
        client = await site.raw()
        await client.send(request(Sec_WebSocket_Extensions=BROWSER))
        assert b"permessage-deflate" in await client.head()
        inflater = zlib.decompressobj(wbits=-15)
        hello = b"\xf2\x48\xcd\xc9\xc9\x07\x00"
        for payload, expected in ((hello, b"Hello"), (b"", b""), (hello, b"Hello")):
            await client.send(frame(0xC1, payload))
            head, echoed = await client.frame()
            if head & 0x40:
                echoed = inflater.decompress(echoed + b"\0\0\xff\xff")
            assert echoed == expected
        await client.stream.aclose()


@pytest.mark.parametrize("name", ["Connection", "Sec-WebSocket-Key", "Sec-WebSocket-Version"])
async def test_a_repeated_header_is_treated_as_websockets_treats_it(name: str) -> None:
    """A repeated key or version is refused; a list may be split."""
    again = request().split(name.encode() + b": ")[1].split(b"\r\n")[0]
    data = request().replace(b"\r\n\r\n", b"\r\n" + name.encode() + b": " + again + b"\r\n\r\n")
    status, _ = library(data, [])
    async with serving(Echo) as site:
        client = await site.raw()
        await client.send(data)
        assert (await client.head()).split()[1] == str(status).encode()
        await client.stream.aclose()
    assert status == (101 if name == "Connection" else 400)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.slow
async def test_curl_is_accepted() -> None:
    """Its headers have their own order, and it waits for more after the 101."""
    async with serve(echo, "127.0.0.1", 0) as server:
        command = [
            *("curl", "-s", "-i", "-N", "--http1.1", "--max-time", "1"),
            *("-H", "Connection: Upgrade", "-H", "Upgrade: websocket"),
            *(
                "-H",
                "Sec-WebSocket-Version: 13",
                "-H",
                "Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==",
            ),
            f"http://127.0.0.1:{server.port}/",
        ]
        done = await trio.run_process(command, capture_stdout=True, check=False)
    assert done.stdout.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
    assert b"\r\nSec-WebSocket-Accept: BACScCJPNqyz+UBoqMH89VmURoA=\r\n" in done.stdout


async def test_picows_is_accepted() -> None:
    """Its client checks the response in C."""
    picows = pytest.importorskip("picows")

    class Listener(picows.WSListener):  # type: ignore[misc, name-defined]
        messages: list[bytes]

        def on_ws_connected(self, transport: Any) -> None:
            transport.send(picows.WSMsgType.TEXT, b"hello")

        def on_ws_frame(self, transport: Any, frame: Any) -> None:
            self.messages = [frame.get_payload_as_bytes()]
            transport.disconnect()

    async def use(port: int | None) -> list[bytes]:
        transport, listener = await picows.ws_connect(Listener, f"ws://127.0.0.1:{port}/")
        await transport.wait_disconnected()
        return list(listener.messages)

    with trio.fail_after(300):
        async with serve(echo, "127.0.0.1", 0) as server:
            got = await trio.to_thread.run_sync(lambda: asyncio.run(use(server.port)))
    assert got == [b"hello"]
