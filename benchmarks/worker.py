"""The process of a contender: ``python -m benchmarks.worker NAME``.

It reads one job per line from standard input and writes one result per line, both as JSON.
"""

from __future__ import annotations

import gc
import importlib
import json
import sys
import time
import traceback

from .descriptors import raise_limit
from .job import Job

__all__ = ["main"]


def main() -> None:
    """Report whether the contender is installed, then do jobs until standard input ends."""
    try:
        module = importlib.import_module(f".contenders.{sys.argv[1]}", __package__)
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


def _write(message: dict[str, object]) -> None:
    print(json.dumps(message), flush=True)


if __name__ == "__main__":
    main()
