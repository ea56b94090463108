"""A client for the Gossip network (Grapevine 2.x): chat between games."""

from .callbacks import (
    AchievementsCallbacks,
    ChannelsCallbacks,
    GamesCallbacks,
    PlayersCallbacks,
    SystemCallbacks,
    TellsCallbacks,
)
from .client import Client
from .connect import BACKOFF, GRAPEVINE, connect
from .errors import (
    AuthenticationFailed,
    GossipError,
    NotSubscribed,
    NotSupported,
    Offline,
    RequestRefused,
)
from .messages import Achievement, ChannelMessage, Game, Tell
from .state import ClientStatus

__all__ = [
    "BACKOFF",
    "GRAPEVINE",
    "Achievement",
    "AchievementsCallbacks",
    "AuthenticationFailed",
    "ChannelMessage",
    "ChannelsCallbacks",
    "Client",
    "ClientStatus",
    "Game",
    "GamesCallbacks",
    "GossipError",
    "NotSubscribed",
    "NotSupported",
    "Offline",
    "PlayersCallbacks",
    "RequestRefused",
    "SystemCallbacks",
    "Tell",
    "TellsCallbacks",
    "connect",
]
