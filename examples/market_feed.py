"""An exchange and a client that keeps 200 order books, over a network that fails every 3 seconds.

The exchange numbers the updates of each symbol, sends a snapshot after each subscription, accepts
5 messages per second, and sometimes stops sending although it answers pings.

    python examples/market_feed.py
    python examples/market_feed.py 120    (for two minutes)
"""

from __future__ import annotations

import logging
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import trio

from trioglock import (
    Backoff,
    Connection,
    ConnectionClosed,
    ConnectionInfo,
    Disconnect,
    Gap,
    MemoryListener,
    Rate,
    Reply,
    Socket,
    Subscriptions,
    connect,
    serve,
)
from trioglock.codecs import JSON
from trioglock.testing import FaultProxy

SYMBOLS = [f"SYM{number}" for number in range(200)]


class Exchange:
    """The server's data."""

    def __init__(self) -> None:
        self.numbers = dict.fromkeys(SYMBOLS, 0)
        self.clients: dict[Connection[set[str]], set[str]] = {}
        self.arrivals: list[float] = []

    async def trade(self) -> None:
        while True:
            await trio.sleep(0.005)
            symbol = random.choice(SYMBOLS)
            self.numbers[symbol] += 1
            for conn, symbols in list(self.clients.items()):
                if symbol in symbols:
                    try:
                        conn.send_nowait({"symbol": symbol, "number": self.numbers[symbol]})
                    except (trio.WouldBlock, ConnectionClosed):
                        conn.abort()  # the client is too slow, or has left


class ExchangeSocket(Socket[set[str]]):
    """The server's side of one connection. Its state is the set of subscribed symbols."""

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange

    def init_stream(self, info: ConnectionInfo) -> set[str]:
        self.conn, symbols = info.connection, set[str]()
        self.exchange.clients[self.conn] = symbols
        return symbols

    def handle_receive(self, message: Any, symbols: set[str]) -> tuple[Reply, set[str]]:
        self.exchange.arrivals.append(trio.current_time())
        symbols.update(message["subscribe"])
        snapshots = [
            {"symbol": symbol, "snapshot": self.exchange.numbers[symbol]}
            for symbol in message["subscribe"]
        ]
        return Reply({"subscribed": message["subscribe"]}, *snapshots), symbols

    def terminate(self, reason: Disconnect, symbols: set[str]) -> None:
        self.exchange.clients.pop(self.conn, None)


class Feed(Subscriptions[str, dict[str, Any]]):
    """What the client knows about the exchange."""

    batch = 20

    def subscribe(self, keys: Sequence[str]) -> list[Any]:
        return [{"subscribe": list(keys)}]

    def unsubscribe(self, keys: Sequence[str]) -> list[Any]:
        return []  # the exchange has no such message

    def key_of(self, message: dict[str, Any]) -> str | None:
        return message.get("symbol")

    def confirmed(self, message: dict[str, Any]) -> list[str] | None:
        return message.get("subscribed")


@dataclass
class Books:
    """The client's data: the number of the latest update of each symbol."""

    numbers: dict[str, int] = field(default_factory=dict)
    updates: int = 0
    gaps: int = 0
    unreported: int = 0

    async def watch(self, conn: Connection[None], symbol: str) -> None:
        async with conn.subscribe(symbol) as updates:
            async for update in updates:
                if isinstance(update, Gap):
                    self.gaps += 1
                    self.numbers.pop(symbol, None)  # a snapshot follows
                    continue
                self.updates += 1
                expected = self.numbers.get(symbol)
                if "snapshot" in update:
                    self.unreported += expected not in (None, update["snapshot"])
                    self.numbers[symbol] = update["snapshot"]
                elif expected is not None:
                    self.unreported += update["number"] != expected + 1
                    self.numbers[symbol] = update["number"]


async def run(seconds: float, *, memory: bool = False) -> tuple[Exchange, Books]:
    exchange, books, listener = Exchange(), Books(), MemoryListener()
    where: Any = {"listeners": [listener]} if memory else {"host": "127.0.0.1", "port": 0}
    async with serve(lambda: ExchangeSocket(exchange), codec=JSON(), **where) as server:
        target = listener.open_stream if memory else ("127.0.0.1", server.port)
        async with (
            FaultProxy(target, memory=memory) as proxy,
            connect(
                proxy.url,
                codec=JSON(),
                stream=proxy.open_stream,
                subscriptions=Feed(),
                send_rate=Rate(5, per=1.0),
                stall_timeout=1,
                reconnect=Backoff(initial=0.2, maximum=0.2, max_attempts=None),
                name="feed",
            ) as conn,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(exchange.trade)
            for symbol in SYMBOLS:
                nursery.start_soon(books.watch, conn, symbol)
            end = trio.current_time() + seconds
            while trio.current_time() < end:
                await trio.sleep(3)
                proxy.disconnect()
                await trio.sleep(2.5)
                exchange.clients.clear()  # no more updates for this link
            await trio.sleep(5)
            nursery.cancel_scope.cancel()
    return exchange, books


def most_in_a_second(times: list[float]) -> int:
    return max(sum(start <= time <= start + 1 for time in times) for start in times)


async def main(seconds: float) -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    exchange, books = await run(seconds)
    print(f"{books.updates} updates, {books.gaps} gaps, {books.unreported} of them not reported")
    print(f"at most {most_in_a_second(exchange.arrivals)} messages per second")
    current = sum(books.numbers.get(symbol) == exchange.numbers[symbol] for symbol in SYMBOLS)
    print(f"{current} of {len(SYMBOLS)} books are complete")


if __name__ == "__main__":
    trio.run(main, float(sys.argv[1]) if len(sys.argv) > 1 else 8.0)
