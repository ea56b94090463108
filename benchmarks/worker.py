"""The process of a contender: ``python -m benchmarks.worker NAME [BUILD]``.

BUILD is a directory with another build of trioglock, whose package is imported instead of the one
beside the benchmarks. The process reads one job per line from standard input and writes one result
per line, both as JSON.
"""

from __future__ import annotations

import gc
import importlib
import json
import sys
import time
import traceback
from pathlib import Path

from .descriptors import raise_limit
from .job import Job

__all__ = ["main"]


def main() -> None:
    """Report whether the contender is installed, then do jobs until standard input ends."""
    name, *build = sys.argv[1:]
    try:
        # The package of the benchmarks is imported already, and stays the same.
        sys.path[:0] = build
        module = importlib.import_module(f".contenders.{name}", __package__)
        for directory in build:
            _check_origin(directory)
    except ImportError as error:
        _write({"missing": str(error)})
        return
    raise_limit()
    _write({"ready": True})
    for line in sys.stdin:
        gc.collect()
        began = time.process_time()
        try:
            result = module.CONTENDER.run(Job(**json.loads(line)))
            _write({"result": result, "cpu": time.process_time() - began})
        except Exception:
            _write({"error": traceback.format_exc()})


def _check_origin(directory: str) -> None:
    origin = importlib.import_module("trioglock").__file__
    if origin is None or not Path(origin).is_relative_to(directory):
        raise ImportError(f"there is no trioglock in {directory}")


def _write(message: dict[str, object]) -> None:
    print(json.dumps(message), flush=True)


if __name__ == "__main__":
    main()
