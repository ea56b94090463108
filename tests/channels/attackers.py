"""Hostile clients, written with ``websockets``.

``python -m tests.channels.attackers URL GROUP SECONDS`` prints the close code of each attack, and
how many messages were sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

Message = tuple[Any, ...]


def joins(topic: str, payload: Any) -> Iterator[Message]:
    for number in itertools.count():
        yield str(number), str(number), topic.format(number), "phx_join", payload


def pushes(topic: str, event: str, payload: Any) -> Iterator[Message]:
    yield "1", "1", topic, "phx_join", {}
    for number in itertools.count():
        yield "1", f"x{number}", topic, event, payload


def tokens() -> Iterator[Message]:
    yield "1", "1", "echo:1", "phx_join", {}
    for number in itertools.count():
        yield "1", f"x{number}", "echo:1", "access_token", {"access_token": f"{number}" * 2000}


def too_large() -> Iterator[Message]:
    yield "1", "1", "echo:1", "phx_join", {}
    yield "1", "2", "echo:1", "x", "x" * 2**20


def cycles() -> Iterator[Message]:
    for number in itertools.count():
        ref = str(number)
        yield ref, ref, "hang:1", "phx_join", {}
        yield ref, f"x{ref}", "hang:1", "phx_leave", {}


def many_slow_topics() -> Iterator[Message]:
    for number in range(100):
        yield str(number), str(number), f"hang:{number}", "phx_join", {}
    payload = "x" * 100_000
    for number in itertools.count():
        yield str(number % 100), f"x{number}", f"hang:{number % 100}", "x", payload


Attack = Callable[[], Iterator[Message]]

SMALL: dict[str, Attack] = {
    "joins of many topics": lambda: joins("hang:{}", {"hang": True}),
    "joins of one topic": lambda: joins("hang:1", {"hang": True}),
    "joins of one topic with a slow end": lambda: joins("hang:1", {}),
    "joins and leaves": cycles,
    "pushes": lambda: pushes("echo:1", "x", {"a": 1}),
    "unknown topics": lambda: pushes("nope", "x", {}),
    "unknown events": lambda: pushes("echo:1", "phx_unknown", {}),
    "tokens": tokens,
    "heartbeats": lambda: pushes("phoenix", "heartbeat", {}),
}

LARGE: dict[str, Attack] = {
    "joins of long topics": lambda: joins("echo:{}" + "x" * 500_000, {}),
    "joins with large payloads": lambda: joins("hang:{}", {"hang": "x" * 500_000}),
    "pushes to a slow hook": lambda: pushes("hang:1", "x", "x" * 100_000),
    "pushes to slow hooks": many_slow_topics,
    "expensive JSON": lambda: pushes("hang:1", "x", [[[]] * 20] * 5000),
    "too large": too_large,
}

GROUPS = {"small": SMALL, "large": LARGE}

MUST_BE_CLOSED = {"joins of one topic"}
"""Attacks that go on until the server closes the connection, for at most a minute.

Those that do not read end earlier: they would not notice the Close frame.
"""


async def attack(url: str, messages: Iterator[Message], reads: bool, seconds: float) -> Any:
    """Send as fast as the server reads; return the close code and the number of messages."""
    sent = 0
    async with connect(url, close_timeout=0.1, max_queue=16, compression=None) as link:
        reader = asyncio.create_task(read(link)) if reads else None
        # A send waits while the server does not read.
        with contextlib.suppress(ConnectionClosed, TimeoutError):
            async with asyncio.timeout(seconds):
                for message in messages:
                    await link.send(encode(message))
                    sent += 1
                    if sent % 20 == 0:
                        await asyncio.sleep(0)
            # An attack that ends has given a reason to close, and the machine may be busy.
            async with asyncio.timeout(30):
                await link.wait_closed()
        code = link.close_code
        if reader is not None:
            reader.cancel()
    return code, sent


async def read(link: ClientConnection) -> None:
    with contextlib.suppress(ConnectionClosed):
        async for _ in link:
            pass


_encoded: dict[int, str] = {}


def encode(message: Message) -> str:
    """Encode a message; its payload only once if it is the same object."""
    payload = message[4]
    if id(payload) not in _encoded:
        _encoded[id(payload)] = json.dumps(payload)
    return f"{json.dumps(message[:4])[:-1]}, {_encoded[id(payload)]}]"


async def main(url: str, group: str, seconds: float) -> None:
    attacks = GROUPS[group]
    names = [(name, reads) for name in attacks for reads in (True, False)]
    results = await asyncio.gather(
        *[
            attack(url, attacks[name](), reads, 60 if reads and name in MUST_BE_CLOSED else seconds)
            for name, reads in names
        ],
        return_exceptions=True,
    )
    print(
        json.dumps(
            {
                name if reads else f"{name}, without reading": result
                if isinstance(result, tuple)
                else (None, repr(result))
                for (name, reads), result in zip(names, results, strict=True)
            }
        )
    )


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], float(sys.argv[3])))
