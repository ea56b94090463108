"""Presence in several processes, without I/O: the messages that they exchange.

Each process owns the entries of its channels, and all processes exchange these messages, JSON texts
below 64 KiB::

    [name, incarnation, seq, "heartbeat"]
    [name, incarnation, seq, "delta", [[topic, key, meta], ...], [ref, ...]]
    [name, incarnation, seq, "ask", names]
    [name, incarnation, seq, "state", part, parts, [[topic, key, meta], ...]]
    [name, incarnation, seq, "bye"]

A process numbers its deltas with ``seq``, starting with 1. All other messages contain the number of
its latest delta, so that other processes detect missing deltas. They apply deltas in order; a
process that misses one asks the owner for its state, all entries after the delta ``seq``, in
several parts. ``names`` are the processes that are asked, or null for all of them: a process asks
all when it starts.

A process is removed after 30 seconds of silence, measured in ticks of the receiving process, so a
process that was itself suspended does not remove the others. The incarnation increases each time
that a process starts under its name; messages of earlier incarnations are ignored.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ..codecs import JSON
from ..errors import DecodeError, InvalidOption
from ..frames import Data
from .presence_index import PresenceEntry, PresenceIndex

__all__ = ["MAX_ENTRY_SIZE", "MAX_SILENT_TICKS", "TICK_SECONDS", "PresenceReplica", "check_entry"]

TICK_SECONDS = 0.5
"""Seconds between heartbeats."""

MAX_SILENT_TICKS = 60
"""The entries of a process are removed after this many ticks without a message from it."""

ASK_TICKS = 2
"""Ticks before a process that has not sent its state is asked again."""

MAX_ENTRY_SIZE = 2**15
"""Maximum size of the JSON of an entry, in bytes."""

PART_SIZE = 2**16 - 2**12
"""Maximum size of the entries in one message, in bytes.

