"""The base class of the libraries on asyncio with uvloop."""

from __future__ import annotations

import asyncio
from typing import Any

import uvloop

from ..job import Job
from .contender import Contender

__all__ = ["UvloopContender"]


class UvloopContender(Contender):
    """A library on asyncio with uvloop."""

    def run(self, job: Job) -> Any:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(self.measure(job))
