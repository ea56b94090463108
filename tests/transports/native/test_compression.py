"""Compression on real connections: shared messages, memory of idle ones, and hostile peers."""

from __future__ import annotations

import gc
import os
import socket
import struct
import sys
import tracemalloc
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing
from websockets.extensions.permessage_deflate import (
    ClientPerMessageDeflateFactory,
    PerMessageDeflate,
)
from websockets.frames import Frame, Opcode
from websockets.sync.client import connect as library_connect

from tests.connection.test_reference_cycles import interpreter_keeps_callers
from tests.transports.native.frame_bytes import (
    BINARY,
    CLOSE,
    CONT,
    FIN,
    PING,
    RSV1,
    TEXT,
    drain,
    flat,
    frame,
    new_deflate,
    packed,
    traced_memory,
)
from tests.transports.servers import (
    client_context,
    hold,
    read_request,
    server_context,
    serving,
    upgrade,
)
from trioglock import PreparedMessage, Reply, Socket, broadcast, connect, serve
from trioglock.frames import Close, Violation
from trioglock.transports.base import Handshake, LinkBroken
from trioglock.transports.native import Decoder, DeflateStreams, Encoder
from trioglock.transports.native.decoder import FRAME_BUDGET, INFLATE_BUDGET
from trioglock.transports.native.link import NativeLink

REQUEST = (
    b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Extensions: permessage-deflate\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)

ORDERS = [f'{{"order": {number}, "price": {number * 1.37:.2f}}} ' * 9 for number in range(12)]


# Messages shared by connections.


def library_inflater(bits: int, *, takeover: bool) -> Any:
    """A function that inflates a frame as websockets does."""
    extension = PerMessageDeflate(not takeover, False, bits, 15)

    def inflate(wire: bytes) -> bytes:
        start = 2 if wire[1] < 126 else 4
        received = Frame(Opcode(wire[0] & 0xF), wire[start:], True, bool(wire[0] & RSV1))
        return bytes(extension.decode(received).data)

    return inflate


@pytest.mark.parametrize("takeover", [True, False])
@pytest.mark.parametrize("bits", [9, 12, 15])
def test_shared_and_own_messages_alternate(bits: int, takeover: bool) -> None:
    """The peer's window has both; what we compress after a shared message refers to neither."""
    encoder = Encoder(
        mask=False, deflate=DeflateStreams(PerMessageDeflate(False, not takeover, 15, bits))
    )
    inflate = library_inflater(bits, takeover=takeover)
    ours = Decoder(masked=False, max_size=None, deflate=new_deflate())
    for number, order in enumerate(ORDERS * 8):
        sent = PreparedMessage(order) if number * 7 % 5 < 2 else order
        wire = encoder.encode([sent])
        assert wire[0] == FIN | RSV1 | TEXT
        assert inflate(wire) == order.encode()
        if takeover and bits == 15:
            assert flat(ours.feed(wire)) == [order]


def test_a_shared_message_is_compressed_once_for_each_window() -> None:
    """Connections with the same window get the same bytes object, masked ones their own."""
    message = PreparedMessage(ORDERS[0])
    wires = []
    for bits in (12, 12, 15):
        encoder = Encoder(
            mask=False, deflate=DeflateStreams(PerMessageDeflate(False, False, 15, bits))
        )
        [wire] = encoder.encode_buffers([message])
        assert wire[0] == FIN | RSV1 | TEXT
        assert len(wire) < message.size // 3
        wires.append(wire)
    assert wires[0] is wires[1]
    assert wires[0] is not wires[2]
    plain = Encoder(mask=False, deflate=None).encode([message])
    assert plain == frame(TEXT, ORDERS[0].encode())
    masked = Encoder(mask=True, deflate=new_deflate()).encode([message])
    assert flat(Decoder(masked=True, max_size=None, deflate=None).feed(masked)) == [ORDERS[0]]


