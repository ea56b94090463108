"""``Presence``: who has joined a topic, in all processes that share a hub."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import trio

from .._hints import describe_value
from ..codecs import JSON
from ..errors import BrokerError, BrokerUnavailable, DecodeError, InvalidOption, UsageError
from ..protocols.phoenix.errors import ChannelClosed
from ..protocols.phoenix.presence import DIFF, STATE
from ..pubsub import BrokerSession, Gap, Message, Subscriber
from ..pubsub.message import TOPIC_PREFIX
from .channel import Channel
from .channels import Channels
from .machine import JoinState
from .presence_index import PresenceEntry
from .replica import TICK_SECONDS, PresenceReplica, check_entry

if TYPE_CHECKING:
    from .actor import ChannelActor

__all__ = ["Presence"]

_json = JSON()
_logger = logging.getLogger("trioglock.channels")

HUB_CHANNEL = f"{TOPIC_PREFIX}presence"
"""The channel of the hub on which processes announce their entries."""

MERGE_SECONDS = 0.01
"""Changes within this time are sent as one diff."""

SECONDS_PER_DELIVERY = 30e-6
"""Roughly three times the cost of delivering a diff to one client.

After diffs are sent, the next ones wait this long for each client that was sent one, so that more
changes are merged in large topics.
"""

MAX_MERGE_SECONDS = 0.25
"""The next diffs are never delayed by more than this."""

END_SECONDS = 1.0
"""Maximum number of seconds for sending the last message to other processes when the hub closes."""


class Presence:
    """Tells each member of a topic who else has joined, like Phoenix's ``Presence``.

    ::

        presence = Presence(channels)

        class Room(Channel[User]):
            async def join(self, topic, payload, user):
                await presence.track(self, user.name, {"status": "here"})
                return {}, user

    The tracking client receives ``presence_state``, and all members of the topic receive a
    ``presence_diff`` when entries are added, changed or removed; phoenix.js and other Phoenix
    clients turn both into a list. Both are sent about 10 milliseconds after the change, together
    with other changes; in large topics with many changes, after up to a quarter of a second.
    Once a client is tracked, it receives no diff for a change that its ``presence_state`` already
    contains. It may have received diffs for changes made before it was tracked.

    Processes that share a hub announce their entries to each other. If a process is silent for 30
    seconds, its entries are removed. They are removed immediately when its hub closes.

    Args:
        channels: the server.
        name: a name for this process that is unique and stays the same when the process is
            restarted. With it, the entries from before a crash are removed as soon as the process
            has restarted. By default, the name is random.

    Raises:
        InvalidOption: an argument has the wrong type.
        UsageError: the server already has a Presence.
    """

    def __init__(self, channels: Channels, *, name: str | None = None) -> None:
        if not isinstance(channels, Channels):
            raise InvalidOption(f"channels must be a Channels, not {describe_value(channels)}")
        if channels._has_presence:  # noqa: SLF001 - the same package
            raise UsageError(f"{channels!r} already has a Presence: its diffs would be sent twice")
        if not (name is None or (isinstance(name, str) and name)):
            raise InvalidOption(f"name must be a str that is not empty, not {name!r}")
        channels._has_presence = True  # noqa: SLF001
        self._index = channels._index  # noqa: SLF001
        self._hub = channels.hub
        self._name = name
        self._replica: PresenceReplica | None = None
        self._tracked: dict[ChannelActor, dict[str, PresenceEntry]] = {}
        self._needs_state: dict[ChannelActor, None] = {}
        self._changed = trio.Event()
        self._has_messages = trio.Event()
        self._is_unavailable = False
        self._hub._add_service(self._start)  # noqa: SLF001 - a part of the package

    def __repr__(self) -> str:
        return f"<Presence of {len(self._tracked)} channels in this process>"

    async def track(self, channel: Channel[Any], key: str, meta: Mapping[str, Any]) -> None:
        """Add an entry for a channel, which is removed when the channel ends.

        The client is sent ``presence_state`` when the first entry for its channel is added. In
        ``join``, the entry is added after the response has been sent.

        Args:
            channel: the channel.
            key: identifies the user; a user with several channels has a meta for each.
            meta: any fields that others may see, a JSON object of at most 32 KiB.

        Raises:
            ChannelClosed: the channel has ended.
            UsageError: the channel already has this key, it belongs to another hub, or the hub is
                not open.
            InvalidOption: ``key`` is not a str, ``meta`` is not a mapping, or both together are too
                large.
            EncodeError: ``key`` or ``meta`` cannot be encoded as JSON.
        """
        actor = check_actor(channel)
        if actor.hub is not self._hub:
            raise UsageError(
                f"the {type(channel).__name__} belongs to a different hub than this Presence, for "
                "example to the hub of a MockPhoenixServer: in tests, serve the Channels object "
                "that was passed to Presence()"
            )
        self._open_replica()
        meta = copy_meta(actor.join.topic, key, meta)
        if key in (actor.pending_presence or {}) or key in self._tracked.get(actor, {}):
            raise UsageError(f"the channel already has the key {key!r}; use presence.update()")
        if actor.join.state is not JoinState.JOINING:
            self._track(actor, key, meta)
        elif actor.pending_presence is None:
            actor.pending_presence = {key: meta}
            actor.add_start_callback(partial(self._track_pending, actor))
        else:
            actor.pending_presence[key] = meta

    def _track_pending(self, actor: ChannelActor) -> None:
        entries, actor.pending_presence = actor.pending_presence, None
        for key, meta in (entries or {}).items():
            self._track(actor, key, meta)

    def _track(self, actor: ChannelActor, key: str, meta: dict[str, Any]) -> None:
        replica = self._replica
        if replica is None or actor.join.state is JoinState.ENDED:
            return  # the hub or the connection has closed while the client was joining
        entries = self._tracked.get(actor)
        if entries is None:
            actor.add_end_callback(partial(self._forget, actor))
            entries = self._tracked[actor] = {}
            self._needs_state[actor] = None  # the client has no state, so it ignores diffs
        entries[key] = replica.track(actor.join.topic, key, meta)
        self._wake()

    async def update(self, channel: Channel[Any], key: str, meta: Mapping[str, Any]) -> None:
        """Replace the meta of an entry.

        Args:
            channel: as in :meth:`track`.
            key: as in :meth:`track`.
            meta: as in :meth:`track`.

        Raises:
            ChannelClosed: the channel has ended.
            UsageError: the channel does not have this key, or the hub is not open.
            InvalidOption, EncodeError: as in :meth:`track`.
        """
        replica = self._open_replica()
        actor = check_actor(channel)
        pending, entries = actor.pending_presence or {}, self._tracked.get(actor, {})
        if key in pending:
            pending[key] = copy_meta(channel.topic, key, meta)
        elif key in entries:
            entries[key] = replica.update(entries[key], copy_meta(channel.topic, key, meta))
            self._wake()
        else:
            raise UsageError(f"the channel does not have the key {key!r}; use presence.track()")

    async def untrack(self, channel: Channel[Any], key: str) -> None:
        """Remove an entry; do nothing if the channel does not have it.

        Args:
            channel: as in :meth:`track`.
            key: as in :meth:`track`.
        """
        actor = channel._attached  # noqa: SLF001
        (actor.pending_presence or {}).pop(key, None)
        entry = self._tracked.get(actor, {}).pop(key, None)
        if entry is not None and self._replica is not None:
            self._replica.untrack(entry)
            self._wake()

    def list(self, topic: str) -> dict[str, dict[str, Any]]:
        """Return the entries of a topic in all processes, as in ``presence_state``.

        Args:
            topic: the topic.

        Returns:
            ``{key: {"metas": [meta, ...]}}``, a copy; every meta has its ``phx_ref``.

        Raises:
            UsageError: the hub is not open.
        """
        return self._open_replica().index.list(topic)

    def _open_replica(self) -> PresenceReplica:
        if self._replica is None:
            raise UsageError(f"the hub {self._hub.name!r} is not open")
        return self._replica

    def _forget(self, actor: ChannelActor) -> None:
        """Remove the entries of a channel that has ended."""
        self._needs_state.pop(actor, None)
        entries = self._tracked.pop(actor, {})
        if self._replica is not None:
            for entry in entries.values():
                self._replica.untrack(entry)
            self._wake()

    def _wake(self) -> None:
        self._changed.set()

    # Tasks.

    def _start(self, session: BrokerSession, nursery: trio.Nursery) -> None:
        """Begin when the hub opens."""
        name = secrets.token_urlsafe(12) if self._name is None else self._name
        replica = self._replica = PresenceReplica(name, time.time_ns())
        self._hub.join(PresenceSubscriber(replica, self._wake), HUB_CHANNEL)
        self._wake()
        nursery.start_soon(self._run, replica, session)

    async def _run(self, replica: PresenceReplica, session: BrokerSession) -> None:
        """Exchange messages with other processes while the hub is open."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._send_diffs, replica)
                nursery.start_soon(self._publish, replica, session)
                while True:
                    await trio.sleep(TICK_SECONDS)
                    replica.tick()
                    self._wake()
        finally:
            self._replica = None
            self._tracked.clear()
            self._needs_state.clear()
            with trio.move_on_after(END_SECONDS, shield=True), suppress(*_UNAVAILABLE):
                await session.publish(HUB_CHANNEL, replica.end())

    async def _send_diffs(self, replica: PresenceReplica) -> None:
        next_at = trio.current_time()
        while True:
            await self._changed.wait()
            await trio.sleep_until(max(trio.current_time() + MERGE_SECONDS, next_at))
            self._changed = trio.Event()
            seconds = SECONDS_PER_DELIVERY * self._send_diffs_now(replica)
            next_at = trio.current_time() + min(seconds, MAX_MERGE_SECONDS)
            if replica.has_messages:
                self._has_messages.set()

    def _send_diffs_now(self, replica: PresenceReplica) -> int:
        """Send all changes, and return the number of clients that receive them."""
        # States already contain the changes in the diffs, so each client receives only one of the
        # two.
        needs_state, self._needs_state = self._needs_state, {}
        deliveries = len(needs_state)
        for topic, diff in replica.index.take_diffs().items():
            frame = f"{_json.encode([None, None, topic, DIFF])[:-1]},{diff}]"
            deliveries += self._index.deliver_local(topic, frame, exclude=needs_state.keys())
        for actor in needs_state:
            join = actor.join
            if join.state is JoinState.JOINED:
                head = _json.encode([join.join_ref, None, join.topic, STATE])[:-1]
                actor.outgoing.send(f"{head},{replica.index.encode_state(join.topic)}]")
        return deliveries

    async def _publish(self, replica: PresenceReplica, session: BrokerSession) -> None:
        while True:
            await self._has_messages.wait()
            self._has_messages = trio.Event()
            try:
                for message in replica.take_messages():
                    await session.publish(HUB_CHANNEL, message)
            except _UNAVAILABLE as error:
                # The other processes detect the missing deltas.
                if not self._is_unavailable:
                    _logger.warning("presence cannot be announced to other processes: %s", error)
                self._is_unavailable = True
            else:
                self._is_unavailable = False


