"""The client: ``connect()`` for programs with a body, ``run()`` for programs that are only hooks."""

from .connect import connect
from .run import run

__all__ = ["connect", "run"]
