"""Count the messages sent and received in the state of the hooks.

Each hook returns the next state, and the framework passes it to the next hook. Without arguments,
the example starts its own echo server::

    python examples/counting.py
    python examples/counting.py wss://example.org/echo
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace
from typing import Any

import trio

from trioglock import ConnectionInfo, Socket, connect
from trioglock.testing import MockServer, echo


@dataclass(frozen=True)
class Count:
    sent: int = 0
    received: int = 0


class Counter(Socket[Count, Any]):
    def init_stream(self, info: ConnectionInfo) -> Count:
        return Count()

    def handle_send(self, message: Any, state: Count) -> tuple[str, Count]:
        return json.dumps(message), replace(state, sent=state.sent + 1)

    def handle_receive(self, frame: str, state: Count) -> tuple[Any, Count]:
        return json.loads(frame), replace(state, received=state.received + 1)


async def count(url: str) -> None:
    async with connect(url, Counter()) as conn:
        for fruit in ("apple", "banana", "cherry"):
            await conn.send({"fruit": fruit})
            print(f"received {await conn.receive()}, state {conn.state}")
    print(f"closed with {conn.close_code}, state {conn.state}")


async def main() -> None:
    if sys.argv[1:]:
        await count(sys.argv[1])
    else:
        async with MockServer(echo) as server:
            await count(server.url)


if __name__ == "__main__":
    trio.run(main)
