"""What a handler returns to send events."""

from __future__ import annotations

from typing import Any, ClassVar

from ..hooks import NOTHING

__all__ = ["Emit"]


class Emit:
    """Result of a handler: send messages, each encoded by the codec.

    Args:
        messages: what to send, in order.
        deliver: handed to whoever iterates the connection as well; nothing by default.
    """

    __slots__ = ("deliver", "messages")

    def __init__(self, *messages: Any, deliver: Any = NOTHING) -> None:
        self.messages: tuple[Any, ...] = messages
        self.deliver: Any = deliver

    def __repr__(self) -> str:
        shown = [repr(message) for message in self.messages]
        if self.deliver is not NOTHING:
            shown.append(f"deliver={self.deliver!r}")
        return f"Emit({', '.join(shown)})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Emit):
            return NotImplemented
        return (self.messages, self.deliver) == (other.messages, other.deliver)

    __hash__: ClassVar[None]  # type: ignore[assignment]
