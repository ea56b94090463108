"""``History``: the events of a topic that are kept for members that join later."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .._hints import describe_value
from ..codecs import JSON
from ..errors import InvalidOption
from ..options import check_seconds, check_whole
from ..protocols.phoenix.errors import InvalidMessage
from ..pubsub.broker import HISTORY_SECONDS
from ..pubsub.history import Retention, format_id, parse_id
from .results import JoinRefused

__all__ = ["AFTER", "EVERYTHING", "GAP", "History"]

AFTER = "after"
"""The field in the payload of a join with the id of the last event that the client received."""

GAP = "gap"
"""The field in the response to a join that is true if events may be missing."""

EVERYTHING = "0-0"
"""An id that precedes the ids of all events."""

_json = JSON()


@dataclass(frozen=True, slots=True)
class History:
    """Keeps the latest events of each topic of a :class:`Channel` class.

    ::

        class Room(Channel[User]):
            history = History(size=100, seconds=3600)

    The payload of every broadcast contains an id, and a client that joins with the payload
    ``{"after": id}`` first receives the events after that id. If some of them may be missing, the
    response contains ``"gap": true``. With ``{"after": 0}`` it first receives all events that are
    kept.

    Args:
        size: number of events to keep for each topic.
        seconds: how long they are kept; None for no limit.
        keep_last: whether a client that joins without ``after`` first receives the latest event.
        id_field: the field of the payload that contains the id.

    Raises:
        InvalidOption: an argument has the wrong type or value.
    """

    size: int = 100
    seconds: float | None = HISTORY_SECONDS
    keep_last: bool = False
    id_field: str = "id"
    retention: Retention = field(init=False, repr=False, compare=False)
    """The corresponding options of the hub's history."""
    _key: str = field(default="", init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_whole("size", self.size, least=1, none=False)
        check_seconds("seconds", self.seconds)
        if not isinstance(self.keep_last, bool):
            raise InvalidOption(f"keep_last must be True or False, not {self.keep_last!r}")
        if not isinstance(self.id_field, str):
            raise InvalidOption(f"id_field must be a str, not {self.id_field!r}")
        object.__setattr__(self, "retention", Retention(self.size, self.seconds))
        object.__setattr__(self, "_key", _json.encode(self.id_field))

    def is_wanted(self, payload: Any) -> bool:
        """Whether a client that joins with this payload receives events from the history."""
        return self.keep_last or (isinstance(payload, dict) and payload.get(AFTER) is not None)

    def parse_join(self, payload: Any) -> str | None:
        """Return the id after which the requested events begin, or None.

        Args:
            payload: the payload of the join.

        Raises:
            JoinRefused: ``after`` is invalid.
        """
        after = payload.get(AFTER) if isinstance(payload, dict) else None
        if after is None:
            return None
        try:
            if after.__class__ is int and not after:
                return EVERYTHING
            if isinstance(after, str):
                return format_id(parse_id(after))
        except InvalidOption:
            pass
        raise JoinRefused(
            {"reason": "after must be the id of an event, 0 for all events that are kept, or null"}
        )

    def without_id(self, payload: Any, *, keep: bool = True) -> Any:
        """Return the payload of a broadcast without its id, which may be from a client.

        Args:
            payload: the payload.
            keep: whether an id will be added.

        Raises:
            InvalidMessage: no id can be added to it.
        """
        if not isinstance(payload, dict):
            if not keep:
                return payload
            raise InvalidMessage(
                f"an id is added as {self.id_field!r} to each broadcast of a channel with a "
                f"history, so its payload must be a dict, not {describe_value(payload)}"
            )
        if self.id_field in payload:
            return {key: value for key, value in payload.items() if key != self.id_field}
        return payload

    def add_id(self, frame: str, event_id: str) -> str:
        """Return a broadcast with an id, without decoding it.

        Args:
            frame: the broadcast.
            event_id: the id.

        Raises:
            ValueError: the payload is not a JSON object.
        """
        head = frame.rstrip().removesuffix("]").rstrip()
        if not head.endswith("}"):
            raise ValueError("the payload is not a JSON object")
        head = head[:-1].rstrip()
        comma = "" if head.endswith("{") else ","
        return f'{head}{comma}{self._key}:"{event_id}"}}]'
