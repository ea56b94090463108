"""The history: the latest messages of a hub, for subscribers that resume."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass

from ..errors import InvalidOption
from .message import Message

__all__ = ["History", "MissedMessages", "parse_id"]

_is_id = re.compile(r"[0-9]{1,20}(-[0-9]{0,20})?").fullmatch


@dataclass(frozen=True, slots=True)
class MissedMessages:
    """The messages published after a given one, oldest first, of all channels."""

    messages: tuple[Message, ...]
    complete: bool
    """Whether no message is missing between the given one and the next."""
    skip_until: tuple[int, int] | None = None
    """Parsed id of the last message that the subscriber received from another hub, if this hub has
    not received it yet: messages up to it are not delivered again."""


class History:
    """A bounded number of messages, whose ids grow like those of Redis Streams: ``"<ms>-<n>"``.

    Args:
        limit: maximum number of messages.
        shared: whether other hubs fill the same history and may be ahead of this one.
    """

    def __init__(self, limit: int, *, shared: bool = False) -> None:
        self.limit: int = limit
        self.messages: deque[Message] = deque(maxlen=limit)
        self.last: str = "0-0"
        """The id of the newest message ever added."""
        self._shared = shared
        self._interrupted = False

    def add(self, message: Message) -> None:
        """Append a message that has an id."""
        assert message.id is not None
        self.messages.append(message)
        self.last = message.id
        self._interrupted = False

    def interrupt(self) -> None:
        """Discard all messages: others may be missing between the newest and the next one."""
        self.messages.clear()
        self._interrupted = True

    def after(self, message_id: str) -> MissedMessages:
        """Return the messages published after the one with this id.

        Raises:
            InvalidOption: ``message_id`` is not the id of a message.
        """
        seen, last = parse_id(message_id), parse_id(self.last)
        if seen > last:
            complete = self._shared and bool(self.messages)
            return MissedMessages((), complete, seen if self._shared else None)
        missed: list[Message] = []
        complete = seen == last and not self._interrupted
        for message in reversed(self.messages):
            assert message.id is not None
            if parse_id(message.id) <= seen:
                complete = True
                break
            missed.append(message)
        missed.reverse()
        return MissedMessages(tuple(missed), complete)


def parse_id(text: str) -> tuple[int, int]:
    """Return the two numbers of a message id; the second one defaults to 0.

    Raises:
        InvalidOption: ``text`` is not the id of a message.
    """
    if not _is_id(text):
        raise InvalidOption(f"{text!r:.60} is not the id of a message")
    milliseconds, _, number = text.partition("-")
    return int(milliseconds), int(number or 0)
