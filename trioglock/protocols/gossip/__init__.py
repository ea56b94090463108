"""A client of the Gossip network (Grapevine 2.x): chat between games."""

from .callbacks import Achievements, Core, Games, Players, System, Tells
from .client import Client
from .connect import BACKOFF, GRAPEVINE, connect
from .errors import (
    AuthenticationFailed,
    GameOffline,
    GossipError,
    NotSubscribed,
    NotSupported,
    Offline,
    RateLimited,
    ReceiverOffline,
    RequestFailed,
    SenderOffline,
    SubscribeFailed,
    TellFailed,
    TellsNotSupported,
    UnknownGame,
)
from .values import Achievement, Game, Message, Phase, Tell

__all__ = [
    "BACKOFF",
    "GRAPEVINE",
    "Achievement",
    "Achievements",
    "AuthenticationFailed",
    "Client",
    "Core",
    "Game",
    "GameOffline",
    "Games",
    "GossipError",
    "Message",
    "NotSubscribed",
    "NotSupported",
    "Offline",
    "Phase",
    "Players",
    "RateLimited",
    "ReceiverOffline",
    "RequestFailed",
    "SenderOffline",
    "SubscribeFailed",
    "System",
    "Tell",
    "TellFailed",
    "Tells",
    "TellsNotSupported",
    "UnknownGame",
    "connect",
]
