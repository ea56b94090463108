"""Treat a connection as a stream of messages: loop, derive streams, receive batches.

The loop ends normally when the server closes with 1000, 1001 or no code, and raises
ConnectionClosedError otherwise.

    python examples/stream_of_messages.py
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

import trio

from trioglock import Connection, ConnectionClosedOK, Socket, connect
from trioglock.testing import MockPeer, MockServer


class Prices(Socket[None, int]):
    def handle_receive(self, frame: str, state: None) -> tuple[int, None]:
        return int(frame), state


async def changes(conn: Connection[None, int]) -> AsyncGenerator[tuple[int, int]]:
    """A derived stream: each price that changed, with the previous one."""
    last: int | None = None
    async for price in conn:
        if last is not None and price != last:
            yield last, price
        last = price


async def watch_changes(url: str) -> None:
    async with connect(url, Prices()) as conn, aclosing(changes(conn)) as stream:
        async for before, now in stream:
            print(f"{before} -> {now} ({now - before:+})")
    print(f"the market closed: {conn.close_reason}")


async def average_in_batches(url: str) -> None:
    """Receive all available messages at once: one wait for many messages."""
    total = count = 0
    async with connect(url, Prices()) as conn:
        try:
            while True:
                batch = await conn.receive_batch()
                total += sum(batch)
                count += len(batch)
        except ConnectionClosedOK:
            print(f"{count} prices, {total / count:.2f} on average")


async def market(peer: MockPeer) -> None:
    """The server: a few prices, then the end of the day."""
    for price in (100, 100, 103, 103, 101, 105):
        await peer.send(str(price))
    await peer.close(1000, "end of the day")


async def main() -> None:
    async with MockServer(market) as server:
        await watch_changes(server.url)
        await average_in_batches(server.url)


if __name__ == "__main__":
    trio.run(main)
