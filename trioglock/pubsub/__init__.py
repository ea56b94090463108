"""Fan-out between connections, programs and processes: see :class:`Hub`."""

from .broker import Broker, Line
from .hub import Hub
from .listeners import on
from .memory import MemoryBroker
from .message import Gap, Message
from .redis import RedisBroker, publish
from .socket import HubSocket
from .statistics import HubStatistics
from .subscription import Subscription

__all__ = [
    "Broker",
    "Gap",
    "Hub",
    "HubSocket",
    "HubStatistics",
    "Line",
    "MemoryBroker",
    "Message",
    "RedisBroker",
    "Subscription",
    "on",
    "publish",
]
