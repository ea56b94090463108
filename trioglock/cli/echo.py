"""The echo socket, and an echo server as a process."""

from __future__ import annotations

import sys

import trio

from ..frames import Data
from ..hooks import Reply, Socket
from ..server import serve
from .streams import print_line

__all__ = ["Echo"]


class Echo(Socket[None]):
    """Sends every message back unchanged."""

    def handle_receive(self, frame: Data, state: None) -> tuple[Reply, None]:
        return Reply(frame), state


async def main() -> None:
    """Print the port of an echo server on 127.0.0.1, and serve until stdin ends."""
    async with serve(Echo, "127.0.0.1", 0, max_size=None, shutdown_timeout=1) as server:
        print_line(str(server.port))  # the process that started it may have ended
        await trio.to_thread.run_sync(sys.stdin.buffer.read, abandon_on_cancel=True)


if __name__ == "__main__":
    trio.run(main)
