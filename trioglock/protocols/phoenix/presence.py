"""Presence: the keys that are present on a channel, kept in sync with the server.

The rules follow ``assets/js/phoenix/presence.js``. The server sends ``presence_state`` after
each join, and ``presence_diff`` whenever a key joins or leaves, possibly before the first state; a
diff that arrives before the state is applied after it. A key has one *meta* for each of its
connections, identified by ``phx_ref``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from .errors import InvalidMessage

__all__ = ["Entry", "Presence"]

DIFF = "presence_diff"
STATE = "presence_state"

MAX_EARLY_DIFFS = 10_000

Entry: TypeAlias = dict[str, Any]
"""The server's data about one key: ``{"metas": [...]}``, and fields added by ``fetch/2``."""

Entries: TypeAlias = list[Any]
"""A list with one item for each key."""

Changed: TypeAlias = Callable[[str, Entry | None, Entry], object]
"""A callback with a key, its previous or remaining entry, and the part that joined or left."""


class Presence:
    """The presence of one channel; pass it to :meth:`PhoenixSocket.join`.

    The callbacks are plain functions that run while a message is handled, so they must not block.

    Args:
        on_join: called with the key, its previous entry or None, and the entry that joined.
        on_leave: called with the key, its remaining entry, and the entry that left. The key is
            removed when the remaining ``metas`` are empty.
        on_sync: called after every state and every diff.
        state_event: the server's event for the state.
        diff_event: the server's event for a diff.
    """

    def __init__(
        self,
        *,
        on_join: Changed | None = None,
        on_leave: Changed | None = None,
        on_sync: Callable[[], object] | None = None,
        state_event: str = STATE,
        diff_event: str = DIFF,
    ) -> None:
        self.state_event: str = state_event
        self.diff_event: str = diff_event
        self._on_join = on_join
        self._on_leave = on_leave
        self._on_sync = on_sync
        self._entries: dict[str, Entry] = {}
        self._early_diffs: list[Any] = []
        self._join_ref: str | None = None

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: object) -> bool:
        return key in self._entries

    @property
    def state(self) -> dict[str, Entry]:
        """A copy of all entries, by key."""
        return {key: _copy(entry) for key, entry in self._entries.items()}

    def list(self, by: Callable[[str, Entry], Any] | None = None) -> Entries:
        """Return all entries, or the results of ``by(key, entry)``, in the order of joining."""
        if by is None:
            return list(self.state.values())
        return [by(key, entry) for key, entry in self.state.items()]

    def receive(self, event: str, payload: Any, join_ref: str | None) -> bool:
        """Apply a message; return False if it is not a presence message.

        Args:
            event: the event of the message.
            payload: the payload of the message.
            join_ref: the ref of the channel's current join, whose diffs wait for its state.

        Raises:
            InvalidMessage: the payload is malformed; the presence is unchanged.
        """
        if event == self.state_event:
            fresh = _entries(payload)
            self._join_ref = join_ref
            diffs, self._early_diffs = self._early_diffs, []
            self._sync_state(fresh)
            for joins, leaves in diffs:
                self._sync_diff(joins, leaves)
        elif event == self.diff_event:
            if not isinstance(payload, Mapping):
                raise InvalidMessage(f"a presence diff must be an object, not {payload!r:.100}")
            joins, leaves = (_entries(payload.get(name, {})) for name in ("joins", "leaves"))
            if self._join_ref is None or self._join_ref != join_ref:
                self._early_diffs = [*self._early_diffs[-MAX_EARLY_DIFFS:], (joins, leaves)]
                return True
            self._sync_diff(joins, leaves)
        else:
            return False
        if self._on_sync is not None:
            self._on_sync()
        return True

    def _sync_state(self, fresh: dict[str, Entry]) -> None:
        joins: dict[str, Entry] = {}
        leaves = {key: entry for key, entry in self._entries.items() if key not in fresh}
        for key, entry in fresh.items():
            known = self._entries.get(key)
            if known is None:
                joins[key] = entry
                continue
            joined = _without(entry["metas"], known["metas"])
            left = _without(known["metas"], entry["metas"])
            if joined:
                joins[key] = {**entry, "metas": joined}
            if left:
                leaves[key] = {**known, "metas": left}
        self._sync_diff(joins, leaves)

    def _sync_diff(self, joins: dict[str, Entry], leaves: dict[str, Entry]) -> None:
        for key, joined in joins.items():
            known = self._entries.get(key)
            stayed = [] if known is None else _without(known["metas"], joined["metas"])
            self._entries[key] = {**joined, "metas": [*stayed, *joined["metas"]]}
            if self._on_join is not None:
                self._on_join(key, None if known is None else _copy(known), _copy(joined))
        for key, left in leaves.items():
            known = self._entries.get(key)
            if known is None:
                continue
            remaining = {**known, "metas": _without(known["metas"], left["metas"])}
            if remaining["metas"]:
                self._entries[key] = remaining
            else:
                del self._entries[key]
            if self._on_leave is not None:
                self._on_leave(key, _copy(remaining), _copy(left))


def _without(metas: list[Any], others: list[Any]) -> list[Any]:
    """Return the metas whose ``phx_ref`` is not in ``others``."""
    refs = {meta["phx_ref"] for meta in others}
    return [meta for meta in metas if meta["phx_ref"] not in refs]


def _entries(payload: Any) -> dict[str, Entry]:
    if not isinstance(payload, Mapping):
        raise InvalidMessage(f"presence must be an object, not {payload!r:.100}")
    for key, entry in payload.items():
        metas = entry.get("metas") if isinstance(entry, Mapping) else None
        if not isinstance(metas, list) or not all(
            isinstance(meta, Mapping) and isinstance(meta.get("phx_ref"), str) for meta in metas
        ):
            raise InvalidMessage(f"the presence of {key!r} has no metas with a phx_ref")
    return dict(payload)


def _copy(value: Any) -> Any:
    """Return a deep copy, so that callbacks may change their arguments."""
    if isinstance(value, Mapping):
        return {key: _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list) else value
