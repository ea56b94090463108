"""The overhead of a push and its reply over a plain echo: ``python -m benchmarks.phoenix``.

Two connections of one process use one server, picows on uvloop in a separate process. One sends
a text and receives it back. The other pushes the same bytes; the server makes the reply by
replacing the event. They take turns, and the result is the difference within each round.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import trio

from trioglock import connect
from trioglock.codecs import JSON
from trioglock.protocols import phoenix

from .job import payload
from .processes import spinners
from .results import Spread

__all__ = ["main"]

ROOT = Path(__file__).parent.parent
LIMIT = 25
"""Maximum difference to an echo, in microseconds."""

SIZES = (16, 64, 1024)
NEEDED = ("picows", "uvloop")

Round = Callable[[int], Awaitable[float]]
"""Makes this number of round trips; returns the total seconds."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; return 0, or 2 if the libraries of the server are missing."""
    parser = argparse.ArgumentParser(prog="benchmarks.phoenix", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="number of rounds (default 7)")
    parser.add_argument(
        "--count", type=int, default=5000, help="round trips per round (default 5000)"
    )
    parser.add_argument("--library", help="JSON library: msgspec, orjson or json (default: json)")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    absent = [name for name in NEEDED if find_spec(name) is None]
    if absent:
        print(
            f"not installed: {', '.join(absent)}; pip install --group bench",
            file=sys.stderr,
        )
        return 2
    if options.serve:
        serve()
        return 0
    with server() as port, spinners():
        for size in SIZES:
            trio.run(measure, port, size, options)
    return 0


async def measure(port: int, size: int, options: argparse.Namespace) -> None:
    """Print the result for one size."""
    serializer = phoenix.V2Serializer(JSON(library=options.library))
    response = {"text": payload(size).decode()}
    body = {"status": "ok", "response": response}
    text = serializer.encode(phoenix.PhoenixMessage("1", "100000", "room:1", "echo", body))
    url = f"ws://127.0.0.1:{port}"
    async with (
        connect(f"{url}/plain", proxy=None) as conn,
        phoenix.connect(f"{url}/socket", proxy=None, serializer=serializer) as socket,
    ):
        channel = await socket.join("room:1", {"status": "ok", "response": {}})

        async def echo(times: int) -> float:
            send, receive = conn.send, conn.receive
            began = time.perf_counter()
            for _ in range(times):
                await send(text)
                await receive()
            return time.perf_counter() - began

        async def push(times: int) -> float:
            push = channel.push
            began = time.perf_counter()
            for _ in range(times):
                reply = await push("echo", body)
            took = time.perf_counter() - began
            assert reply.response == response
            return took

        taken = await alternate({"echo": echo, "push": push}, options.rounds, options.count)
    more = Spread.of([p - e for e, p in zip(taken["echo"], taken["push"], strict=True)])
    echoes, pushes = Spread.of(taken["echo"]), Spread.of(taken["push"])
    kept = "yes" if more.median <= LIMIT else "NO"
    print(f"{len(text):5} bytes: echo {echoes} us, push and reply {pushes} us")
    print(f"{kept:>11}: at most {LIMIT} us more: {more} us", flush=True)


async def alternate(works: dict[str, Round], rounds: int, count: int) -> dict[str, list[float]]:
    """Return microseconds per round trip for each round, after a round to warm up."""
    taken: dict[str, list[float]] = {name: [] for name in works}
    order = list(works)
    for number in range(rounds + 1):
        for name in order:
            took = await works[name](count)
            if number:
                taken[name].append(took / count * 1e6)
        order.reverse()
    return taken


# The server.


@contextmanager
def server() -> Iterator[int]:
    """Run the server in a separate process; return its port."""
    command = [sys.executable, "-m", "benchmarks.phoenix", "--serve"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True) as process:
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline())
        finally:
            process.stdin.close()  # type: ignore[union-attr]
            process.wait(10)


def serve() -> None:
    """Print the port and serve until standard input ends."""
    import picows  # noqa: PLC0415 - only the server needs them
    import uvloop  # noqa: PLC0415

    class Listener(picows.WSListener):
        def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
            if frame.msg_type == picows.WSMsgType.CLOSE:
                transport.send_close(frame.get_close_code())
                transport.disconnect()
            elif frame.msg_type == picows.WSMsgType.TEXT:
                message = frame.get_payload_as_bytes()
                for event in (b'"echo"', b'"phx_join"') if self.replies else ():
                    message = message.replace(event, b'"phx_reply"', 1)
                transport.send(frame.msg_type, message)

        def __init__(self, replies: bool) -> None:
            self.replies = replies

    async def run() -> None:
        listening = await picows.ws_create_server(
            lambda request: Listener(request.path.startswith(b"/socket")), "127.0.0.1", 0
        )
        print(listening.sockets[0].getsockname()[1], flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


if __name__ == "__main__":
    sys.exit(main())
