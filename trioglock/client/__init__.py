"""The client: ``connect()``, ``run()`` and ``supervise()``."""

from .connect import ConnectOptions, connect
from .run import run
from .supervise import Service, supervise

__all__ = ["ConnectOptions", "Service", "connect", "run", "supervise"]
