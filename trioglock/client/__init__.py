"""The client: ``connect()`` around a body, ``run()`` for programs of hooks, ``supervise()``."""

from .connect import ConnectOptions, connect
from .run import run
from .supervise import Service, supervise

__all__ = ["ConnectOptions", "Service", "connect", "run", "supervise"]
