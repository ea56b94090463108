"""Messages and gaps: the events that a hub delivers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from .._text import as_text
from ..errors import InvalidFrame, InvalidOption
from ..frames import Data
from ..gap import Gap

__all__ = [
    "EVERYONE",
    "INCOMING",
    "TOPIC_PREFIX",
    "Event",
    "Gap",
    "Message",
    "check_channel",
    "check_data",
    "check_name",
    "check_sharded_channel",
]

EVERYONE = ""
"""The channel of a broadcast, which every subscriber receives, regardless of its channel."""

INCOMING = "incoming"
"""The channel of messages from clients. No client may subscribe to it, and it has no history."""

TOPIC_PREFIX = "phoenix:"
"""The prefix of the channels of :mod:`trioglock.channels`. No client may subscribe to them by their
path, because topics require permission."""

_NAME = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.:")


@dataclass(frozen=True, slots=True)
class Message:
    """A published message.

    Args:
        channel: name of the channel, without the hub's name; ``""`` for a broadcast.
        data: text as ``str``, binary as ``bytes``.
        id: position in the broker's history, after which a subscriber can resume; None without a
            history.
    """

    channel: str
    data: Data
    id: str | None = None


Event: TypeAlias = Message | Gap
"""The events that a hub delivers to its subscribers."""


def check_data(message: object) -> Data:
    """Return the payload of a message; a mutable buffer is copied."""
    if isinstance(message, str):
        try:
            message.encode()
        except UnicodeEncodeError as error:
            raise InvalidFrame(f"the text is not valid Unicode: {error}") from None
        return as_text(message)
    if isinstance(message, bytes | bytearray | memoryview):
        return bytes(message)
    raise InvalidFrame(
        f"a message must be str or bytes-like, not {type(message).__name__}; "
        "encode it first, for instance with json.dumps()"
    )


def check_channel(channel: object) -> str:
    """Return a valid channel name."""
    if not isinstance(channel, str):
        raise InvalidOption(f"channel must be a str, not {channel!r}")
    channel = as_text(channel)
    if channel.startswith("/"):
        raise InvalidOption(f"channel must not begin with a slash: use {channel.lstrip('/')!r}")
    try:
        channel.encode()
    except UnicodeEncodeError as error:
        raise InvalidOption(f"channel is not valid Unicode: {error}") from None
    return channel


def check_sharded_channel(channel: str) -> str:
    """Return the name of a channel of a hub whose broker is sharded.

    Redis chooses the hash slot of a name by the part in braces.
    """
    if channel == EVERYONE:
        raise InvalidOption(
            "with sharded=True, there are no broadcasts: pass the name of a channel, or use a "
            "broker without sharded=True"
        )
    if "{" in channel or "}" in channel:
        raise InvalidOption(f"with sharded=True, a channel must not contain braces: {channel!r}")
    return channel


def check_name(name: object) -> str:
    """Return the name of a hub.

    The name contains no wildcard, and no slash, which separates hub and channel in Redis.
    """
    if not isinstance(name, str) or not name or not _NAME.issuperset(name):
        raise InvalidOption(f"a hub's name must consist of letters, digits and -_.:, not {name!r}")
    return as_text(name)
