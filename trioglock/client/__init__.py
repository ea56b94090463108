"""The client: ``connect()`` around a body, ``run()`` for programs that are only hooks."""

from .connect import ConnectOptions, connect
from .run import run

__all__ = ["ConnectOptions", "connect", "run"]
