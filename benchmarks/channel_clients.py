"""Many clients of one channels server: ``python -m benchmarks.channel_clients``, on picows.

The process writes its process id when it is ready. Then it reads lines of JSON, each the name of a
function and its arguments, and writes what the function returns. It ends when its standard input is
closed.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import uvloop
from picows import WSCloseCode, WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

from .clients import CONCURRENT_CONNECTS, HANDSHAKE_SECONDS, OFFER, standard_input, write_line
from .descriptors import raise_limit

__all__ = ["main"]

PING, PONG = b"2", b"3"
"""The heartbeat of socket.io, which begins with the server."""

HEARTBEAT_SECONDS = 30
"""The default of Phoenix clients."""

NEVER = b"\0"


class Client(WSListener):
    """One client. It looks for a mark in each message."""

    def __init__(self) -> None:
        self.mark = NEVER
        self.found: Callable[[int], object] = int
        """Called with the number of marks in a message."""

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        data = frame.get_payload_as_bytes()
        if data == PING:
            transport.send(WSMsgType.TEXT, PONG)
        elif self.mark in data:
            self.found(data.count(self.mark))

    def send(self, text: str) -> None:
        self.transport.send(WSMsgType.TEXT, text.encode())


class Reader(Client):
    """A client that receives a number of marks as soon as it is connected."""

    def __init__(self, mark: bytes, count: int) -> None:
        super().__init__()
        self.mark, self.found = mark, self._found
        self.complete = asyncio.Event()
        self._missing = count
        self._found(0)

    def _found(self, count: int) -> None:
        self._missing -= count
        if self._missing <= 0:
            self.complete.set()


class Clients:
    """The functions that the other process calls."""

    def __init__(self) -> None:
        self._clients: list[Client] = []
        self._watching: asyncio.Future[None] | None = None
        self._beating: asyncio.Task[None] | None = None

    async def open(self, url: str, count: int, greeting: str, greeted: str) -> None:
        """Connect more clients. A place for the number of the client may be in the URL."""
        for start in range(0, count, CONCURRENT_CONNECTS):
            many = min(CONCURRENT_CONNECTS, count - start)
            urls = [url.replace("{c}", str(len(self._clients) + at)) for at in range(many)]
            clients = await asyncio.gather(*(_connect(one) for one in urls))
            if greeting:
                await asyncio.gather(*(_ask(c, [greeting], greeted) for c in clients))
            self._clients += clients

    async def visit(self, urls: list[str], marks: list[int], mark: str) -> None:
        """Connect a browser to each URL, until it has received its marks; then close them all."""
        ready = asyncio.Semaphore(CONCURRENT_CONNECTS)

        async def visit(url: str, count: int) -> Client:
            async with ready:
                reader = Reader(mark.encode(), count)
                client = await _connect(url, lambda: reader, OFFER)
                await reader.complete.wait()
                return client

        clients = await asyncio.gather(*map(visit, urls, marks))
        for client in clients:
            client.transport.send_close(WSCloseCode.GOING_AWAY)
        await asyncio.gather(*(client.transport.wait_disconnected() for client in clients))

    async def ask(
        self,
        text: str,
        reply: str,
        *,
        first: int = 0,
        count: int = 1,
        clients: tuple[int, int | None] = (0, None),
        interval: float = 0,
        wait: bool = False,
    ) -> float:
        """Let clients send ``count`` messages each, one after the reply to the other.

        Args:
            text: the message, with the places of dialects.py.
            reply: what a reply contains.
            first: the number of the first message.
            count: the number of messages.
            clients: which clients, as in a slice.
            interval: seconds between the beginnings of two clients.
            wait: also wait until the marks of ``watch`` were received.

        Returns:
            The seconds.
        """
        numbers = [text.replace("{n}", str(first + at)) for at in range(count)]
        chosen = list(enumerate(self._clients))[slice(*clients)]
        began = time.perf_counter()
        asking = []
        for at, client in chosen:
            texts = [one.replace("{c}", str(at)) for one in numbers] if "{c}" in text else numbers
            asking.append(_ask(client, texts, reply))
            if interval:
                await asyncio.sleep(interval)
        await asyncio.gather(*asking)
        if wait:
            await self.wait()
        return time.perf_counter() - began

    async def watch(self, mark: str, total: int, clients: tuple[int, int | None]) -> None:
        """Begin to count the marks that some clients receive, until there are ``total``."""
        self._watching = done = asyncio.get_running_loop().create_future()
        counted = 0

        def found(count: int) -> None:
            nonlocal counted
            counted += count
            if counted == total:
                done.set_result(None)

        for client in self._clients[slice(*clients)]:
            client.mark, client.found = mark.encode(), found

    async def wait(self) -> None:
        """Wait until the marks of ``watch`` were received."""
        assert self._watching is not None
        await self._watching

    async def beat(self, text: str) -> None:
        """Begin to send heartbeats, evenly distributed over time."""
        self._beating = asyncio.create_task(self._beat(text))

    async def _beat(self, text: str) -> None:
        number = 0
        while True:
            for client in self._clients:
                client.send(text.replace("{n}", str(number)))
                await asyncio.sleep(HEARTBEAT_SECONDS / len(self._clients))
            number += 1


async def _connect(
    url: str, make: Callable[[], Client] = Client, headers: dict[str, str] | None = None
) -> Client:
    opened: Any = await ws_connect(
        make, url, extra_headers=headers, websocket_handshake_timeout=HANDSHAKE_SECONDS
    )
    client: Client = opened[1]
    return client


def _ask(client: Client, texts: list[str], reply: str) -> asyncio.Future[None]:
    done = asyncio.get_running_loop().create_future()
    left = iter(texts)

    def found(_: int) -> None:
        text = next(left, None)
        if text is not None:
            client.send(text)
        else:
            client.mark = NEVER
            done.set_result(None)

    client.mark, client.found = reply.encode(), found
    client.send(next(left))
    return done


async def main() -> None:
    """Call functions until standard input ends."""
    raise_limit()
    lines = await standard_input()
    write_line(os.getpid())
    clients: Any = Clients()
    while line := await lines.readline():
        name, arguments = json.loads(line)
        write_line(await getattr(clients, name)(**arguments))
    sys.stdout.flush()


if __name__ == "__main__":
    uvloop.run(main())
