"""The receive queue of a connection with ``fragments=True``: fragments, bounded in bytes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import trio

from ...frames import Fragment
from ...telemetry import EventEmitter
from .._sync import ignore
from ..receive_queue import ReceiveQueue

if TYPE_CHECKING:
    from .receiver import Fragments

__all__ = ["FragmentQueue"]

# Reading pauses at the first size, in bytes, and continues at the second.
HIGH, LOW = 2**18, 2**16

# receive() joins this many fragments early, because a fragment of one byte takes 200 bytes.
JOIN = 1024

# The memory of an object in addition to its data, so that tiny fragments are also bounded.
OVERHEAD = 128


class FragmentQueue(ReceiveQueue):
    """Holds fragments until a :class:`Fragments` block or ``receive()`` takes them.

    ``receive()`` takes whole messages from ``items``. If there are none, it calls :meth:`wait` or
    :meth:`collect`, which join the fragments of the next message.

    Args:
        max_size: maximum size in bytes of a message that is joined; None for no limit.
        on_too_large: called when a message exceeds ``max_size``.
        on_too_large_late: called instead if the connection has ended.
        emitter: as in :class:`ReceiveQueue`.
    """

    __slots__ = (
        "_arriving",
        "_closing",
        "_discarding",
        "_ending",
        "_fragments",
        "_joined",
        "_joined_early",
        "_joined_size",
        "_max_size",
        "_on_too_large",
        "_on_too_large_late",
        "_size",
        "_skipping",
        "block",
    )

    def __init__(
        self,
        max_size: int | None,
        on_too_large: Callable[[int], None],
        on_too_large_late: Callable[[int], None],
        emitter: EventEmitter,
    ) -> None:
        super().__init__(None, "wait", ignore, emitter)
        self.pause_at: float = -1  # the reader always checks ``full``
        self.block: Fragments | None = None
        """The block that is receiving a message; other receivers wait for its end."""
        self._fragments: deque[Fragment | None] = deque()  # None: the link ended within a message
        self._size = 0  # of the fragments, with their overhead
        self._arriving = False  # the last fragment was not final
        self._skipping = False  # the rest of the arriving message is discarded
        self._closing = False
        self._discarding = False  # messages that are still arriving are discarded
        self._ending = False  # no more fragments arrive
        self._joined: list[Fragment] = []  # taken for receive()
        self._joined_early = 0  # the number of those that were joined early
        self._joined_size = 0
        self._max_size = max_size
        self._on_too_large = on_too_large
        self._on_too_large_late = on_too_large_late

    @property
    def full(self) -> bool:
        return self._size >= HIGH

    # The reader's side.

    def add_fragment(self, fragment: Fragment) -> None:
        """Deliver a fragment."""
        if self._skipping:
            self._skipping = self._arriving = not fragment.final
            return
        if self._discarding or (self._closing and self.full):
            # The rest of a message that has begun is also missing.
            self._discarding = True
            if fragment.final:
                self.drop([fragment])
            return
        self._arriving = not fragment.final
        self._size += _weight(fragment)
        self._fragments.append(fragment)
        self.wake()

    def end_link(self, *, final: bool) -> None:
        if self._arriving and not (self._skipping or final):
            self._fragments.append(None)
        self._arriving = self._skipping = False
        self.wake()

    def start_closing(self) -> None:
        self._closing = True
        self._space_waiters.unpark_all()

    def start_link(self) -> None:
        self._closing = self._discarding = False

    def release_session(self) -> None:
        self._on_too_large = self._on_too_large_late

    def end(self) -> None:
        self._ending = True
        self._check_end()
        self._space_waiters.unpark_all()

    def _check_end(self) -> None:
        if self._ending and not self._fragments:
            self.ended = True
            self.wake()

    # The receivers' side.

    def wake(self) -> None:
        """Wake all receivers, which then check the new state."""
        self._readers.unpark_all()

    def notify(self) -> None:
        # Wake all receivers, because a waiting block cannot take a message that a hook delivers.
        self.wake()

    async def park(self) -> None:
        """Wait for a fragment, or the end of a block or the queue. The caller then checks again."""
        await super().wait()

    def pop(self) -> Fragment | None:
        """Remove the next item; None if the link ended before the rest of the message arrived."""
        fragment = self._fragments.popleft()
        if fragment is not None:
            self._size -= _weight(fragment)
        if self.reader_waiting:
            self.notify_taken()
        self._check_end()
        return fragment

    def notify_taken(self) -> None:
        if self._size <= LOW:
            self._space_waiters.unpark_all()

    @property
    def has_fragments(self) -> bool:
        """Whether :meth:`pop` may be called."""
        return bool(self._fragments)

    def begin_block(self, block: Fragments) -> Fragment | None:
        """Reserve the next message for ``block``; return its first fragment.

        Returns:
            None if there is no message yet, or another block has not ended.
        """
        if self.block is not None:
            return None
        if self._joined:
            # A receive() was cancelled within this message.
            self._fragments.extendleft(reversed(self._joined))
            self._size += sum(map(_weight, self._joined))
            self._forget_joined()
        first = self._fragments[0] if self._fragments else None
        if first is not None:
            self.block = block
        return first

    def end_block(self, *, skip: bool) -> None:
        """Let other receivers continue.

        Args:
            skip: discard the rest of the message.
        """
        self.block = None
        if skip:
            self._skip()
        self.wake()

    def _skip(self) -> None:
        while self._fragments:
            fragment = self.pop()
            if fragment is None or fragment.final:
                return
        self._skipping = self._arriving

    def collect(self) -> bool:
        """Join fragments; return whether the next whole message is in ``items``."""
        while not self.items and self.block is None and self._fragments:
            fragment = self.pop()
            if fragment is None:
                self._forget_joined()
                continue
            self._joined.append(fragment)
            self._joined_size += fragment.size
            if self._max_size is not None and self._joined_size > self._max_size:
                self._refuse(self._max_size)
            elif fragment.final:
                self.open_items().append(_join(self._joined))
                self._forget_joined()
            elif len(self._joined) - self._joined_early == JOIN:
                some = self._joined[self._joined_early :]
                self._joined[self._joined_early :] = [Fragment(_join(some), some[0].first, False)]
                self._joined_early += 1
        return bool(self.items)

    def _refuse(self, max_size: int) -> None:
        self._forget_joined()
        self._fragments.clear()
        self._size = 0
        self._arriving = self._skipping = False
        self._discarding = True
        self._check_end()
        self.notify_taken()
        self._on_too_large(max_size)

    def _forget_joined(self) -> None:
        self._joined = []
        self._joined_early = self._joined_size = 0

    async def wait(self) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        if not (self.collect() or self.ended):
            await self.park()


def _weight(fragment: Fragment) -> int:
    return len(fragment.data) + OVERHEAD


def _join(fragments: list[Fragment]) -> Any:
    """Return the message: all fragments are of the same type."""
    if len(fragments) == 1:
        return fragments[0].data
    data: Any = [fragment.data for fragment in fragments]
    return data[0][:0].join(data)
