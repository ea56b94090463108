"""The history in Redis streams, one for each channel."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import trio

from ...frames import Data
from ..history import (
    MAX_NUMBER,
    FindRetention,
    MessageHistory,
    MissedMessages,
    Position,
    Retention,
    format_id,
    id_after,
    parse_id,
)
from ..message import Message
from ..patterns import ChannelFilter
from .connection import Argument
from .pipeline import CommandPipeline
from .scripts import HubKeys

__all__ = ["GREATEST", "UNLIMITED", "RedisHistory", "decode_data", "oldest_kept_at", "parse_entry"]

GREATEST = (2**63, 0)
"""A position after all messages."""

UNLIMITED = Retention(2**63 - 1, None)
"""The retention of a stream that another process keeps."""


class RedisHistory(MessageHistory):
    """Reads the history of a hub.

    Args:
        commands: sends the commands.
        keys: the keys of the hub.
        find_retention: returns the retention of a channel.
    """

    def __init__(
        self, commands: CommandPipeline, keys: HubKeys, find_retention: FindRetention
    ) -> None:
        self._commands = commands
        self._keys = keys
        self.find_retention: FindRetention = find_retention

    def _retention(self, channel: str) -> Retention:
        return self.find_retention(channel) or UNLIMITED

    async def after(
        self,
        message_id: str,
        channels: ChannelFilter,
        count: int,
        *,
        waits_for_partner: bool = True,
        complete_at: float | None = None,
    ) -> MissedMessages:
        """Return the first messages that were published after a given message.

        Args:
            message_id: as in :meth:`MessageHistory.after`.
            channels: as in :meth:`MessageHistory.after`.
            count: as in :meth:`MessageHistory.after`.
            waits_for_partner: as in :meth:`CommandPipeline.read`.
            complete_at: a time, on trio's clock, by which no message after ``message_id`` had been
                published; None if unknown.
        """
        position = min(parse_id(message_id), GREATEST)
        ask = partial(self._commands.read, waits_for_partner=waits_for_partner)
        # The newest id is read first: the replies that follow are complete up to this id.
        head: list[Sequence[Argument]] = [
            ("HMGET", self._keys.ids, "last", "born", "kept"),
            ("TIME",),
        ]
        names = list(channels.names())
        if channels.channel is not None:
            (*ids, longest), time, *replies = await ask(
                [*head, *self._reads(names, position, count)]
            )
        else:
            since = max(0, position[0] - CLOCK_LEAD - INDEX_LAG)
            index = ("ZRANGEBYSCORE", self._keys.index, since, "+inf")
            (*ids, longest), time, found_names = await ask([*head, index])
            names = [name for one in found_names if channels(name := one.decode())]
            replies = await ask([*self._reads(names, position, count)])
        if None in ids:  # the keys have been deleted
            return MissedMessages((), complete=False, last="0-0")
        last, born = (parse_id(one.decode()) for one in ids)
        if position > last:
            return MissedMessages((), complete=False, last=format_id(last))
        known = _known_position(position, last, time, complete_at)
        # The index does not contain the channels whose messages have all expired.
        kept_for = int(longest or 0) / 1000
        is_forgotten = (
            channels.channel is None and kept_for > 0 and known < oldest_kept_at(time, kept_for)
        )
        found, end = list[tuple[Position, Message]](), last
        incomplete = list[str]()
        for name, entries, oldest, length in zip(
            names, replies[::3], replies[1::3], replies[2::3], strict=True
        ):
            limit, seconds = self._retention(name)
            oldest_kept = oldest_kept_at(time, seconds)
            messages = [parse_entry(name, entry) for entry in entries]
            if len(messages) == count:
                # The remaining messages that are too old are skipped.
                end = min(end, max(messages[-1][0], (oldest_kept[0] - 1, MAX_NUMBER)))
            # Redis removes expired messages only when others are published.
            kept = [one for one in messages if one[0] >= oldest_kept]
            is_incomplete = len(kept) < len(messages)
            if not oldest or parse_id(oldest[0][0].decode()) > position:
                if length > limit:  # the oldest one is not part of the history
                    kept = [one for one in kept if one is not messages[0]]
                is_incomplete = is_incomplete or length > limit or known < oldest_kept
            if is_incomplete:
                incomplete.append(name)
            found += kept
        found = sorted(one for one in found if one[0] <= end)[:count]
        if len(found) == count:
            end = found[-1][0]
        # Messages may have been lost when the history began, so there is a gap at that position.
        is_lost = is_forgotten or position < born <= end
        missed = MissedMessages(
            tuple(message for _, message in found),
            complete=not is_lost and not incomplete,
            last=format_id(end),
            more=end < last,
            incomplete=() if is_lost else tuple(incomplete),
        )
        if found or not missed.more:
            return missed
        # All messages were too old, so the next ones are part of the same gap.
        rest = await self.after(
            missed.last,
            channels,
            count,
            waits_for_partner=waits_for_partner,
            complete_at=complete_at,
        )
        if rest.complete:
            return replace(rest, complete=False, incomplete=missed.incomplete)
        is_known = bool(missed.incomplete and rest.incomplete)
        names = [*dict.fromkeys(missed.incomplete + rest.incomplete)] if is_known else []
        return replace(rest, incomplete=tuple(names))

    def _reads(
        self, names: Iterable[str], position: Position, count: int
    ) -> Iterator[Sequence[Argument]]:
        """Yield commands for each channel: entries after the position, oldest entry, length."""
        start = id_after(position)
        for stream in map(self._keys.stream, names):
            yield "XRANGE", stream, start, "+", "COUNT", count
            yield "XRANGE", stream, "-", "+", "COUNT", 1
            yield "XLEN", stream

    async def latest(self, channels: ChannelFilter, count: int) -> list[Message]:
        names = list(channels.names())
        if channels.channel is None:
            [index] = await self._commands.read([("ZREVRANGE", self._keys.index, 0, -1)])
            names = [name for one in index if channels(name := one.decode())][:count]
        retentions = [self._retention(name) for name in names]
        time, *replies = await self._commands.read(
            [
                ("TIME",),
                *(
                    ("XREVRANGE", self._keys.stream(name), "+", "-", "COUNT", min(count, limit))
                    for name, (limit, _) in zip(names, retentions, strict=True)
                ),
            ]
        )
        found = [
            message
            for name, (_, seconds), entries in zip(names, retentions, replies, strict=True)
            for oldest_kept in [oldest_kept_at(time, seconds)]
            for entry in entries
            if (message := parse_entry(name, entry))[0] >= oldest_kept
        ]
        return [message for _, message in sorted(found)[-count:]]


CLOCK_LEAD = 60_000
"""Milliseconds by which the ids may be ahead of the clock after a failover."""

INDEX_LAG = 1000
"""Milliseconds by which the index may be behind the latest message of a channel."""


def _known_position(
    position: Position, last: Position, time: Any, complete_at: float | None
) -> Position:
    """Return a position at or after the subscriber's, with no missing messages in between.

    Args:
        position: the position of the subscriber.
        last: the newest id.
        time: the reply to TIME.
        complete_at: as in :meth:`RedisHistory.after`.
    """
    if position == last:
        return GREATEST
    if complete_at is None:
        return position
    return max(position, oldest_kept_at(time, trio.current_time() - complete_at))


def oldest_kept_at(time: Any, seconds: float | None) -> Position:
    """Return the earliest position whose messages have not expired."""
    if seconds is None:
        return 0, 0
    now = int(time[0]) * 1000 + int(time[1]) // 1000
    return max(0, now - int(seconds * 1000)), 0


def parse_entry(channel: str, entry: Any) -> tuple[Position, Message]:
    """Return the position and the message of a stream entry.

    An entry consists of an id, and of alternating fields and values.
    """
    entry_id, (_, data) = entry
    text = entry_id.decode()
    return parse_id(text), Message(channel, decode_data(data), text)


def decode_data(payload: bytes) -> Data:
    """Return valid UTF-8 as text, because Redis does not distinguish text from binary."""
    try:
        return payload.decode()
    except UnicodeDecodeError:
        return payload
