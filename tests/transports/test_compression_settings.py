"""compression=Deflate(...): what is negotiated, and what is sent, with the websockets library."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from functools import partial
from threading import Thread
from typing import Any

import pytest
import trio
from websockets.extensions.permessage_deflate import (
    ClientPerMessageDeflateFactory,
    PerMessageDeflate,
    ServerPerMessageDeflateFactory,
)
from websockets.sync.client import connect as library_connect
from websockets.sync.server import serve as library_serve

from trioglock import (
    Connection,
    Deflate,
    InvalidHandshake,
    InvalidOption,
    PreparedMessage,
    TrioWebsocketTransport,
    connect,
    serve,
)
from trioglock.options import Compression, check_compression
from trioglock.transports import MemoryTransport

URL = "ws://memory.test/"
TEXT = "a text that is repeated " * 20
# It compresses well only with a large window: it repeats after 8 KiB.
FAR = random.Random(1).randbytes(2**13) * 2

SERVER = partial(ServerPerMessageDeflateFactory, compress_settings={"memLevel": 5})
CLIENT = partial(ClientPerMessageDeflateFactory, compress_settings={"memLevel": 5})


@contextmanager
def library_echo(factory: ServerPerMessageDeflateFactory | None) -> Iterator[tuple[str, list[Any]]]:
    """A server of websockets that echoes; its connections are appended to the list."""
    accepted: list[Any] = []

    def echo(websocket: Any) -> None:
        accepted.append(websocket)
        for message in websocket:
            websocket.send(message)

    with library_serve(
        echo, "127.0.0.1", 0, compression=None, extensions=[factory] if factory else None
    ) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}/", accepted
        finally:
            server.shutdown()
            thread.join()


async def exchange(conn: Connection[Any]) -> int:
    """Echo messages of all kinds; return the number of bytes sent for the last of them."""
    for message in (TEXT, "", b"short", FAR, TEXT):
        before = conn.statistics().bytes_sent
        await conn.send(message)
        assert await conn.receive() == message
    return conn.statistics().bytes_sent - before


def header(headers: Any) -> str:
    return str(headers.get("Sec-WebSocket-Extensions", ""))


def parameters(extension: PerMessageDeflate) -> tuple[bool, bool, int, int]:
    """No takeover and window of the peer, and of the library."""
    return (
        extension.remote_no_context_takeover,
        extension.local_no_context_takeover,
        extension.remote_max_window_bits,
        extension.local_max_window_bits,
    )


OFFERS = [
    (Deflate(), "client_max_window_bits", (False, False, 15, 15)),
    (Deflate(level=9, memory_level=9), "client_max_window_bits", (False, False, 15, 15)),
    (Deflate(window_bits=9), "client_max_window_bits=9", (False, False, 9, 15)),
    (Deflate(window_bits=15), "", (False, False, 15, 15)),
    (
        Deflate(no_context_takeover=True),
        "client_no_context_takeover; client_max_window_bits",
        (True, False, 15, 15),
    ),
    (
        Deflate(peer_window_bits=10),
        "server_max_window_bits=10; client_max_window_bits",
        (False, False, 15, 10),
    ),
    (
        Deflate(peer_no_context_takeover=True),
        "server_no_context_takeover; client_max_window_bits",
        (False, True, 15, 15),
    ),
]


@pytest.mark.parametrize(("settings", "offer", "agreed"), OFFERS)
async def test_a_client_offers_and_follows_its_settings(
    settings: Deflate, offer: str, agreed: tuple[bool, bool, int, int]
) -> None:
    with trio.fail_after(300), library_echo(SERVER()) as (url, accepted):
        async with connect(url, compression=settings) as conn:
            assert conn.handshake is not None
            assert header(conn.handshake.request_headers) == f"permessage-deflate; {offer}".rstrip(
                "; "
            )
            await exchange(conn)
            assert parameters(accepted[0].protocol.extensions[0]) == agreed


ANSWERS = [
    (Deflate(), "server_max_window_bits=12; client_max_window_bits=12"),
    (Deflate(window_bits=10), "server_max_window_bits=10; client_max_window_bits=12"),
    (Deflate(window_bits=15), "client_max_window_bits=12"),
    (Deflate(peer_window_bits=9), "server_max_window_bits=12; client_max_window_bits=9"),
    (Deflate(peer_window_bits=15), "server_max_window_bits=12"),
    (
        Deflate(no_context_takeover=True, window_bits=15, peer_window_bits=15),
        "server_no_context_takeover",
    ),
    (
        Deflate(peer_no_context_takeover=True, window_bits=15, peer_window_bits=15),
        "client_no_context_takeover",
    ),
]


async def echo(conn: Connection[Any]) -> None:
    async for message in conn:
        await conn.send(message)


@asynccontextmanager
async def library_client(
    settings: Deflate, factory: ClientPerMessageDeflateFactory, target: Any = echo
) -> AsyncIterator[Any]:
    async with serve(target, "127.0.0.1", 0, compression=settings) as server:
        open_client = partial(
            library_connect,
            f"ws://127.0.0.1:{server.port}/",
            compression=None,
            extensions=[factory],
            proxy=None,
        )
        with ExitStack() as stack:
            yield await trio.to_thread.run_sync(lambda: stack.enter_context(open_client()))
            await trio.to_thread.run_sync(stack.close)


@pytest.mark.parametrize(("settings", "answer"), ANSWERS)
async def test_a_server_answers_and_follows_its_settings(settings: Deflate, answer: str) -> None:
    def talk(client: Any) -> None:
        for message in (TEXT, "", b"short", FAR, TEXT):
            client.send(message)
            assert client.recv(timeout=5) == message

    with trio.fail_after(300):
        async with library_client(settings, CLIENT(client_max_window_bits=True)) as client:
            assert header(client.response.headers) == f"permessage-deflate; {answer}"
            await trio.to_thread.run_sync(talk, client)


async def test_the_smaller_of_both_limits_applies() -> None:
    offer = CLIENT(server_max_window_bits=9, client_max_window_bits=10)
    settings = Deflate(window_bits=11, peer_window_bits=14)
    async with library_client(settings, offer) as client:
        assert header(client.response.headers) == (
            "permessage-deflate; server_max_window_bits=9; client_max_window_bits=10"
        )


async def test_a_client_that_supports_no_limit_is_accepted() -> None:
    settings = Deflate(peer_window_bits=9)
    async with library_client(settings, CLIENT(client_max_window_bits=None)) as client:
        assert "client_max_window_bits" not in header(client.response.headers)
        assert "permessage-deflate" in header(client.response.headers)


async def test_a_server_that_does_not_compress() -> None:
    with library_echo(None) as (url, _):
        async with connect(url, compression=Deflate(peer_window_bits=9)) as conn:
            assert conn.handshake is not None
            assert conn.handshake.extensions == ()


class Ignores(ServerPerMessageDeflateFactory):
    """Violates RFC 7692, section 7.1.2.1: a server may not accept and ignore a limit."""

    def process_request_params(self, params: Any, accepted_extensions: Any) -> Any:
        kept = [one for one in params if not one[0].startswith("server_max")]
        return super().process_request_params(kept, accepted_extensions)


async def test_a_server_that_ignores_a_limit_violates_the_protocol() -> None:
    with (
        library_echo(Ignores()) as (url, _),
        pytest.raises(InvalidHandshake, match="Unsupported extension: name = permessage-deflate"),
    ):
        async with connect(url, compression=Deflate(peer_window_bits=9)):
            pass


# What is sent.


async def sent_size(*messages: Any, **settings: Any) -> int:
    """The bytes that a client sends for the last message."""
    with library_echo(SERVER()) as (url, _):
        async with connect(url, compression=Deflate(**settings)) as conn:
            before = 0
            for message in messages:
                before = conn.statistics().bytes_sent
                await conn.send(message)
                await conn.receive()
            return conn.statistics().bytes_sent - before


async def test_each_setting_changes_what_is_sent() -> None:
    with trio.fail_after(300):
        assert (
            await sent_size(TEXT, TEXT) < 20 < await sent_size(TEXT, TEXT, no_context_takeover=True)
        )
        assert await sent_size(FAR, window_bits=15) < 9000
        assert await sent_size(FAR, window_bits=12) > 16000
        words = " ".join(random.Random(2).choices(["one", "two", "three", "four"], k=3000))
        assert await sent_size(words, level=9) < await sent_size(words, level=1)
        assert await sent_size(words, memory_level=9) < await sent_size(words, memory_level=1)


@pytest.mark.parametrize("message", ["x" * 99, b"x" * 99, "x" * 100])
async def test_short_messages_are_not_compressed(message: Any) -> None:
    size = await sent_size(message, min_size=100)
    assert (size == 6 + len(message)) == (len(message) < 100)


async def test_shared_messages_follow_the_settings_of_each_server() -> None:
    """The same message is compressed differently on two servers, and not at all if asked to."""
    message, plain = PreparedMessage(TEXT), PreparedMessage(TEXT, compress=False)

    async def sizes(settings: Deflate) -> tuple[int, int]:
        counted: list[int] = []

        async def send(conn: Connection[Any]) -> None:
            for each in (message, plain):
                before = conn.statistics().bytes_sent
                await conn.send(each)
                await conn.flush()
                counted.append(conn.statistics().bytes_sent - before)
            await conn.wait_closed()

        async with library_client(settings, CLIENT(), send) as client:
            for _ in range(2):
                assert await trio.to_thread.run_sync(client.recv) == TEXT
        return counted[0], counted[1]

    whole = 4 + len(TEXT)
    with trio.fail_after(300):
        compressed, uncompressed = await sizes(Deflate())
        assert (compressed < 60, uncompressed) == (True, whole)
        assert await sizes(Deflate(min_size=1000)) == (whole, whole)
        await sizes(Deflate(level=1))
        assert len(message.compressed) == 2
        assert plain.compressed == {}


# Options.


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"level": 0}, "level must be a whole number from 1 to 9, not 0; use compression=None"),
        ({"level": "best"}, "level must be a whole number from 1 to 9, not 'best'"),
        ({"window_bits": 8}, "from 9 to 15, not 8; zlib cannot compress with 8 bits"),
        ({"window_bits": 16}, "window_bits must be a whole number from 9 to 15, not 16"),
        ({"window_bits": True}, "window_bits must be a whole number from 9 to 15, not True"),
        ({"memory_level": 10}, "memory_level must be a whole number from 1 to 9, not 10"),
        ({"memory_level": None}, "memory_level must be a whole number from 1 to 9, not None"),
        ({"peer_window_bits": 8}, "peer_window_bits must be a whole number from 9 to 15, not 8; z"),
        ({"min_size": -1}, "min_size must be at least 0, not -1"),
        ({"min_size": None}, "min_size must be a whole number"),
        ({"no_context_takeover": 1}, "no_context_takeover must be True or False, not 1"),
        ({"peer_no_context_takeover": None}, "peer_no_context_takeover must be True or False"),
    ],
)
def test_bad_settings_name_what_is_allowed(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidOption) as caught:
        Deflate(**given)
    assert message in str(caught.value)


def test_values_of_the_option() -> None:
    values: list[Compression] = [None, "deflate", Deflate(window_bits=9, peer_window_bits=9)]
    for value in values:
        check_compression(value)
        connect(URL, compression=value)
        serve(echo, "127.0.0.1", 0, compression=value)
    for wrong in ({"level": 1}, Deflate, 9, ""):
        for call in (partial(connect, URL), partial(serve, echo, "127.0.0.1", 0)):
            with pytest.raises(InvalidOption, match=r"a trioglock\.Deflate or None"):
                call(compression=wrong)  # type: ignore[arg-type]


def test_a_transport_without_compression_refuses_settings() -> None:
    transport = TrioWebsocketTransport()
    values: list[Compression] = [None, "deflate", Deflate()]
    for value in values:
        connect(URL, compression=value, transport=transport)
    with pytest.raises(InvalidOption, match="TrioWebsocketTransport has no compression"):
        connect(URL, compression=Deflate(level=1), transport=transport)
    with pytest.raises(InvalidOption, match="TrioWebsocketTransport has no compression"):
        serve(echo, "127.0.0.1", 0, compression=Deflate(level=1), transport=transport)
    connect(URL, compression=Deflate(level=1), transport=MemoryTransport())
