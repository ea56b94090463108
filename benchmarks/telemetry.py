"""The cost of telemetry when a hook receives and counts messages of 64 bytes.

python -m benchmarks.telemetry

The baseline is trioglock with its telemetry code removed from the path of a message. The other
configurations use the unmodified code without listeners and with several kinds of listeners. All
configurations run in every round.
"""

from __future__ import annotations

import ast
import inspect
import logging
import statistics
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from trioglock.connection.link import LinkTasks
from trioglock.telemetry import Connected, EventEmitter, FrameReceived, listen
from trioglock.telemetry.opentelemetry import instrument

from .contenders.trioglock_native import Trioglock
from .job import Job
from .processes import servers

__all__ = ["LIMIT", "main", "measure"]

LIMIT = 1.02
"""Maximum CPU time per message without listeners, as a multiple of the baseline."""

ROUNDS = 31
MESSAGES = 200_000

BASELINE = "removed"
NO_LISTENERS = "no listeners"


@contextmanager
def without_telemetry() -> Iterator[None]:
    """Remove the telemetry from the code that handles received messages."""
    original = LinkTasks._handle_messages  # noqa: SLF001 - the code to compare with
    module = ast.parse(textwrap.dedent(inspect.getsource(original)))
    function = module.body[0]
    assert isinstance(function, ast.FunctionDef)
    kept = [statement for statement in function.body if not _is_telemetry(statement)]
    assert len(kept) == len(function.body) - 1, "the code has changed"
    function.body = kept
    namespace: dict[str, Any] = {}
    exec(compile(module, __file__, "exec"), original.__globals__, namespace)
    LinkTasks._handle_messages = namespace[function.name]  # type: ignore[method-assign]  # noqa: SLF001
    try:
        yield
    finally:
        LinkTasks._handle_messages = original  # type: ignore[method-assign]  # noqa: SLF001


def _is_telemetry(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.If) and "_emitter" in ast.unparse(statement.test)


@contextmanager
def traced() -> Iterator[None]:
    """Let every connection write its trace to a handler that discards it."""
    logger = logging.getLogger("trioglock.trace")
    logger.addHandler(handler := logging.NullHandler())
    original = EventEmitter.__init__

    def init(self: EventEmitter, name: str | None, **options: Any) -> None:
        original(self, name, **options | {"traced": True})

    EventEmitter.__init__ = init  # type: ignore[method-assign]
    try:
        yield
    finally:
        EventEmitter.__init__ = original  # type: ignore[method-assign]
        logger.removeHandler(handler)


CONFIGURATIONS: dict[str, Callable[[], AbstractContextManager[object]]] = {
    BASELINE: without_telemetry,
    NO_LISTENERS: nullcontext,
    "link listener": lambda: listen(id, Connected),
    "OpenTelemetry": instrument,
    "frame listener": lambda: listen(id, FrameReceived),
    "trace": traced,
}


def measure(address: dict[str, Any]) -> dict[str, list[float]]:
    """Return the CPU time per message in microseconds, by configuration, for each round."""
    job = Job(work="receive", way="hook", count=MESSAGES, **address)
    contender = Trioglock()
    taken: dict[str, list[float]] = {name: [] for name in CONFIGURATIONS}
    order = list(CONFIGURATIONS)
    for number in range(ROUNDS + 1):
        for name in order:
            count = MESSAGES // 10 if name in ("frame listener", "trace") else MESSAGES
            with CONFIGURATIONS[name]():
                began = time.process_time()
                contender.run(replace(job, count=count))
                seconds = time.process_time() - began
            if number:  # the first round is a warm-up
                taken[name].append(seconds / count * 1e6)
        order.reverse()
    return taken


def main() -> int:
    """Print the results; return 1 if telemetry without listeners exceeds the limit."""
    with tempfile.TemporaryDirectory() as folder, servers(Path(folder), ["flood"]) as running:
        taken = measure(running["flood"].address(tls=False))
    for name, rounds in taken.items():
        ratios = [one / base for one, base in zip(rounds, taken[BASELINE], strict=True)]
        print(
            f"{name:22} {statistics.median(rounds):6.3f} us of CPU per message, "
            f"{statistics.median(ratios):6.3f} times the baseline (best {min(rounds):.3f})"
        )
    cost = min(taken[NO_LISTENERS]) / min(taken[BASELINE])
    print(f"telemetry without listeners: {cost:.3f} times the baseline (limit {LIMIT})")
    return 0 if cost <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
