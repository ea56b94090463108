"""The cost of routing: decoding and routing an event, compared with decoding it only.

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
"""Maximum microseconds that routing may add to decoding."""

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
    """A router with several nouns and verbs and a fallback."""
    main_router = Router()
    for noun in ("channels", "players", "tells", "games", "achievements"):
        nested = Router(noun)
        for verb in ("broadcast", "send", "status", "sync"):
            nested.on(verb)(handler)
        main_router.include(nested)
    main_router.on("any/*")(handler)
    main_router.fallback(handler)
    return main_router


def decode_all(codec: JSON, frame: str) -> None:
    decode = codec.decode
    for _ in range(EVENTS):
        decode(frame)


def route_all(socket: EventSocket[int], frame: str) -> None:
    receive, state = socket.handle_receive, 0
    for _ in range(EVENTS):
        _, state = receive(frame, state)  # type: ignore[misc]


def seconds(function: Callable[..., None], *args: Any) -> float:
    start = time.perf_counter()
    function(*args)
    return time.perf_counter() - start


def measure(library: Any, name: str = "channels/broadcast") -> tuple[float, float]:
    """Return the median microseconds of decoding an event, and of decoding and routing it."""
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
    """Print the results; return 1 if routing is slower than the limit."""
    within_limit = True
    for library in filter(find_spec, LIBRARIES):
        for name in ("channels/broadcast", "any/thing", "no/such"):
            decoded, routed = measure(library, name)
            cost = routed - decoded
            within_limit = within_limit and cost <= LIMIT
            print(
                f"{library:8} {name:20} decode {decoded:5.2f} us, and route {routed:5.2f} us: "
                f"routing costs {cost:5.2f} us (limit {LIMIT})"
            )
    return 0 if within_limit else 1


if __name__ == "__main__":
    sys.exit(main())
