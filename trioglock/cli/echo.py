"""The echo: a Socket that sends back what it gets, and a server of it in a process of its own."""

from __future__ import annotations

import signal
import sys

import trio

from ..frames import Data
from ..hooks import Reply, Socket
from ..server import serve

__all__ = ["Echo"]


class Echo(Socket[None]):
    """Sends back every message as it came."""

    def handle_receive(self, frame: Data, state: None) -> tuple[Reply, None]:
        """The frame itself, text as text, binary as binary."""
        return Reply(frame), state


async def main() -> None:
    """Print the port of an echo server on 127.0.0.1, and serve until standard input ends.

    Ctrl-C at the terminal is for the program that has started this one.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    async with serve(Echo, "127.0.0.1", 0, max_size=None, shutdown_timeout=1) as server:
        print(server.port, flush=True)
        await trio.to_thread.run_sync(sys.stdin.buffer.read, abandon_on_cancel=True)


if __name__ == "__main__":
    trio.run(main)
