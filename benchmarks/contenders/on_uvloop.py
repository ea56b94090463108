"""What all clients on asyncio with uvloop have in common."""

from __future__ import annotations

import asyncio
from typing import Any

import uvloop

from ..job import Job
from .contender import Contender

__all__ = ["UvloopContender"]


class UvloopContender(Contender):
    """A client on asyncio, with uvloop."""

    def run(self, job: Job) -> Any:
        """See :meth:`Contender.run`."""
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(self.measure(job))