@pytest.mark.parametrize(
    "message",
    [b"x" * 100, os.urandom(1000), os.urandom(2**17)],
    ids=["too short", "noise", "much noise"],
)
def test_a_shared_message_that_compresses_badly_is_sent_plain(message: bytes) -> None:
    """Also next to other frames, and the connection's own window survives it."""
    encoder = Encoder(mask=False, deflate=new_deflate())
    encoder.encode([ORDERS[0]])
    assert encoder.encode([PreparedMessage(message)]) == frame(BINARY, message)
    assert encoder.encode(["", PreparedMessage(message)]).endswith(frame(BINARY, message))
    assert len(encoder.encode([ORDERS[0]])) < 20


@pytest.mark.parametrize("takeover", [True, False], ids=["context takeover", "no context takeover"])
async def test_clients_of_another_library_read_broadcasts(takeover: bool) -> None:
    """A client of websockets gets broadcasts between replies, over one compressed connection."""

    class Echo(Socket[None]):
        def handle_receive(self, frame: Any, state: None) -> Any:
            if frame in ORDERS:
                for order in ORDERS[:6]:
                    server.broadcast(order)
            return Reply(frame), state

    def talk() -> list[Any]:
        extension = ClientPerMessageDeflateFactory(server_no_context_takeover=not takeover)
        url = f"ws://127.0.0.1:{server.port}/"
        with library_connect(url, extensions=[extension], compression=None) as client:
            assert client.protocol.extensions
            client.send("ready")
            assert client.recv(timeout=20) == "ready"
            received = []
            for order in ORDERS:
                client.send(order)
                received += [client.recv(timeout=20) for _ in range(7)]
        return received

    with trio.fail_after(300):
        async with serve(Echo, "127.0.0.1", 0) as server:
            received = await trio.to_thread.run_sync(talk)
    expected = [text for order in ORDERS for text in (*ORDERS[:6], order)]
    assert sorted(received) == sorted(expected)


# Memory.


@pytest.mark.slow
async def test_compression_costs_an_idle_connection_little() -> None:
    """At most 2 KiB for both ends together, before the first compressed message."""
    count = 20

    async def used(compression: Any) -> float:
        async with (
            serve(Socket, "127.0.0.1", 0, compression=compression) as server,
            trio.open_nursery() as nursery,
        ):

            async def stay(task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
                url = f"ws://127.0.0.1:{server.port}/"
                async with connect(url, compression=compression) as conn:
                    await conn.ping()
                    task_status.started()
                    await trio.sleep_forever()

            await nursery.start(stay)
            gc.collect()
            before = tracemalloc.get_traced_memory()[0]
            for _ in range(count):
                await nursery.start(stay)
            gc.collect()
            after = tracemalloc.get_traced_memory()[0]
            nursery.cancel_scope.cancel()
        return (after - before) / count

    with trio.fail_after(300):
        tracemalloc.start()
        try:
            await used(None)
            assert await used("deflate") - await used(None) < 2048
        finally:
            tracemalloc.stop()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["text", "binary", "deflate"])
def test_fault_38_a_message_in_tiny_pieces_takes_little_memory(kind: str) -> None:
    """A small factor of the message, however small its fragments or its chunks are."""
    size = 2  # two bytes are the smallest new object
    message = os.urandom(2**13).hex().encode()
    payload = packed(message)[0] if kind == "deflate" else message
    first = {"text": TEXT, "binary": BINARY, "deflate": TEXT | RSV1}[kind]
    wire = bytearray()
    for at in range(0, len(payload), size):
        head = first if at == 0 else CONT
        wire += frame(head & 0xF, payload[at : at + size], fin=False, rsv=head & RSV1, masked=True)
    decoder = Decoder(masked=True, max_size=2**20, deflate=new_deflate())
    whole = Decoder(masked=True, max_size=2**20, deflate=None)
    with traced_memory() as measure:
        for at in range(0, len(wire), 1000):
            assert drain(decoder, bytes(wire[at : at + 1000])) == []
        one_frame = frame(BINARY, message, masked=True)
        for at in range(0, len(one_frame) - 1, size):
            assert whole.feed(one_frame[at : min(at + size, len(one_frame) - 1)]) == []
        kept, _ = measure()
    assert kept < 4 * len(message) + 2**17
    expected = message if kind == "binary" else message.decode()
    assert drain(decoder, frame(CONT, masked=True)) == [expected]
    assert whole.feed(one_frame[-1:]) == [[message]]