class PresenceSubscriber(Subscriber):
    """Receives the messages of other processes.

    Args:
        replica: applies them.
        wake: called when there is something to send.
    """

    def __init__(self, replica: PresenceReplica, wake: Callable[[], None]) -> None:
        self._replica = replica
        self._wake = wake
        self._has_warned = False

    def put(self, event: Message | Gap) -> None:
        replica = self._replica
        if isinstance(event, Gap):
            replica.ask_all()
        elif event.channel != HUB_CHANNEL:
            return  # a message to all subscribers of the hub
        else:
            self._receive(event)
        if replica.has_messages or replica.index.has_changes:
            self._wake()

    def _receive(self, message: Message) -> None:
        replica = self._replica
        try:
            replica.receive(message.data)
        except DecodeError as error:
            self._warn("a message of another process is ignored: %s", error)
        if replica.is_replaced:
            self._warn(
                "another process uses the name %r and replaces the presence of this process: "
                "every process needs its own name",
                replica.name,
            )

    def _warn(self, text: str, *args: object) -> None:
        if not self._has_warned:
            self._has_warned = True
            _logger.error(text, *args)

    def end(self) -> None:
        """Do nothing: the tasks of the presence end with the hub."""


_UNAVAILABLE = (BrokerUnavailable, BrokerError)


def check_actor(channel: Channel[Any]) -> ChannelActor:
    """Return the actor of a channel.

    Raises:
        UsageError: the channel belongs to no client.
        ChannelClosed: it has ended.
    """
    actor = channel._attached  # noqa: SLF001 - the same package
    if actor.join.state is JoinState.ENDED:
        raise ChannelClosed(f"the channel {actor.join.topic!r} has ended")
    return actor


def copy_meta(topic: str, key: object, meta: object) -> dict[str, Any]:
    """Return a copy of a meta.

    Raises:
        InvalidOption: key or meta has the wrong type, or both together are too large.
        EncodeError: they cannot be encoded as JSON.
    """
    if not isinstance(key, str):
        raise InvalidOption(f"key must be a str, not {describe_value(key)}")
    if not isinstance(meta, Mapping):
        raise InvalidOption(f"meta must be a dict, not {describe_value(meta)}")
    return check_entry(topic, key, dict(meta))
