"""The Redis channels and patterns that a hub subscribes to: those with subscribers in this process.

Commands are sent in batches, each of which ends with PING. The next batch is sent when the reply to
this PING has arrived, so subscriptions added in the meantime share its commands. Redis sends
replies and messages in order, so those before the reply to PING show which subscriptions are in
effect.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeAlias

from ..message import EVERYONE
from ..patterns import ChannelFilter, Matcher, compile_pattern
from .connection import RedisDisconnected
from .scripts import HubKeys

__all__ = ["Interest"]

_logger = logging.getLogger("trioglock.pubsub")

MAX_NAMES = 1000
"""Maximum number of channels in one command; Redis runs nothing else during the command."""

MAX_BATCHES = 3
"""Maximum number of batches before a key is confirmed or refused.

A key is tried together with other keys, then in a separate command, and then with a wider pattern.
"""

MAX_LOGGED = 100
"""Maximum number of refused subscriptions that are logged per connection; clients choose the
channels, so there may be any number of them."""

Key: TypeAlias = tuple[bool, str]
"""A channel or pattern of the hub: whether it is a pattern, and its text."""

BROADCASTS: Key = (False, EVERYONE)

Command: TypeAlias = tuple[str, ...]


def key_of(channels: ChannelFilter) -> Key:
    return channels.channel is None, channels.pattern


class Interest:
    """The subscriptions that a hub needs, and those of its current connection.

    Args:
        keys: the names of the hub in Redis.
        has_history: whether the hub must subscribe to the Redis channels that carry messages with
            ids. Without a history, this is optional, because the Redis user may lack permission for
            these channels.
    """

    def __init__(self, keys: HubKeys, *, has_history: bool) -> None:
        self.waits: bool = False
        """Whether a batch has been sent whose replies have not all arrived."""
        self.errors: dict[Key, Exception] = {}
        """The errors of subscriptions that Redis refuses."""
        self._keys = keys
        self._has_history = has_history
        self._wanted: dict[Key, None] = {BROADCASTS: None}
        self._added: dict[Key, None] = {}  # to be subscribed with the next batch
        self._removed: dict[Key, None] = {}  # to be unsubscribed with the next batch
        self._alone: set[Key] = set()  # each is sent in a separate command
        self._wide: set[Key] = set()  # patterns for which only a wider pattern is permitted
        self._logged: set[Key] = set()  # refused subscriptions that have been logged
        self._sent: set[Key] = set()
        self._batch: list[Key] = []
        self._confirmed: set[Key] = set()
        # The subscriptions in effect at the current position in the stream of replies.
        self._channels: set[bytes] = set()
        self._patterns: dict[bytes, Matcher] = {}
        self._uses_ids = True  # whether the channels of messages with ids are subscribed to

    def reset(self) -> None:
        """Discard the state of the previous connection."""
        self.waits = False
        self.errors.clear()
        self._added, self._removed = dict(self._wanted), {}
        for state in (self._alone, self._wide, self._logged, self._sent, self._confirmed):
            state.clear()
        # A refusal would apply to the whole command, and without broadcasts the hub is down.
        self._alone.add(BROADCASTS)
        self._channels.clear()
        self._patterns.clear()
        self._uses_ids = True

    # The wanted subscriptions.

    def add(self, channels: ChannelFilter) -> None:
        key = key_of(channels)
        self._wanted[key] = None
        self._removed.pop(key, None)
        if key not in self._sent:
            self._added[key] = None

    def remove(self, channels: ChannelFilter) -> None:
        key = key_of(channels)
        if key == BROADCASTS:
            return
        self._wanted.pop(key, None)
        self.errors.pop(key, None)
        self._alone.discard(key)
        if key not in self._sent:
            self._wide.discard(key)
        if self._added.pop(key, self) is self and key in self._sent:
            self._removed[key] = None

    def is_confirmed(self, channels: ChannelFilter) -> bool:
        """Whether a subscription is in effect, or no longer needed."""
        key = key_of(channels)
        return key in self._confirmed or key not in self._wanted

    def error_of(self, channels: ChannelFilter) -> Exception | None:
        """The error of a subscription that Redis refuses."""
        return self.errors.get(key_of(channels))

    def is_pending(self, channel: str) -> bool:
        """Whether a subscription to a channel, possibly by a pattern, is yet to take effect."""
        if not (self._added or self.waits):
            return False
        return any(
            compile_pattern(text)(channel) if is_pattern else text == channel
            for is_pattern, text in (*self._added, *self._batch)
        )

    @property
    def has_changes(self) -> bool:
        """Whether the next batch changes a subscription."""
        return bool(self._added or self._removed)

    def filter(self) -> ChannelFilter:
        """The channels that the connection is subscribed to."""
        return InterestFilter(self._sent)

    # Commands.

    def next_batch(self) -> Iterator[Command]:
        """Yield the commands that add the missing subscriptions and remove the superfluous ones."""
        added, self._added = list(self._added), {}
        removed, self._removed = list(self._removed), {}
        self.waits, self._batch = True, added
        self._sent.update(added)
        self._sent.difference_update(removed)
        self._confirmed.difference_update(removed)
        # Garbage collection may have removed some in the meantime.
        self._removed.update((key, None) for key in added if key not in self._wanted)
        alone = [key for key in added if key in self._alone]
        together = [key for key in added if key not in self._alone]
        for keys in (together, *([key] for key in alone)):
            yield from self._commands("SUBSCRIBE", keys)
        wide = self._wide.intersection(removed)
        is_wide = len(self._wide) > len(wide)  # other keys still need the wider pattern
        yield from self._commands(
            "UNSUBSCRIBE", [key for key in removed if not (is_wide and key in wide)]
        )
        self._wide -= wide

    def _commands(self, command: str, keys: Sequence[Key]) -> Iterator[Command]:
        """Yield commands for channels and patterns, separately for each kind of permission."""
        for index in range(1 + self._uses_ids):
            for prefix, wanted in (("", False), ("P", True)):
                names = [
                    *dict.fromkeys(self._names(key)[index] for key in keys if key[0] is wanted)
                ]
                for start in range(0, len(names), MAX_NAMES):
                    yield prefix + command, *names[start : start + MAX_NAMES]

    def _names(self, key: Key) -> tuple[str, str]:
        is_pattern, text = key
        if is_pattern and key in self._wide:
            return self._keys.patterns
        return self._keys.plain(text), self._keys.stream(text)

    # Replies.

    def confirm(self, kind: bytes, name: bytes) -> None:
        """Apply the reply to one channel or pattern of a command."""
        match kind:
            case b"subscribe":
                self._channels.add(name)
            case b"unsubscribe":
                self._channels.discard(name)
            case b"psubscribe":
                self._patterns[name] = compile_pattern(name.decode())
            case b"punsubscribe":
                self._patterns.pop(name, None)

    def end_batch(self, error: Exception | None) -> None:
        """Apply the reply to the PING at the end of a batch.

        Args:
            error: the first error among the replies to the batch.

        Raises:
            RedisDisconnected: a subscription was neither confirmed nor refused.
        """
        self.waits = False
        batch, self._batch = self._batch, []
        if BROADCASTS in batch and not self._has_history:
            self._uses_ids = self._keys.stream(EVERYONE).encode() in self._channels
        for key in batch:
            if self._is_in_effect(key):
                if key in self._sent:
                    self._confirmed.add(key)
            else:
                if error is None:
                    raise RedisDisconnected("Redis did not confirm a subscription")
                self._refused(key, error)

    def _is_in_effect(self, key: Key) -> bool:
        active = self._patterns if key[0] else self._channels
        return all(name.encode() in active for name in self._names(key)[: 1 + self._uses_ids])

    def _refused(self, key: Key, error: Exception) -> None:
        """Retry with a separate command, and then, for a pattern, with a wider pattern."""
        self._sent.discard(key)
        if key not in self._wanted:
            return
        if key not in self._alone:
            self._alone.add(key)
        elif key[0] and key not in self._wide:
            # An ACL rule permits a pattern only if it is the same text as the rule.
            self._wide.add(key)
        else:
            self.errors[key] = error
            self._wide.discard(key)
            self._log_refused(key, error)
            return
        self._added[key] = None

    def _log_refused(self, key: Key, error: Exception) -> None:
        if key == BROADCASTS:  # without these, the connection fails, which is logged
            return
        if key not in self._logged and len(self._logged) < MAX_LOGGED:
            self._logged.add(key)
            kind = "pattern" if key[0] else "channel"
            _logger.warning("Redis refused to subscribe to the %s %r: %s", kind, key[1], error)

    # Messages.

    def is_first(self, pattern: bytes, channel: bytes) -> bool:
        """Whether to deliver a message that was received through a pattern.

        Redis sends a message once for its channel, if there is a subscription to the channel, and
        once for each matching pattern.
        """
        if channel in self._channels:
            return False
        if len(self._patterns) == 1:
            return True
        text = channel.decode(errors="replace")
        return pattern == next((one for one, does in self._patterns.items() if does(text)), None)


class InterestFilter(ChannelFilter):
    """The channels that a hub is currently subscribed to.

    Args:
        keys: the channels and patterns.
    """

    __slots__ = ("_channels", "_patterns")

    def __init__(self, keys: Iterable[Key]) -> None:
        super().__init__("*")
        keys = list(keys)
        self._channels = {text for is_pattern, text in keys if not is_pattern}
        self._patterns = [compile_pattern(text) for is_pattern, text in keys if is_pattern]

    def __call__(self, channel: str) -> bool:
        return channel in self._channels or any(matches(channel) for matches in self._patterns)
