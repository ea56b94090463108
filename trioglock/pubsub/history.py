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
    """

    messages: tuple[Message, ...]
    complete: bool


class History:
    """A bounded number of messages. Their ids grow, as those of Redis Streams: ``"<ms>-<n>"``.

    Args:
        limit: how many are kept.
    """

    def __init__(self, limit: int) -> None:
        self.messages: deque[Message] = deque(maxlen=limit)
        self.last: str = "0-0"
        """The id of the newest message ever added."""

    def add(self, message: Message) -> None:
        """Keep a message that has an id."""
        assert message.id is not None
        self.messages.append(message)
        self.last = message.id

    def after(self, seen_id: str) -> Missed:
        """What came after the message with this id.

        Raises:
            InvalidOption: such an id there cannot be.
        """
        seen = parse_id(seen_id)
        missed: list[Message] = []
        known = seen == parse_id(self.last)
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
