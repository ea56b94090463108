"""Publish and subscribe between connections, tasks and processes: see :class:`Hub`."""

from .broker import Broker, BrokerSession, MemoryBroker
from .browser import browser_module
from .hub import Hub, HubStatistics
from .listeners import on
from .message import Gap, Message
from .queue import SubscriberOverflow
from .redis import RedisBroker, publish
from .socket import HubSocket
from .subscribers import Subscriber
from .subscription import Subscription

__all__ = [
    "Broker",
    "BrokerSession",
    "Gap",
    "Hub",
    "HubSocket",
    "HubStatistics",
    "MemoryBroker",
    "Message",
    "RedisBroker",
    "Subscriber",
    "SubscriberOverflow",
    "Subscription",
    "browser_module",
    "on",
    "publish",
]
