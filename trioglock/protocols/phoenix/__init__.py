"""Phoenix Channels, protocol 2.0.0: a socket that joins topics, and a client of callbacks."""

from .channel import Channel
from .client import ChannelClient, ChannelTransport, Connect, Stop
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
from .message import Message, PushReply
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
    "ChannelTransport",
    "ClientHandle",
    "Connect",
    "Disconnected",
    "InvalidMessage",
    "JoinRefused",
    "JoinTimeout",
    "Machine",
    "Message",
    "NotJoined",
    "PhoenixError",
    "PhoenixSocket",
    "PhoenixStatistics",
    "Presence",
    "PushReply",
    "PushTimeout",
    "Serializer",
    "Stop",
    "V2Serializer",
    "connect",
    "run",
]
