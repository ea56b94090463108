"""A contender's process: ``python -m benchmarks.worker NAME`` does jobs, one line of JSON each."""

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
    """Say whether the contender is installed, then do jobs until standard input ends."""
    try:
        module = importlib.import_module(f".contenders.{sys.argv[1]}", __package__)
    except ImportError as error:
        _say({"missing": str(error)})
        return
    raise_limit()
    _say({"ready": True})
    for line in sys.stdin:
        gc.collect()
        began = time.process_time()
        try:
            result = module.CONTENDER.run(Job(**json.loads(line)))
            _say({"result": result, "cpu": time.process_time() - began})
        except Exception:
            _say({"error": traceback.format_exc()})


def _say(answer: dict[str, object]) -> None:
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
