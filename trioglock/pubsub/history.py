"""The history: the latest messages of a hub, for those who were away."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from ..errors import InvalidOption
from .message import Message

__all__ = ["History", "Missed"]


@dataclass(frozen=True, slots=True)
class Missed:
    """What came after a given message.

    Args:
        messages: oldest first.
        complete: whether that is all of it; False if some may be forgotten already.
        seen: the numbers of an id that has not come here yet, as another hub was quicker: what
            comes up to it is no news; else None.
    """

    messages: tuple[Message, ...]
    complete: bool
    seen: tuple[int, int] | None = None


class History:
    """A bounded number of messages. Their ids grow, as those of Redis Streams: ``"<ms>-<n>"``.

    Args:
        limit: how many are kept.
        shared: with other hubs, which may be quicker to hear of a message.
    """

    def __init__(self, limit: int, *, shared: bool = False) -> None:
        self.messages: deque[Message] = deque(maxlen=limit)
        self.last: str = "0-0"
        """The id of the newest message ever added."""
        self._shared = shared
        self._cut = False

    def add(self, message: Message) -> None:
        """Keep a message that has an id."""
        assert message.id is not None
        self.messages.append(message)
        self.last = message.id
        self._cut = False

    def cut(self) -> None:
        """Forget all: between the newest message and the next one, others may be missing."""
        self.messages.clear()
        self._cut = True

    def after(self, seen_id: str) -> Missed:
        """What came after the message with this id.

        Raises:
            InvalidOption: such an id there cannot be.
        """
        seen, last = parse_id(seen_id), parse_id(self.last)
        if seen > last:
            complete = self._shared and bool(self.messages)
            return Missed((), complete, seen if self._shared else None)
        missed: list[Message] = []
        known = seen == last and not self._cut
        for message in reversed(self.messages):
            assert message.id is not None
            if parse_id(message.id) <= seen:
                known = True
                break
            missed.append(message)
        missed.reverse()
        return Missed(tuple(missed), known)


def parse_id(text: str) -> tuple[int, int]:
    """The two numbers of an id; the second may be left out.

    Raises:
        InvalidOption: it is no id.
    """
    milliseconds, _, number = text.partition("-")
    number = number or "0"
    if not all(
        part.isascii() and part.isdigit() and len(part) <= 20 for part in (milliseconds, number)
    ):
        raise InvalidOption(f"{text!r:.60} is not the id of a message")
    return int(milliseconds), int(number)
