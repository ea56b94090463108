"""The presence entries known to a process, by topic and key, and their latest changes."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

__all__ = ["PresenceEntry", "PresenceIndex"]

_quote = json.encoder.encode_basestring


@dataclass(frozen=True, slots=True)
class PresenceEntry:
    """One *meta*: the presence of one channel under a key.

    Args:
        topic: the topic, such as ``"room:1"``.
        key: the key, such as the name of a user, who may have several entries.
        ref: the ``phx_ref``, which is unique. Entries never change.
        meta: the meta as JSON text, with its ``phx_ref``.
    """

    topic: str
    key: str
    ref: str
    meta: str


class _TopicEntries:
    """The entries of one topic.

    ``encoded`` has the same keys in the same order as ``metas``; its values are stale for the keys
    in ``stale``. ``joined`` and ``left`` are the changes since the last diff.
    """

    __slots__ = ("encoded", "joined", "left", "metas", "stale", "state")

    def __init__(self) -> None:
        self.metas: dict[str, dict[str, str]] = {}  # by key and ref
        self.encoded: dict[str, str] = {}  # by key
        self.stale: set[str] = set()
        self.state: str | None = None
        self.joined: dict[str, PresenceEntry] = {}  # by ref
        self.left: dict[str, PresenceEntry] = {}

    def changed(self, key: str) -> None:
        self.state = None
        self.stale.add(key)


class PresenceIndex:
    """The entries of all processes, which clients receive as states and diffs.

    A client that applies a state of a topic and then every later diff has the same entries. A diff
    covers all changes since the previous one; entries that were both added and removed in between
    are omitted. The cost of a change depends on the number of entries of its key, not of the topic.
    """

    def __init__(self) -> None:
        self._topics: dict[str, _TopicEntries] = {}
        self._changed: dict[str, _TopicEntries] = {}

    @property
    def has_changes(self) -> bool:
        """Whether entries were added or removed since the last diffs."""
        return bool(self._changed)

    def add(self, entry: PresenceEntry) -> None:
        """Add an entry that is not present."""
        topic = self._topics.get(entry.topic)
        if topic is None:
            topic = self._topics[entry.topic] = _TopicEntries()
        metas = topic.metas.get(entry.key)
        if metas is None:
            metas = topic.metas[entry.key] = {}
            topic.encoded[entry.key] = ""
        metas[entry.ref] = entry.meta
        topic.changed(entry.key)
        if topic.left.pop(entry.ref, None) is None:
            topic.joined[entry.ref] = entry
        self._changed[entry.topic] = topic

    def remove(self, entry: PresenceEntry) -> None:
        """Remove an entry that is present."""
        topic = self._topics[entry.topic]
        metas = topic.metas[entry.key]
        del metas[entry.ref]
        if metas:
            topic.changed(entry.key)
        else:
            del topic.metas[entry.key], topic.encoded[entry.key]
            topic.stale.discard(entry.key)
            topic.state = None
        if topic.joined.pop(entry.ref, None) is None:
            topic.left[entry.ref] = entry
        self._changed[entry.topic] = topic

    def is_new(self, entry: PresenceEntry) -> bool:
        """Whether an entry was added since the last diffs, so that no client has received it."""
        topic = self._topics.get(entry.topic)
        return topic is not None and entry.ref in topic.joined

    def encode_state(self, topic: str) -> str:
        """Return the payload of ``presence_state`` as JSON text, with all changes."""
        found = self._topics.get(topic)
        if found is None:
            return "{}"
        if found.state is None:
            for key in found.stale:
                found.encoded[key] = _encode_metas(key, found.metas[key].values())
            found.stale.clear()
            found.state = f"{{{','.join(found.encoded.values())}}}"
        return found.state

    def list(self, topic: str) -> dict[str, dict[str, Any]]:
        """Return the payload of ``presence_state``, with all changes."""
        listed: dict[str, dict[str, Any]] = json.loads(self.encode_state(topic))
        return listed

    def take_diffs(self) -> dict[str, str]:
        """Return the payload of ``presence_diff`` as JSON text for each topic that has changed."""
        changed, self._changed = self._changed, {}
        diffs = {}
        for name, topic in changed.items():
            if topic.joined or topic.left:
                joins, leaves = _encode_entries(topic.joined), _encode_entries(topic.left)
                diffs[name] = f'{{"joins":{joins},"leaves":{leaves}}}'
                topic.joined, topic.left = {}, {}
            if not topic.metas:
                del self._topics[name]
        return diffs


def _encode_entries(entries: dict[str, PresenceEntry]) -> str:
    metas: dict[str, list[str]] = {}
    for entry in entries.values():
        metas.setdefault(entry.key, []).append(entry.meta)
    return f"{{{','.join([_encode_metas(key, some) for key, some in metas.items()])}}}"


def _encode_metas(key: str, metas: Iterable[str]) -> str:
    return f'{_quote(key)}:{{"metas":[{",".join(metas)}]}}'
