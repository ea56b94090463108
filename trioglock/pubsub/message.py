"""What travels through a hub, as plain values."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import InvalidFrame, InvalidOption
from ..frames import Data

__all__ = ["EVERYONE", "Gap", "Message"]

EVERYONE = ""
"""The channel of a message that is for every subscriber, whatever it listens to."""


@dataclass(frozen=True, slots=True)
class Message:
    """Something that was published.

    Args:
        channel: without the hub's name; ``""`` for a message to everyone.
        data: text as ``str``, anything else as ``bytes``.
        id: where it stands in the broker's history, to resume after it; None without a history.
    """

    channel: str
    data: Data
    id: str | None = None


@dataclass(frozen=True, slots=True)
class Gap:
    """Messages may have been missed: the way to the broker was interrupted.

    Args:
        seconds: from the last sign of life to the time when messages came again.
    """

    seconds: float


def check_data(message: object) -> Data:
    """The payload of a message to be published; a mutable buffer is copied.

    Raises:
        InvalidFrame: it is neither text nor bytes-like.
    """
    if isinstance(message, str):
        try:
            message.encode()
        except UnicodeEncodeError as error:
            raise InvalidFrame(f"text that is not valid Unicode: {error}") from None
        return message
    if isinstance(message, bytes | bytearray | memoryview):
        return bytes(message)
    raise InvalidFrame(
        f"a message to publish is str or bytes-like, not {type(message).__name__}; "
        "encode it first, for instance with json.dumps()"
    )


def check_channel(channel: object) -> str:
    """The name of a channel, as it stands behind the hub's name and a slash.

    Raises:
        InvalidOption: it cannot be one.
    """
    if not isinstance(channel, str):
        raise InvalidOption(f"channel is a str, not {channel!r}")
    if channel.startswith("/"):
        raise InvalidOption(f"a channel is named without a slash in front: {channel.lstrip('/')!r}")
    try:
        channel.encode()
    except UnicodeEncodeError as error:
        raise InvalidOption(f"channel is not valid Unicode: {error}") from None
    return channel


_NAME = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.:")


def check_name(name: object) -> str:
    """The name of a hub: no slash, which ends it on the wire, and nothing that is a pattern.

    Raises:
        InvalidOption: it cannot be one.
    """
    if not isinstance(name, str) or not name or not _NAME.issuperset(name):
        raise InvalidOption(f"a hub's name is made of letters, digits and -_.: only, not {name!r}")
    return name
