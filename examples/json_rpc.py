"""JSON-RPC 2.0: a server with methods, and a client that calls them.

The server also calls a method of its client, and sends it notifications.

    python examples/json_rpc.py
    python examples/json_rpc.py wss://example.org/rpc    (only the client)
"""

from __future__ import annotations

import sys

import trio

from trioglock import connect, serve
from trioglock.protocols.jsonrpc import INVALID_PARAMS, Notification, Peer, RPCError


class Counter(Peer):
    """The server's side of one connection."""

    def __init__(self) -> None:
        super().__init__({"add": self.add, "count_down": self.count_down})

    def add(self, *numbers: float) -> float:
        return sum(numbers)

    async def count_down(self, start: int) -> str:
        if start < 0:
            raise RPCError(INVALID_PARAMS, "start must not be negative", {"start": start})
        for number in range(start, 0, -1):
            await self.notify("number", [number])
            await trio.sleep(0.01)
        name = await self.request("name")
        return f"lift-off, {name}!"


async def run_client(url: str) -> None:
    peer = Peer({"name": lambda: "Ann"})
    async with connect(url, peer) as conn, trio.open_nursery() as nursery:

        async def show_numbers() -> None:
            async for message in conn:
                if isinstance(message, Notification):
                    print(f"{message.method}: {message.params}")

        nursery.start_soon(show_numbers)
        print("1 + 2 + 3 =", await peer.request("add", [1, 2, 3]))
        print(await peer.request("count_down", {"start": 2}))
        try:
            await peer.request("count_down", {"start": -1})
        except RPCError as error:
            print(error, error.data)
        nursery.cancel_scope.cancel()


async def main(url: str | None) -> None:
    if url is not None:
        await run_client(url)
        return
    async with serve(Counter, "127.0.0.1", 0) as server:
        await run_client(f"ws://127.0.0.1:{server.port}")


if __name__ == "__main__":
    trio.run(main, sys.argv[1] if len(sys.argv) > 1 else None)
