"""Runs property tests in rounds with consecutive seeds.

``python -m tests.machines.run connection --steps 1000000 --seed 1``. To repeat a failing round, use
its seed and ``--rounds 1``.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
import time
from collections.abc import Callable

from hypothesis import seed

from tests.machines import test_connection
from tests.machines.machine import TOTALS
from tests.transports.native import test_against_library as library

__all__ = ["main"]

PROPERTIES: dict[str, list[Callable[..., None]]] = {
    "connection": [test_connection.test_any_scenario],
    "codec": [
        library.test_legal_conversations_are_read_alike,
        library.test_what_our_encoder_sends_is_read_alike,
        library.test_strange_frames_are_refused_alike,
        library.test_mutated_conversations_are_refused_alike,
        library.test_arbitrary_bytes_are_refused_alike,
    ],
}


def main(arguments: list[str] | None = None) -> int:
    """Run the rounds."""
    parser = argparse.ArgumentParser(prog="python -m tests.machines.run", description=__doc__)
    parser.add_argument("what", choices=PROPERTIES)
    parser.add_argument(
        "--seed", type=int, default=random.randrange(2**32), help="seed of the first round"
    )
    parser.add_argument("--rounds", type=float, default=math.inf)
    parser.add_argument("--steps", type=float, default=math.inf, help="total number of steps")
    parser.add_argument("--seconds", type=float, default=math.inf)
    options = parser.parse_args(arguments)
    began = time.monotonic()
    rounds = 0
    while (
        rounds < options.rounds
        and TOTALS["steps"] < options.steps
        and time.monotonic() - began < options.seconds
    ):
        number = options.seed + rounds
        for test in PROPERTIES[options.what]:
            try:
                seed(number)(test)()
            except BaseException:
                print(f"round with seed {number} failed: {test.__name__}", file=sys.stderr)
                raise
        rounds += 1
        counts = "".join(f", {count} {name}" for name, count in sorted(TOTALS.items()))
        passed = time.monotonic() - began
        print(f"{passed:.0f} s: {rounds} rounds from seed {options.seed}{counts}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
