"""Who is there: the state of Phoenix.Presence, kept up to date.

The rules are those of ``assets/js/phoenix/presence.js``: a server sends ``presence_state`` after
each join, and ``presence_diff`` whenever someone comes or goes, perhaps before the first state;
a diff that comes too early is applied after it. One key may have several *metas*, one for each
connection, told apart by their ``phx_ref``.
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
"""What the server knows of one key: ``{"metas": [...]}``, and what ``fetch/2`` added."""

Entries: TypeAlias = list[Any]
"""One item for each key."""

Changed: TypeAlias = Callable[[str, Entry | None, Entry], object]
"""Gets a key, its entry before or what is left of it, and what has come or gone."""


class Presence:
    """Follows one channel: give it to :meth:`PhoenixSocket.join`.

    The callbacks are plain functions that run while the message is handled: they must not wait.

    Args:
        on_join: called with the key, its entry before, or None, and what has come.
        on_leave: called with the key, what is left of its entry, and what has gone; the key is
            gone when ``metas`` of the former is empty.
        on_sync: called after every state and every diff.
        state_event: what the server calls the state.
        diff_event: what it calls a diff.
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
        self._early: list[Any] = []
        self._join_ref: str | None = None

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: object) -> bool:
        return key in self._entries

    @property
    def state(self) -> dict[str, Entry]:
        """Every entry by its key: a copy."""
        return {key: _copy(entry) for key, entry in self._entries.items()}

    def list(self, by: Callable[[str, Entry], Any] | None = None) -> Entries:
        """Every entry, or what ``by(key, entry)`` makes of it, in the order of the keys' coming."""
        if by is None:
            return list(self.state.values())
        return [by(key, entry) for key, entry in self.state.items()]

    def receive(self, event: str, payload: Any, join_ref: str | None) -> bool:
        """Take a message; False if it is not one of presence.

        Args:
            event: its event.
            payload: its payload.
            join_ref: of the channel's present join: diffs of it wait for its state.

        Raises:
            InvalidMessage: the payload is none of presence; nothing has changed then.
        """
        if event == self.state_event:
            fresh = _entries(payload)
            self._join_ref = join_ref
            early, self._early = self._early, []
            self._sync_state(fresh)
            for joins, leaves in early:
                self._sync_diff(joins, leaves)
        elif event == self.diff_event:
            if not isinstance(payload, Mapping):
                raise InvalidMessage(f"a presence diff is an object, not {payload!r:.100}")
            joins, leaves = (_entries(payload.get(name, {})) for name in ("joins", "leaves"))
            if self._join_ref is None or self._join_ref != join_ref:
                self._early = [*self._early[-MAX_EARLY_DIFFS:], (joins, leaves)]
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
            come = _without(entry["metas"], known["metas"])
            gone = _without(known["metas"], entry["metas"])
            if come:
                joins[key] = {**entry, "metas": come}
            if gone:
                leaves[key] = {**known, "metas": gone}
        self._sync_diff(joins, leaves)

    def _sync_diff(self, joins: dict[str, Entry], leaves: dict[str, Entry]) -> None:
        for key, come in joins.items():
            known = self._entries.get(key)
            stayed = [] if known is None else _without(known["metas"], come["metas"])
            self._entries[key] = {**come, "metas": [*stayed, *come["metas"]]}
            if self._on_join is not None:
                self._on_join(key, None if known is None else _copy(known), _copy(come))
        for key, gone in leaves.items():
            known = self._entries.get(key)
            if known is None:
                continue
            left = {**known, "metas": _without(known["metas"], gone["metas"])}
            if left["metas"]:
                self._entries[key] = left
            else:
                del self._entries[key]
            if self._on_leave is not None:
                self._on_leave(key, _copy(left), _copy(gone))


def _without(metas: list[Any], others: list[Any]) -> list[Any]:
    """The metas whose ``phx_ref`` no other has."""
    refs = {meta["phx_ref"] for meta in others}
    return [meta for meta in metas if meta["phx_ref"] not in refs]


def _entries(payload: Any) -> dict[str, Entry]:
    if not isinstance(payload, Mapping):
        raise InvalidMessage(f"presence is an object, not {payload!r:.100}")
    for key, entry in payload.items():
        metas = entry.get("metas") if isinstance(entry, Mapping) else None
        if not isinstance(metas, list) or not all(
            isinstance(meta, Mapping) and isinstance(meta.get("phx_ref"), str) for meta in metas
        ):
            raise InvalidMessage(f"the presence of {key!r} has no metas with a phx_ref")
    return dict(payload)


def _copy(entry: Entry) -> Entry:
    return {**entry, "metas": list(entry["metas"])}
