"""A client for Phoenix Channels 2.0.0, with awaited calls or callbacks."""

from .callbacks import ChannelClient, ChannelTransport, Connect, DeferredReply
from .channel import Channel, ChannelStatus
from .connect import RECONNECT, connect
from .errors import (
    AlreadyJoined,
    BufferFull,
    ChannelClosed,
    ChannelCrashed,
    ChannelOverflow,
    Disconnected,
    InvalidMessage,
    JoinRefused,
    JoinTimeout,
    NotJoined,
    PhoenixError,
    PushTimeout,
)
from .machine import Machine
from .message import PhoenixMessage, PushReply
from .presence import Presence
from .run import ClientHandle, run
from .serializer import Serializer, V2Serializer
from .socket import PhoenixSocket, PhoenixStatistics

__all__ = [
    "RECONNECT",
    "AlreadyJoined",
    "BufferFull",
    "Channel",
    "ChannelClient",
    "ChannelClosed",
    "ChannelCrashed",
    "ChannelOverflow",
    "ChannelStatus",
    "ChannelTransport",
    "ClientHandle",
    "Connect",
    "DeferredReply",
    "Disconnected",
    "InvalidMessage",
    "JoinRefused",
    "JoinTimeout",
    "Machine",
    "NotJoined",
    "PhoenixError",
    "PhoenixMessage",
    "PhoenixSocket",
    "PhoenixStatistics",
    "Presence",
    "PushReply",
    "PushTimeout",
    "Serializer",
    "V2Serializer",
    "connect",
    "run",
]
