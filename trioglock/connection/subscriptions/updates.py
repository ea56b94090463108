"""The consumers of subscriptions: a queue of updates, and the loop over it."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from copy import copy
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, TypeVar, get_args

import trio

from ..._hints import describe_value, is_hashable
from ...errors import InvalidOption, SlowConsumer, UsageError
from ...gap import Gap
from ...options import Overflow, check_choice, check_whole
from ...telemetry import EventEmitter
from .._sync import ignore
from ..receive_queue import ReceiveQueue

if TYPE_CHECKING:
    from .driver import SubscriptionDriver

__all__ = ["UpdateQueue", "Updates", "make_updates_queue"]

MessageT = TypeVar("MessageT")


class UpdateQueue(ReceiveQueue):
    """The updates of one consumer. A gap takes the place of dropped updates."""

    __slots__ = ("_interrupted", "error", "inactive", "keys")

    def __init__(
        self, keys: Sequence[Any], limit: int | None, overflow: Overflow, emitter: EventEmitter
    ) -> None:
        super().__init__(limit, overflow, ignore, emitter)
        self.keys: tuple[Any, ...] = tuple(keys)
        self.inactive: set[Any] = set(keys)
        """The keys that the consumer waits for; empty once all were active at the same time."""
        self.error: Exception | None = None
        """Why the consumer has ended."""
        self._interrupted: dict[Any, float] = {}  # the time since which updates may be missing

    # Called by the machine.

    def put(self, key: Any, message: Any) -> None:
        """Add an update."""
        if self.ended:
            return
        if self._interrupted:
            self._report_gap(key)
        self.open_items().append(message)
        self.notify()

    def activated(self, key: Any) -> None:
        """Called when a key becomes active on the current link."""
        if self._interrupted:
            self._report_gap(key)
        self.inactive.discard(key)
        if not self.inactive:
            self._readers.unpark_all()

    def interrupted(self, key: Any) -> None:
        """Called when the key becomes inactive; updates may be missed until it is active again."""
        # A consumer that is still waiting for its keys starts with the first update it receives.
        if self.inactive:
            self.inactive.add(key)
        if not self.inactive or self.items:
            self._interrupted.setdefault(key, trio.current_time())

    def fail(self, error: Exception) -> None:
        """End the consumer; queued updates can still be received."""
        if not self.ended:
            self.error = error
            self.end()

    def end(self) -> None:
        self.pause_at: float = math.inf
        super().end()

    # Gaps.

    def _report_gap(self, key: Any) -> None:
        since = self._interrupted.pop(key, None)
        if since is not None and not self.ended:
            items = self.open_items()
            gap = Gap(trio.current_time() - since, channel=key)
            last = items.pop() if items and items[-1].__class__ is Gap else None
            items.append(_join(last, gap))
            self._readers.unpark()

    def _drop(self, count: int) -> None:
        items: deque[Any] = self.items
        gap = Gap(0.0, channel=self.keys[0] if len(self.keys) == 1 else None)
        take = items.popleft if self._overflow == "drop_oldest" else items.pop
        taken = [take() for _ in range(count)]
        if self._overflow == "drop_oldest":
            following = items.popleft() if items and items[0].__class__ is Gap else None
            items.appendleft(_join(*taken, gap, following))
        else:
            last = items.pop() if items and items[-1].__class__ is Gap else None
            items.append(_join(last, *taken, gap))
        self.drop([message for message in taken if message.__class__ is not Gap])
        if self._overflow == "close":
            text = f"an update arrived while the queue was full, with max_queue={self._limit}"
            self.fail(SlowConsumer(text))


def _join(*events: object) -> Gap:
    """Return one gap in place of updates and gaps."""
    gaps = [event for event in events if isinstance(event, Gap)]
    channels = {gap.channel for gap in gaps}
    return Gap(
        max(gap.seconds for gap in gaps), channel=channels.pop() if len(channels) == 1 else None
    )


def make_updates_queue(
    keys: Sequence[Any], limit: int | None, overflow: Overflow, emitter: EventEmitter
) -> UpdateQueue:
    """Return the queue of a consumer; raise InvalidOption if an argument is invalid."""
    if not keys:
        raise InvalidOption("subscribe() requires at least one key")
    check_whole("max_queue", limit, least=1)
    check_choice("overflow", overflow, get_args(Overflow))
    if limit is None and overflow not in ("wait", "drop_oldest"):
        raise InvalidOption(f"overflow={overflow!r} requires a max_queue")
    for key in keys:
        if not is_hashable(key):
            hint = "; pass each key as a separate argument: subscribe(*keys)"
            raise InvalidOption(
                f"a key must be hashable, not {describe_value(key)}"
                f"{hint if isinstance(key, list | set) else ''}"
            )
    if None in keys:
        raise InvalidOption(
            "None cannot be used as a key: key_of() returns None for messages that do not belong "
            "to a key"
        )
    return UpdateQueue(list(dict.fromkeys(keys)), limit, overflow, emitter)


class Updates(Generic[MessageT]):
    """The updates of one or more keys, returned by :meth:`Connection.subscribe`.

    Both an async context manager, which subscribes to the keys for the duration of its block, and
    an async iterator::

        async with conn.subscribe("BTC-USD") as updates:
            async for update in updates: ...

    Entering the block waits until the server has confirmed the keys. Leaving it unsubscribes
    from the keys to which no other task is subscribed. Several tasks may iterate; each update goes
    to one of them. The loop ends when the connection closes normally.

    Where updates may be missing, the loop yields a :class:`Gap`: after a lost connection, once the
    subscription to the key is active again, and in place of updates that were dropped.
    """

    __slots__ = ("_driver", "_entered", "_queue", "_reject_inside_hook")

    def __init__(
        self,
        driver: SubscriptionDriver,
        queue: UpdateQueue,
        reject_inside_hook: Callable[[str], None],
    ) -> None:
        self._driver = driver
        self._queue = queue
        self._entered = False
        self._reject_inside_hook = reject_inside_hook

    @property
    def keys(self) -> tuple[Any, ...]:
        """The keys."""
        return self._queue.keys

    @property
    def dropped(self) -> int:
        """Number of updates dropped because the queue was full."""
        return self._queue.dropped

    def __len__(self) -> int:
        """Number of updates and gaps that are ready to be read."""
        return len(self._queue.items)

    async def __aenter__(self) -> Updates[MessageT]:
        """Subscribe to the keys and wait until the server has confirmed them.

        Raises:
            SubscriptionRefused: the server refused a key. The other keys are unsubscribed from.
            SubscriptionTimeout: the server did not confirm a key in time.
            ConnectionClosed: the connection is closing, or ended first.
            UsageError: called inside a hook of this connection.
        """
        self._reject_inside_hook("subscribe")
        if self._entered:
            raise UsageError("subscribe(...) can be entered only once")
        self._entered = True
        queue, driver = self._queue, self._driver
        try:
            driver.join(queue)
            # Other tasks may subscribe at the same time: one message can then contain all keys.
            await trio.lowlevel.checkpoint()
            driver.flush()
            while queue.inactive and not queue.ended:
                await queue.wait()
            if queue.error is not None:
                raise copy(queue.error)
            if queue.ended:
                raise driver.closed_error()
        except BaseException:
            await self._leave()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._leave()

    async def _leave(self) -> None:
        self._driver.leave(self._queue)
        # Other tasks may leave at the same time.
        await trio.lowlevel.cancel_shielded_checkpoint()
        self._driver.flush()

    def __aiter__(self) -> Updates[MessageT]:
        return self

    async def __anext__(self) -> MessageT | Gap:
        """Return the next update or gap. A cancelled call loses no updates.

        Raises:
            SubscriptionRefused, SubscriptionTimeout: a key could not be subscribed again after a
                reconnect, or the server has ended its subscription.
            SlowConsumer: an update arrived while the queue was full, with ``overflow="close"``.
            ConnectionClosedError: the connection did not close normally.
            UsageError: called outside of ``async with``, or inside a hook of this connection.
        """
        self._reject_inside_hook("receive")
        queue = self._queue
        if not self._entered:
            raise UsageError("use `async with conn.subscribe(...) as updates` around the loop")
        if queue.items or queue.ended:
            await trio.lowlevel.checkpoint_if_cancelled()
        while not queue.items:
            if queue.ended:
                raise self._end_of_iteration()
            await queue.wait()
        item: MessageT | Gap = queue.items.popleft()
        if queue.reader_waiting:
            queue.notify_taken()
        return item

    def _end_of_iteration(self) -> Exception:
        if self._queue.error is not None:
            # Raising adds a traceback that refers to the queue, so a copy is raised.
            return copy(self._queue.error)
        if self._driver.closed_normally or not self._driver.has(self._queue):
            return StopAsyncIteration()
        return self._driver.closed_error()
