"""An exchange, and a client that follows 200 symbols over a network that fails every 3 seconds.

The exchange numbers the updates of each symbol, sends a snapshot after each subscription, accepts
5 messages per second, and sometimes stops sending data although it still answers pings. The program
runs for 6 seconds, or for the number of seconds in its argument.
"""

import logging
import random
import sys
from collections.abc import Sequence
from typing import Any

import trio

import trioglock
from trioglock import Backoff, ConnectionClosed, Gap, MemoryListener, Rate, connect, serve
from trioglock.codecs import JSON
from trioglock.testing import FaultProxy

SYMBOLS = [f"SYM{number}" for number in range(200)]
Connection = trioglock.Connection[None, Any]


class Exchange:
    def __init__(self) -> None:
        self.numbers = dict.fromkeys(SYMBOLS, 0)  # of the latest update of each symbol
        self.clients: dict[Connection, set[str]] = {}
        self.arrivals: list[float] = []  # when the clients' messages arrived

    async def handle(self, conn: Connection) -> None:
        symbols = self.clients[conn] = set()
        async for message in conn:
            self.arrivals.append(trio.current_time())
            symbols.update(message["subscribe"])
            conn.send_nowait({"subscribed": message["subscribe"]})
            for symbol in message["subscribe"]:
                conn.send_nowait({"symbol": symbol, "snapshot": self.numbers[symbol]})

    async def trade(self) -> None:
        while True:
            await trio.sleep(0.01)
            symbol = random.choice(SYMBOLS)  # noqa: S311 - not a secret
            number = self.numbers[symbol] = self.numbers[symbol] + 1
            for conn in [conn for conn, symbols in self.clients.items() if symbol in symbols]:
                try:
                    conn.send_nowait({"symbol": symbol, "number": number})
                except (ConnectionClosed, trio.WouldBlock):
                    self.clients.pop(conn)


class Feed(trioglock.Subscriptions[str, dict[str, Any]]):
    batch = 20

    def subscribe(self, keys: Sequence[str]) -> list[Any]:
        return [{"subscribe": list(keys)}]

    def unsubscribe(self, keys: Sequence[str]) -> list[Any]:
        return []  # the exchange has no such message

    def key_of(self, message: dict[str, Any]) -> str | None:
        return message.get("symbol")

    def confirmed(self, message: dict[str, Any]) -> list[str] | None:
        return message.get("subscribed")


class Client:
    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}
        self.updates = self.gaps = self.unreported = 0

    async def follow(self, conn: Connection, symbol: str) -> None:
        async with conn.subscribe(symbol) as updates:
            async for update in updates:
                latest = self.numbers.get(symbol)
                if isinstance(update, Gap):
                    self.gaps += 1
                    self.numbers.pop(symbol, None)  # a snapshot follows
                elif "snapshot" in update:
                    self.unreported += latest not in (None, update["snapshot"])
                    self.numbers[symbol] = update["snapshot"]
                elif latest is not None:
                    self.updates += 1
                    self.unreported += update["number"] != latest + 1
                    self.numbers[symbol] = update["number"]


async def fail_often(proxy: FaultProxy, exchange: Exchange) -> None:
    while True:
        await trio.sleep(3)
        proxy.disconnect()
        await trio.sleep(1.4)
        exchange.clients.clear()  # the exchange sends no more over this link
        await trio.sleep(1.6)
        proxy.disconnect()


async def run(seconds: float) -> tuple[Exchange, Client]:
    exchange, client, listener = Exchange(), Client(), MemoryListener()
    backoff = Backoff(initial=0.2, maximum=0.2, max_attempts=None)
    async with (
        serve(exchange.handle, listeners=[listener], codec=JSON()),
        FaultProxy(listener.open_stream, memory=True) as proxy,
        connect(
            "ws://exchange.test/",
            name="feed",
            stream=proxy.open_stream,
            codec=JSON(),
            subscriptions=Feed(),
            send_rate=Rate(5, per=1.0),
            stall_timeout=1.3,
            reconnect=backoff,
        ) as conn,
        trio.open_nursery() as nursery,
    ):
        for symbol in SYMBOLS:
            nursery.start_soon(client.follow, conn, symbol)
        with trio.move_on_after(seconds + 3):
            async with trio.open_nursery() as trading:
                trading.start_soon(exchange.trade)
                with trio.move_on_after(seconds):
                    await fail_often(proxy, exchange)
        await trio.sleep(0.5)
        nursery.cancel_scope.cancel()
    return exchange, client


async def main(seconds: float) -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    exchange, client = await run(seconds)
    print(f"{client.updates} updates; {client.gaps} gaps, {client.unreported} unreported")
    print(f"{len(exchange.numbers.items() & client.numbers.items())} symbols are up to date")


if __name__ == "__main__":
    trio.run(main, float(sys.argv[1]) if len(sys.argv) > 1 else 6.0)
