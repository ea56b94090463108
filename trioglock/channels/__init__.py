"""A server for Phoenix Channels 2.0.0: see :class:`Channels` and :class:`Channel`."""

from ..protocols.phoenix.errors import ChannelClosed
from .blocking_broadcast import broadcast, disconnect
from .channel import Channel, ClientEvent
from .channels import Channels
from .credentials import Credentials
from .handshake import ConnectRequest
from .history import History
from .presence import Presence
from .results import Answer, Broadcast, ChannelResult, JoinRefused, Left, Push, Rejoined, Stop

__all__ = [
    "Answer",
    "Broadcast",
    "Channel",
    "ChannelClosed",
    "ChannelResult",
    "Channels",
    "ClientEvent",
    "ConnectRequest",
    "Credentials",
    "History",
    "JoinRefused",
    "Left",
    "Presence",
    "Push",
    "Rejoined",
    "Stop",
    "broadcast",
    "disconnect",
]
