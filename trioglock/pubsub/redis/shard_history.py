"""The history of sharded channels: each has its own stream and ids."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import takewhile
from typing import Any

from ...errors import UsageError
from ..history import (
    PAGE_BYTES,
    FindRetention,
    MessageHistory,
    MissedMessages,
    Position,
    Retention,
    format_id,
    parse_id,
)
from ..message import Message
from ..patterns import ChannelFilter
from .connection import Argument
from .history import GREATEST, UNLIMITED, decode_data, oldest_kept_at, parse_entry
from .pipeline import CommandSender
from .scripts import READ_SHARDED, SERVER_SCALE, ShardKeys, kept_milliseconds

__all__ = ["ShardHistory", "parse_page", "read_command", "server_of", "start_position"]

NO_COMMON_ID = (
    "with sharded=True, each channel has its own ids: pass the channel to "
    "hub.history.last_of() instead"
)


def server_of(position: Position) -> int:
    """Return the number of the server that accepted a message."""
    return position[1] // SERVER_SCALE


def is_message(position: Position) -> bool:
    """Whether a position is that of a message, not one between messages."""
    return 0 < position[1] % SERVER_SCALE < SERVER_SCALE - 1


def read_command(
    keys: ShardKeys, channel: str, position: Position, count: int, retention: Retention
) -> Sequence[Argument]:
    """The command that reads messages after a position."""
    kept = kept_milliseconds(retention.seconds)
    limits = count, kept, PAGE_BYTES
    return "EVAL", READ_SHARDED, 1, keys.stream(channel), *position, *limits


def start_position(reply: Any) -> Position:
    """Return the position after the newest message, from a reply to READ_SHARDED."""
    server, now, newest, *_ = reply
    if not newest:
        return now, server * SERVER_SCALE
    last = parse_id(newest.decode())
    if server_of(last) == server:
        return last
    return max(now, last[0] + 1), server * SERVER_SCALE


def parse_page(
    channel: str, reply: Any, position: Position, retention: Retention
) -> MissedMessages:
    """Parse a reply to READ_SHARDED.

    A page contains messages from one server only: messages may be missing where another server has
    taken over.
    """
    server, now, newest, oldest, length, has_more, entries = reply
    last = start_position(reply)
    newest_position = parse_id(newest.decode()) if newest else (0, 0)
    if position > max(newest_position, (now, (server + 1) * SERVER_SCALE - 1)):
        return MissedMessages((), complete=False, last=format_id(last))
    found = [(parse_id(entry[0].decode()), entry[1][1]) for entry in entries]
    is_complete = server_of(found[0][0] if found else last) == server_of(position)
    first_kept = 0 if retention.seconds is None else now - int(retention.seconds * 1000)
    if position < newest_position or not newest:
        is_complete = is_complete and position[0] >= first_kept
    end = position
    if not oldest or (oldest_position := parse_id(oldest.decode())) > position:
        if length > retention.limit:
            # The oldest entry is one more than the history keeps: it shows that the history has
            # been truncated.
            end, is_complete = oldest_position, False
            found = [one for one in found if one[0] != oldest_position]
        elif is_message(position):
            is_complete = False  # the stream has been deleted
    page = list(takewhile(lambda one: server_of(one[0]) == server_of(found[0][0]), found))
    end = page[-1][0] if page else end
    more = len(page) < len(found) or bool(has_more)
    if page and not more:
        more = server_of(end) != server
    return MissedMessages(
        tuple(Message(channel, decode_data(data), format_id(one)) for one, data in page),
        complete=is_complete,
        last=format_id(end if more else max(end, last)),
        more=more,
    )


class ShardHistory(MessageHistory):
    """Reads the history of a sharded hub.

    Args:
        commands: sends the commands.
        keys: the names of the hub in Redis.
        find_retention: returns the retention of a channel.
    """

    def __init__(
        self, commands: CommandSender, keys: ShardKeys, find_retention: FindRetention
    ) -> None:
        self._commands = commands
        self._keys = keys
        self.find_retention: FindRetention = find_retention
        self.find_position: Callable[[str], Position | None] = _no_position
        """Returns a position: the hub has received all messages of a channel up to it."""

    @property
    def last(self) -> str:  # type: ignore[override]
        """Not available: use :meth:`last_of`.

        Raises:
            UsageError: always.
        """
        raise UsageError(NO_COMMON_ID)

    def last_of(self, channel: str) -> str:
        return format_id(self.find_position(channel) or (0, 0))

    async def after(self, message_id: str, channels: ChannelFilter, count: int) -> MissedMessages:
        position, channel = min(parse_id(message_id), GREATEST), _channel_of(channels)
        retention = self.find_retention(channel) or UNLIMITED
        command = read_command(self._keys, channel, position, count, retention)
        [reply] = await self._commands.read([command], slot=self._keys.slot(channel))
        return parse_page(channel, reply, position, retention)

    async def latest(self, channels: ChannelFilter, count: int) -> list[Message]:
        channel = _channel_of(channels)
        limit, seconds = self.find_retention(channel) or UNLIMITED
        entries = ("XREVRANGE", self._keys.stream(channel), "+", "-", "COUNT", min(count, limit))
        time, found = await self._commands.read([("TIME",), entries], slot=self._keys.slot(channel))
        oldest = oldest_kept_at(time, seconds)
        messages = [parse_entry(channel, entry) for entry in reversed(found)]
        return [message for position, message in messages if position >= oldest]


def _no_position(channel: str) -> None:
    """Used until the broker sets ``find_position``."""


def _channel_of(channels: ChannelFilter) -> str:
    assert channels.channel is not None, "the hub refuses patterns"
    return channels.channel