The remaining space is for the other fields.
"""

MAX_HELD_DELTAS = 1_000
"""Maximum number of deltas kept while an earlier one is missing."""

_json = JSON()


class _RemoteProcess:
    """The known state of another process."""

    __slots__ = (
        "announced",
        "applied",
        "entries",
        "has_ended",
        "held",
        "incarnation",
        "parts",
        "parts_seq",
        "silent_ticks",
        "ticks_to_ask",
    )

    def __init__(self, incarnation: int) -> None:
        self.incarnation = incarnation
        self.has_ended = False
        self.silent_ticks = 0
        self.ticks_to_ask = 0
        self.announced = 0  # the latest delta of which it is known
        self.applied = 0  # the latest delta whose changes are in the entries
        self.entries: dict[str, PresenceEntry] = {}  # by ref
        self.held: dict[int, tuple[list[PresenceEntry], list[str]]] = {}  # later deltas
        self.parts_seq = 0
        self.parts: dict[int, list[PresenceEntry]] = {}  # of an incomplete state

    @property
    def is_behind(self) -> bool:
        return self.applied < self.announced


class PresenceReplica:
    """The presence of all processes as one of them knows it.

    Call :meth:`tick` every :data:`TICK_SECONDS`, :meth:`receive` with each message of the others,
    and publish the messages from :meth:`take_messages` soon after :attr:`has_messages` is true.
    Changes of the entries are in :attr:`index`.

    Args:
        name: identifies this process. Only one process may have it at a time.
        incarnation: an integer larger than those with which this name was used before.
    """

    def __init__(self, name: str, incarnation: int) -> None:
        self.name: str = name
        self.index: PresenceIndex = PresenceIndex()
        """The entries of all processes."""
        self.is_replaced: bool = False
        """Whether another process uses the same name; the others ignore this one."""
        self._incarnation = incarnation
        self._head = f"{_json.encode([name, incarnation])[:-1]},"
        self._ref_head = secrets.token_urlsafe(9)
        self._refs = 0
        self._seq = 0
        self._entries: dict[str, PresenceEntry] = {}  # by ref
        self._unannounced: dict[str, PresenceEntry] = {}  # those that no delta contains
        self._removed: list[str] = []  # refs that the next delta removes
        self._remotes: dict[str, _RemoteProcess] = {}
        self._asks: dict[str, None] = {}
        self._asks_all = True
        self._needs_heartbeat = False
        self._needs_state = False
        self._may_send_state = True

    # The entries of this process.

    def track(self, topic: str, key: str, meta: Mapping[str, Any]) -> PresenceEntry:
        """Add an entry that :func:`check_entry` accepts."""
        return self._add(topic, key, dict(meta), None)

    def update(self, entry: PresenceEntry, meta: Mapping[str, Any]) -> PresenceEntry:
        """Replace an entry of this process by one with another meta, under the same key.

        The new entry has the ``phx_ref_prev`` of the latest entry that clients know.
        """
        previous: str | None = entry.ref
        if self.index.is_new(entry):
            previous = _json.decode(entry.meta).get("phx_ref_prev")
        updated = self._add(entry.topic, entry.key, dict(meta), previous)
        self.untrack(entry)
        return updated

    def untrack(self, entry: PresenceEntry) -> None:
        """Remove an entry of this process."""
        del self._entries[entry.ref]
        if self._unannounced.pop(entry.ref, None) is None:
            self._removed.append(entry.ref)
        self.index.remove(entry)

    def _add(
        self, topic: str, key: str, meta: dict[str, Any], previous: str | None
    ) -> PresenceEntry:
        ref = f"{self._ref_head}{self._refs:x}"
        meta["phx_ref"] = ref
        meta.pop("phx_ref_prev", None)
        if previous is not None:
            meta["phx_ref_prev"] = previous
        entry = PresenceEntry(topic, key, ref, _json.encode(meta))
        self._refs += 1
        self._entries[ref] = self._unannounced[ref] = entry
        self.index.add(entry)
        return entry

    # Messages to the other processes.

    @property
    def has_messages(self) -> bool:
        """Whether :meth:`take_messages` would return any."""
        return bool(
            self._unannounced
            or self._removed
            or self._asks
            or self._asks_all
            or self._needs_heartbeat
            or (self._needs_state and self._may_send_state)
        )

    def take_messages(self) -> list[str]:
        """Return the messages to publish, in this order. Lost messages do no harm."""
        messages = list(self._take_deltas())
        if self._needs_state and self._may_send_state:
            # At most once per tick, regardless of how many processes ask.
            self._needs_state = self._may_send_state = False
            messages += self._encode_state()
        if self._asks_all or self._asks:
            names = "null" if self._asks_all else _json.encode(list(self._asks))
            messages.append(self._encode('"ask"', names))
            self._asks_all = False
            self._asks.clear()
        if self._needs_heartbeat and not messages:
            messages.append(self._encode('"heartbeat"'))
        self._needs_heartbeat = False
        return messages

    def ask_all(self) -> None:
        """Ask all processes for their entries: messages may have been missed."""
        self._asks_all = True

    def end(self) -> str:
        """Return the last message: the others remove all entries of this process."""
        return self._encode('"bye"')

    def _take_deltas(self) -> Iterator[str]:
        # Additions come first: a client must not see a key leave while it is being updated.
        joins, self._unannounced = self._unannounced, {}
        leaves, self._removed = self._removed, []
        for part in _split(map(_encode_entry, joins.values())):
            self._seq += 1
            yield self._encode('"delta"', part, "[]")
        for part in _split(map(_json.encode, leaves)):
            self._seq += 1
            yield self._encode('"delta"', "[]", part)

    def _encode_state(self) -> Iterator[str]:
        parts = list(_split(map(_encode_entry, self._entries.values()))) or ["[]"]
        for number, part in enumerate(parts):
            yield self._encode('"state"', str(number), str(len(parts)), part)

    def _encode(self, kind: str, *fields: str) -> str:
        return f"{self._head}{','.join([str(self._seq), kind, *fields])}]"

    # Messages from the other processes.

    def receive(self, message: Data) -> None:
        """Apply a message of another process; those of this process are ignored.

        Raises:
            DecodeError: it is not a message of this module, and is ignored.
        """
        if isinstance(message, str) and message.startswith(self._head):
            return
        match _json.decode(message):
            case [str(name), int(incarnation), int(seq), str(kind), *fields]:
                pass
            case _:
                raise DecodeError(f"not a message of presence: {message!r:.100}")
        if name == self.name:
            self.is_replaced = self.is_replaced or incarnation > self._incarnation
            return
        remote = self._find_remote(name, incarnation)
        if remote is None:
            return
        self._handle(remote, seq, kind, fields)
        remote.silent_ticks = 0
        remote.announced = max(remote.announced, seq)
        if remote.has_ended or not remote.is_behind:
            self._asks.pop(name, None)
            remote.ticks_to_ask = 0
        elif not remote.ticks_to_ask:
            self._ask(name, remote)

    def _handle(self, remote: _RemoteProcess, seq: int, kind: str, fields: list[Any]) -> None:
        match kind, fields:
            case "heartbeat", []:
                pass
            case "delta", [list(joins), list(leaves)]:
                self._apply_delta(remote, seq, _parse_entries(joins), _parse_refs(leaves))
            case "ask", [None]:
                self._needs_state = True
            case "ask", [list(names)]:
                self._needs_state = self._needs_state or self.name in names
            case "state", [int(part), int(parts), list(entries)]:
                self._apply_state(remote, seq, part, parts, _parse_entries(entries))
            case "bye", []:
                self._clear(remote)
                remote.has_ended = True
            case _:
                raise DecodeError(f"not a message of presence: {[kind, *fields]!r:.100}")

    def tick(self) -> None:
        """Let :data:`TICK_SECONDS` pass."""
        self._needs_heartbeat = self._may_send_state = True
        for name, remote in list(self._remotes.items()):
            remote.silent_ticks += 1
            if remote.silent_ticks > MAX_SILENT_TICKS:
                self._clear(remote)
                del self._remotes[name]
                self._asks.pop(name, None)
            elif remote.ticks_to_ask:
                remote.ticks_to_ask -= 1
                if not remote.ticks_to_ask:
                    self._ask(name, remote)

    def _ask(self, name: str, remote: _RemoteProcess) -> None:
        self._asks[name] = None
        remote.ticks_to_ask = ASK_TICKS

    def _find_remote(self, name: str, incarnation: int) -> _RemoteProcess | None:
        """The process that sent a message; None if it has ended."""
        remote = self._remotes.get(name)
        if remote is None or incarnation > remote.incarnation:
            if remote is not None:
                self._clear(remote)
            remote = self._remotes[name] = _RemoteProcess(incarnation)
        return None if remote.has_ended or incarnation < remote.incarnation else remote

    def _apply_delta(
        self, remote: _RemoteProcess, seq: int, joins: list[PresenceEntry], leaves: list[str]
    ) -> None:
        if seq == remote.applied + 1:
            self._apply(remote, joins, leaves)
            remote.applied = seq
            self._apply_held(remote)
        elif seq > remote.applied and len(remote.held) < MAX_HELD_DELTAS:
            remote.held[seq] = joins, leaves

    def _apply_state(
        self, remote: _RemoteProcess, seq: int, part: int, parts: int, entries: list[PresenceEntry]
    ) -> None:
        if seq <= remote.applied or seq < remote.parts_seq:
            return
        if seq > remote.parts_seq:
            remote.parts_seq, remote.parts = seq, {}
        remote.parts[part] = entries
        if len(remote.parts) < parts:
            return
        current = {entry.ref: entry for _, some in sorted(remote.parts.items()) for entry in some}
        joins = [entry for ref, entry in current.items() if ref not in remote.entries]
        self._apply(remote, joins, [ref for ref in remote.entries if ref not in current])
        remote.applied = seq
        remote.held = {number: held for number, held in remote.held.items() if number > seq}
        self._apply_held(remote)

    def _apply_held(self, remote: _RemoteProcess) -> None:
        while remote.applied + 1 in remote.held:
            remote.applied += 1
            self._apply(remote, *remote.held.pop(remote.applied))
        if remote.parts_seq <= remote.applied:
            remote.parts = {}

    def _apply(
        self, remote: _RemoteProcess, joins: Iterable[PresenceEntry], leaves: Iterable[str]
    ) -> None:
        for entry in joins:
            if entry.ref not in remote.entries:
                remote.entries[entry.ref] = entry
                self.index.add(entry)
        for ref in leaves:
            left = remote.entries.pop(ref, None)
            if left is not None:
                self.index.remove(left)

    def _clear(self, remote: _RemoteProcess) -> None:
        self._apply(remote, (), list(remote.entries))
        remote.held, remote.parts = {}, {}


def check_entry(topic: str, key: str, meta: dict[str, Any]) -> dict[str, Any]:
    """Return a deep copy of the meta of an entry.

    Raises:
        EncodeError: key or meta cannot be encoded as JSON.
        InvalidOption: the entry is too large.
    """
    # Nested as deeply as in a message to a client.
    encoded = _json.encode([[[[[topic, key, meta]]]]])
    size = _size(encoded)
    if size > MAX_ENTRY_SIZE:
        raise InvalidOption(
            f"topic, key and meta of a presence may have {MAX_ENTRY_SIZE} bytes, not {size}"
        )
    copy: dict[str, Any] = _json.decode(encoded)[0][0][0][0][2]
    return copy


def _encode_entry(entry: PresenceEntry) -> str:
    return f"{_json.encode([entry.topic, entry.key])[:-1]},{entry.meta}]"


def _parse_entries(values: list[Any]) -> list[PresenceEntry]:
    entries = []
    for value in values:
        match value:
            case [str(topic), str(key), {"phx_ref": str(ref)} as meta]:
                entries.append(PresenceEntry(topic, key, ref, _json.encode(meta)))
            case _:
                raise DecodeError(f"not an entry of presence: {value!r:.100}")
    return entries


def _parse_refs(values: list[Any]) -> list[str]:
    if not all(isinstance(value, str) for value in values):
        raise DecodeError(f"refs must be strings: {values!r:.100}")
    return values


def _split(items: Iterable[str]) -> Iterator[str]:
    """Yield JSON arrays of items of at most :data:`PART_SIZE` bytes; none without items."""
    part: list[str] = []
    part_size = 0
    for item in items:
        size = _size(item) + 1
        if part and part_size + size > PART_SIZE:
            yield f"[{','.join(part)}]"
            part, part_size = [], 0
        part.append(item)
        part_size += size
    if part:
        yield f"[{','.join(part)}]"


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())
