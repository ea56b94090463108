"""What routing costs: an event through the Router, against decoding its JSON alone.

python -m benchmarks.routing
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from trioglock.codecs import JSON
from trioglock.codecs.json import LIBRARIES
from trioglock.routing import EventSocket, Router

__all__ = ["LIMIT", "main", "measure"]

LIMIT = 1.5
"""Microseconds that routing may add to decoding."""

ROUNDS = 9
EVENTS = 20_000

EVENT = {
    "event": "channels/broadcast",
    "ref": "89036074-446f-41ab-b87a-44ef1f962f2e",
    "payload": {
        "channel": "gossip",
        "message": "Hello everyone!",
        "game": "ExVenture",
        "name": "Player",
    },
}


def handler(event: Any, state: int) -> tuple[None, int]:
    return None, state + 1


def router() -> Router:
    """As a protocol has it: some nouns, some verbs, a fallback."""
    whole = Router()
    for noun in ("channels", "players", "tells", "games", "achievements"):
        nested = Router(noun)
        for verb in ("broadcast", "send", "status", "sync"):
            nested.on(verb)(handler)
        whole.include(nested)
    whole.on("any/*")(handler)
    whole.fallback(handler)
    return whole


def decode_all(codec: JSON, frame: str) -> None:
    decode = codec.decode
    for _ in range(EVENTS):
        decode(frame)


def route_all(socket: EventSocket[int], frame: str) -> None:
    receive, state = socket.handle_receive, 0
    for _ in range(EVENTS):
        _, state = receive(frame, state)  # type: ignore[misc]


def seconds(function: Callable[..., None], *args: Any) -> float:
    began = time.perf_counter()
    function(*args)
    return time.perf_counter() - began


def measure(library: Any, name: str = "channels/broadcast") -> tuple[float, float]:
    """Microseconds of decoding an event, and of decoding and routing it; medians, in turn."""
    codec = JSON(library=library)
    socket = EventSocket[int](router(), codec=codec)
    frame = codec.encode({**EVENT, "event": name})
    decoded, routed = [], []
    for _ in range(ROUNDS):
        decoded.append(seconds(decode_all, codec, frame))
        routed.append(seconds(route_all, socket, frame))
    scale = 1e6 / EVENTS
    return statistics.median(decoded) * scale, statistics.median(routed) * scale


def main() -> int:
    """Print the figures; 1 if routing costs more than it may."""
    kept = True
    for library in filter(find_spec, LIBRARIES):
        for name in ("channels/broadcast", "any/thing", "no/such"):
            decoded, routed = measure(library, name)
            cost = routed - decoded
            kept = kept and cost <= LIMIT
            print(
                f"{library:8} {name:20} decode {decoded:5.2f} us, and route {routed:5.2f} us: "
                f"routing costs {cost:5.2f} us (limit {LIMIT})"
            )
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
