"""Measure the latency with heartbeats, and trace a connection.

The connection sends a ping every ``ping_interval`` seconds and measures the time until the pong. If
nothing arrives for ``ping_timeout`` seconds after a ping, the peer is considered dead. Trace lines
are logged with :mod:`logging` to the logger ``trioglock.trace``.

    python examples/heartbeat_and_trace.py
    python examples/heartbeat_and_trace.py wss://example.org/echo
"""

from __future__ import annotations

import logging
import sys

import trio

from trioglock import ConnectionInfo, Socket, connect
from trioglock.testing import MockServer, echo


class PongCounter(Socket[int]):
    def init_stream(self, info: ConnectionInfo) -> int:
        return 0

    def handle_pong(self, payload: bytes, state: int) -> tuple[None, int]:
        return None, state + 1


async def watch(url: str) -> None:
    async with connect(url, PongCounter(), ping_interval=0.1, name="demo", trace=True) as conn:
        await conn.send("traced")
        await conn.receive()
        print(f"a manual ping took {1000 * await conn.ping():.1f} ms")

        conn.trace(False)
        await trio.sleep(0.35)
        print(f"{conn.state} pongs received, all but the first from the heartbeat")
        if conn.latency is not None:
            print(f"latest latency: {1000 * conn.latency:.1f} ms")

        statistics = conn.statistics()
        print(f"{statistics.bytes_sent} bytes sent, {statistics.bytes_received} received")


async def main() -> None:
    logging.basicConfig(stream=sys.stdout, format="%(message)s")
    if sys.argv[1:]:
        await watch(sys.argv[1])
    else:
        async with MockServer(echo) as server:
            await watch(server.url)


if __name__ == "__main__":
    trio.run(main)
