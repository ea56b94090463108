"""Text from a peer is never interned: on CPython 3.12.0 to 3.12.6 it would never be freed."""

from __future__ import annotations

import secrets
import sys

import pytest
import trio

from tests.server import helpers
from tests.server.helpers import request, serving
from tests.transports.servers import (
    URL,
    MakeTransport,
    answering,
    close,
    connect_error,
    memory_server,
    on_both,
    read_request,
    response,
    upgrade,
)
from trioglock import Connection, HandshakeRefused, Request, Response, connect
from trioglock.codecs import JSON
from trioglock.pubsub import Hub


def is_interned(text: str) -> bool:
    copy = "".join(list(text))
    assert copy is not text
    return sys.intern(copy) is not copy


def some_texts() -> list[str]:
    """Unlike literals, these are not interned; like identifiers, they might be."""
    texts = [f"x{secrets.token_hex(10)}" for _ in range(8)]
    assert is_interned(sys.intern(texts.pop()))
    return texts


@helpers.on_both
@pytest.mark.parametrize("status", [101, 404, 400])
async def test_fault_37_nothing_of_a_client_is_interned(
    status: int, transport: helpers.MakeTransport
) -> None:
    """Of an upgrade, a page, and a request that is refused."""
    name, value, cookie, path, key, protocol, parameter = some_texts()
    seen: list[object] = []

    def process(asked: Request) -> Response | None:
        seen.append((asked, dict(asked.headers), asked.headers[name], asked.path, asked.query))
        return None if status == 101 else Response(status)

    async def handler(conn: Connection[None]) -> None:
        seen.append((conn.url, conn.handshake, str(conn.status_report())))

    data = request(
        f"/{path}?{key}={value}",
        **{name: value, name.title(): value},
        Cookie=f"{cookie}={cookie}",
        Sec_WebSocket_Protocol=protocol,
        Sec_WebSocket_Extensions=f"{parameter}; {parameter}={parameter}, permessage-deflate",
        Host=f"{value}.test" if status != 400 else f"{value}/",
    )
    async with serving(handler, transport=transport(), process_request=process) as site:
        client = await site.raw()
        await client.send(data)
        assert (await client.head()).startswith(f"HTTP/1.1 {status} ".encode())
        await client.stream.aclose()
    assert seen
    every = (name, value, cookie, path, key, protocol, parameter)
    texts = [*every, *(text.lower() for text in every), *(text.title() for text in every)]
    assert [text for text in texts if is_interned(text)] == []


@on_both
async def test_fault_37_nothing_of_a_server_is_interned(
    transport: MakeTransport, autojump_clock: object
) -> None:
    """Of a response, and of a refusal."""
    name, value, cookie, protocol, *_ = some_texts()
    headers = (f"{name}: {value}", f"Set-Cookie: {cookie}={cookie}")

    async def script(stream: trio.abc.Stream) -> None:
        await stream.send_all(upgrade(await read_request(stream), *headers))
        await close(stream)

    async with (
        memory_server(script) as stream,
        connect(URL, stream=stream, transport=transport()) as conn,
    ):
        assert conn.handshake is not None
        assert conn.handshake.response_headers[name] == value
    error, _ = await connect_error(answering(response("401 No", *headers)), transport)
    assert isinstance(error, HandshakeRefused)
    assert error.headers[name] == value
    chosen = response("101 Switching Protocols", f"Sec-WebSocket-Protocol: {protocol}")
    await connect_error(answering(chosen), transport)
    texts = (name, value, cookie, protocol)
    assert [text for text in texts if is_interned(text) or is_interned(text.title())] == []


async def test_fault_37_neither_channels_nor_keys_of_messages_are_interned() -> None:
    """A client chooses both."""
    channel, key, value, *_ = some_texts()
    hub = Hub()
    async with hub, serving(hub.socket) as site, site.dial(f"/{channel}?after=") as conn:
        await hub.publish(f'{{"{key}": "{value}"}}', channel=channel)
        event = {}
        while "data" not in event:
            event = JSON().decode(await conn.receive())
        message = JSON().decode(event["data"])
        assert (event["channel"], message) == (channel, {key: value})
    assert [text for text in (channel, key, value) if is_interned(text)] == []
