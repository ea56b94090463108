"""The heartbeat on the topic ``phoenix``: which answer counts."""

from __future__ import annotations

from collections.abc import Callable

from .message import HEARTBEAT, PHOENIX, Message

__all__ = ["PhoenixHeartbeat"]


class PhoenixHeartbeat:
    """Makes heartbeats, and knows the answer to the latest one.

    Args:
        new_ref: makes a ref that was never used, so that no answer on an earlier connection, and
            none to an earlier beat, counts for this one.
    """

    def __init__(self, new_ref: Callable[[], str]) -> None:
        self._new_ref = new_ref
        self._ref: str | None = None

    @property
    def waits(self) -> bool:
        """Whether an answer is to be expected."""
        return self._ref is not None

    def next(self) -> Message:
        """The next one to send."""
        self._ref = self._new_ref()
        return Message(None, self._ref, PHOENIX, HEARTBEAT, {})

    def is_answer(self, message: Message) -> bool:
        """Whether it answers the latest one; it does so once."""
        if self._ref is None or message.topic != PHOENIX or message.ref != self._ref:
            return False
        self._ref = None
        return True

    def forget(self) -> None:
        """The connection is another one."""
        self._ref = None
