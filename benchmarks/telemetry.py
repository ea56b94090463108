"""What telemetry costs on the receive benchmark: 64-byte messages into a hook that counts.

python -m benchmarks.telemetry

The first way is trioglock with its telemetry cut out of the path of a message; the others, in turn
in the same rounds, are as it is: heard by nobody, and by more and more.
"""

from __future__ import annotations

import logging
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from trioglock.connection.reader import Reader
from trioglock.telemetry import Connected, EventEmitter, FrameReceived, listen
from trioglock.telemetry.opentelemetry import instrument

from .contenders.trioglock_native import Trioglock
from .job import Job
from .processes import servers

__all__ = ["LIMIT", "main", "measure"]

LIMIT = 1.02
"""Times the CPU without telemetry that a message may take while nobody listens."""

ROUNDS = 31
MESSAGES = 200_000


@contextmanager
def cut_out() -> Iterator[None]:
    """A reader that has never heard of telemetry."""
    as_it_is = Reader._handle_messages  # noqa: SLF001 - the very path to be compared

    def handle_messages(self: Any, run: list[Any]) -> None:
        self.messages += len(run)
        if self._is_answer is not None:
            run = self._remove_answers(run, self._is_answer)
        if self._owner.is_open or not self._hooks_behind():
            self._actor.receive(run)
        else:
            self._receive_queue.drop(run)

    Reader._handle_messages = handle_messages  # type: ignore[method-assign]  # noqa: SLF001
    try:
        yield
    finally:
        Reader._handle_messages = as_it_is  # type: ignore[method-assign]  # noqa: SLF001


@contextmanager
def traced() -> Iterator[None]:
    """Every connection writes its trace, to a handler that throws it away."""
    logger = logging.getLogger("trioglock.trace")
    logger.addHandler(handler := logging.NullHandler())
    switch = EventEmitter.__init__

    def init(self: EventEmitter, name: str | None, **options: Any) -> None:
        switch(self, name, **options | {"traced": True})

    EventEmitter.__init__ = init  # type: ignore[method-assign]
    try:
        yield
    finally:
        EventEmitter.__init__ = switch  # type: ignore[method-assign]
        logger.removeHandler(handler)


WAYS: dict[str, Callable[[], AbstractContextManager[object]]] = {
    "cut out": cut_out,
    "nobody listens": nullcontext,
    "a listener for links": lambda: listen(id, Connected),
    "OpenTelemetry": instrument,
    "a listener for frames": lambda: listen(id, FrameReceived),
    "the trace": traced,
}


def measure(address: dict[str, Any]) -> dict[str, list[float]]:
    """Microseconds of CPU for a message, for each way and each round."""
    job = Job(work="receive", way="hook", count=MESSAGES, **address)
    contender = Trioglock()
    taken: dict[str, list[float]] = {way: [] for way in WAYS}
    order = list(WAYS)
    for number in range(ROUNDS + 1):
        for way in order:
            count = MESSAGES // 10 if way in ("a listener for frames", "the trace") else MESSAGES
            with WAYS[way]():
                began = time.process_time()
                contender.run(replace(job, count=count))
                seconds = time.process_time() - began
            if number:  # the first round only warms up
                taken[way].append(seconds / count * 1e6)
        order.reverse()
    return taken


def main() -> int:
    """Print the figures; 1 if telemetry that nobody hears costs more than it may."""
    with tempfile.TemporaryDirectory() as folder, servers(Path(folder)) as running:
        taken = measure(running["flood"].address(tls=False))
    for way, rounds in taken.items():
        ratios = [one / base for one, base in zip(rounds, taken["cut out"], strict=True)]
        print(
            f"{way:22} {statistics.median(rounds):6.3f} us of CPU for a message, "
            f"{statistics.median(ratios):6.3f} times (best {min(rounds):.3f})"
        )
    cost = min(taken["nobody listens"]) / min(taken["cut out"])
    print(f"telemetry that nobody hears costs {cost:.3f} times (limit {LIMIT})")
    return 0 if cost <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