@pytest.mark.parametrize("how", ["server.broadcast()", "broadcast()", "TLS", "deflate"])
async def test_fault_45_a_broadcast_is_shared_by_connections_that_are_behind(how: str) -> None:
    """What their sockets have not accepted is not copied for each of them."""
    count, size = 10, 2**22
    async with serve(
        Socket,
        "127.0.0.1",
        0,
        compression="deflate" if how == "deflate" else None,
        ssl_context=server_context() if how == "TLS" else None,
        write_limit=2**24,
    ) as server:
        streams: list[trio.abc.Stream] = []
        with trio.fail_after(300):
            for _ in range(count):
                stream: trio.abc.Stream
                stream = await trio.open_tcp_stream("127.0.0.1", server.port or 0)
                if how == "TLS":
                    stream = trio.SSLStream(stream, client_context(), server_hostname="127.0.0.1")
                await stream.send_all(REQUEST)
                assert (await stream.receive_some()).startswith(b"HTTP/1.1 101")
                streams.append(stream)
            await trio.testing.wait_all_tasks_blocked(0.05)
            message = os.urandom(size // 2).hex()
            tracemalloc.start()
            try:
                if how == "broadcast()":
                    assert broadcast(server.connections, message) == (count, 0, 0)
                else:
                    assert server.broadcast(message) == count
                await trio.sleep(0.1)
                peak = tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
            assert peak < 4 * size
            for stream in streams:
                await trio.aclose_forcefully(stream)


# Bombs.


class Turns(Socket[None]):
    """Counts the turns of another task, and records the current one for each message."""

    def __init__(self) -> None:
        self.turns = 0
        self.received: list[int] = []

    def handle_receive(self, frame: Any, state: None) -> Any:
        self.received.append(self.turns)
        return None, state

    def handle_ping(self, payload: bytes, state: None) -> Any:
        self.received.append(self.turns)
        return None, state

    async def tick(self) -> None:
        while True:
            self.turns += 1
            await trio.lowlevel.checkpoint()

    async def receive(self, send: Callable[[], Awaitable[None]], count: int) -> int:
        """Send something, wait for a number of messages, and return the turns meanwhile."""
        started = self.turns
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.tick)
            await send()
            while len(self.received) < count:
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        return self.turns - started


async def bomb_server(socket: Turns, chunk: bytes, count: int, *, tls: bool) -> int:
    context = server_context() if tls else None
    async with serve(lambda: socket, "127.0.0.1", 0, max_size=2**26, ssl_context=context) as server:
        stream: trio.abc.Stream = await trio.open_tcp_stream("127.0.0.1", server.port or 0)
        if tls:
            stream = trio.SSLStream(stream, client_context(), server_hostname="127.0.0.1")
        await stream.send_all(REQUEST)
        assert b"permessage-deflate" in await stream.receive_some()
        turns = await socket.receive(lambda: stream.send_all(chunk), count)
        await trio.aclose_forcefully(stream)
    return turns


async def bomb_client(socket: Turns, chunk: bytes, count: int) -> int:
    async def script(stream: trio.abc.Stream) -> None:
        request = await read_request(stream)
        await stream.send_all(upgrade(request, "Sec-WebSocket-Extensions: permessage-deflate"))
        streams.append(stream)
        await hold(stream)

    streams: list[trio.abc.Stream] = []
    async with (
        serving(script) as port,
        connect(f"ws://127.0.0.1:{port}/", socket, max_size=2**26) as conn,
    ):
        turns = await socket.receive(lambda: streams[0].send_all(chunk), count)
        conn.abort()
    return turns


@pytest.mark.parametrize("whole", [False, True], ids=["many messages", "one message"])
@pytest.mark.parametrize("role", ["server", "server with TLS", "client"])
async def test_fault_42_other_tasks_run_while_bombs_are_inflated(role: str, whole: bool) -> None:
    """Between two turns of another task, at most two budgets are inflated."""
    size = 2**25 if whole else 2**16
    count = 1 if whole else 2**9
    [payload] = packed(b"x" * size)
    chunk = frame(BINARY, payload, rsv=RSV1, masked=role != "client") * count
    assert len(chunk) < 2**16
    socket = Turns()
    with trio.fail_after(30):
        if role == "client":
            turns = await bomb_client(socket, chunk, count)
        else:
            turns = await bomb_server(socket, chunk, count, tls=role == "server with TLS")
    received = socket.received
    assert turns >= size * count // INFLATE_BUDGET - 1
    most = max(received.count(turn) for turn in set(received))
    # Of two tasks that are ready, trio may run one at the end of a turn and first in the next.
    assert most <= 2 * (INFLATE_BUDGET // size) + 1


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("kind", ["pings", "fragments"])
async def test_fault_42_other_tasks_run_while_tiny_frames_are_decoded(kind: str, tls: bool) -> None:
    """Between two turns of another task, at most two budgets are decoded."""
    if kind == "pings":
        item, frames = frame(PING, masked=True), 1
    else:
        item, frames = frame(TEXT, b"a", fin=False, masked=True) + frame(CONT, masked=True), 2
    count = 60_000 // len(item)
    socket = Turns()
    with trio.fail_after(30):
        turns = await bomb_server(socket, item * count, count, tls=tls)
    assert turns >= count * frames // FRAME_BUDGET - 1
    most = max(socket.received.count(turn) for turn in set(socket.received))
    assert most <= 2 * FRAME_BUDGET // frames + 1


# The end of a link.


@interpreter_keeps_callers
@pytest.mark.parametrize(
    "end",
    [
        "closed",
        "corrupt",
        "reset",
        pytest.param(
            "write fails",
            marks=pytest.mark.skipif(sys.platform == "win32", reason="nothing is written at once"),
        ),
    ],
)
async def test_fault_39_a_link_that_has_ended_is_freed_at_once(end: str) -> None:
    """No reference cycle is left: it is freed while the collector is off."""
    near, far = socket.socketpair()
    gc.collect()
    before = _count_parts()
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(near))
    decoder = Decoder(masked=False, max_size=None, deflate=new_deflate())
    encoder = Encoder(mask=True, deflate=new_deflate())
    link = NativeLink(stream, Handshake(url=""), decoder, encoder)
    assert _count_parts() == before + 3
    gc.disable()
    try:
        far.sendall(frame(TEXT, packed(b"hello")[0], rsv=RSV1))
        assert await link.receive() == [["hello"]]
        await link.write(["hello"])
        if end == "corrupt":
            far.sendall(frame(TEXT, packed(b"\xff")[0] + b"\xff", rsv=RSV1))
            [violation] = await link.receive()
            assert isinstance(violation, Violation)
        elif end == "closed":
            far.sendall(frame(TEXT, b"unfinished", fin=False) + frame(CLOSE))
            assert await link.receive() == [Close(1005)]
        if end == "write fails":
            far.close()
            while link.write_now(["lost"]):
                pass
            assert await _broken(link.write([]))
        else:
            far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            far.close()
            if end == "reset":
                assert await _broken(link.receive())
        await link.aclose()
        del link, decoder, encoder
        assert _count_parts() == before
    finally:
        gc.enable()


def _count_parts() -> int:
    """Count the parts of links that exist in this process."""
    return sum(isinstance(found, NativeLink | Decoder | Encoder) for found in gc.get_objects())


async def _broken(call: Awaitable[object]) -> bool:
    try:
        await call
    except LinkBroken:
        return True
    return False
