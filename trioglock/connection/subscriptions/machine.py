"""Subscriptions: the keys that are wanted, and those that the server has confirmed, over all links.

:class:`Subscriptions` is the interface to a feed, which users implement.
:class:`SubscriptionMachine` does no I/O: it takes events, such as a confirmation or the end of a
link, and returns the requests to send. :mod:`.driver` calls it.

The state of a key is that of its subscription on the current link. A key never has two requests in
flight: the client unsubscribes from it only after the subscription has been confirmed, and
subscribes to it again only after the end of that subscription has been confirmed.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
from enum import Enum
from typing import Any, ClassVar, Generic, Protocol, TypeAlias, TypeVar

from ...errors import SubscriptionRefused, SubscriptionTimeout

__all__ = ["Consumer", "KeyState", "SubscriptionMachine", "SubscriptionRequest", "Subscriptions"]

KeyT = TypeVar("KeyT", bound=Hashable)
MessageT = TypeVar("MessageT")


class Subscriptions(ABC, Generic[KeyT, MessageT]):
    """Describes how the server of a connection subscribes clients to its feeds.

    Pass an instance to :func:`connect`; do not share it between connections. ``KeyT`` is the type
    of the keys, and ``MessageT`` that of the messages that the codec decodes. The methods must not
    be ``async``; an exception that one of them raises ends the connection.

    :meth:`key_of` is called for each message. The other methods with a ``message`` are called only
    for messages that do not belong to a key, for which :meth:`key_of` returns None. A message that
    confirms or refuses a key is not passed to the hooks.
    """

    batch: ClassVar[int | None] = None
    """Maximum number of keys in one call of :meth:`subscribe` or :meth:`unsubscribe`; None for no
    limit."""

    timeout: ClassVar[float | None] = 10
    """Seconds to wait for a confirmation, or for :meth:`is_ready`; None for no limit."""

    @abstractmethod
    def subscribe(self, keys: Sequence[KeyT]) -> Iterable[Any]:
        """Return the messages that subscribe to keys.

        The method is called again on every link, with all keys that are wanted. The messages are
        encoded by the codec, and do not pass through ``handle_send``.
        """

    @abstractmethod
    def unsubscribe(self, keys: Sequence[KeyT]) -> Iterable[Any]:
        """Return the messages that unsubscribe from keys that are subscribed on this link."""

    @abstractmethod
    def key_of(self, message: MessageT) -> KeyT | None:
        """Return the key of an update; None if the message is not an update."""

    def confirmed(self, message: MessageT) -> Collection[KeyT] | None:
        """Return the keys whose subscription the message confirms.

        Without this method, a subscription is active as soon as its message is queued, or, with
        ``send_rate``, written.
        """
        return None

    def refused(self, message: MessageT) -> Collection[KeyT] | None:
        """Return the keys that the message refuses; the message becomes part of the exception.

        If the subscription is active, the refusal means that the server has ended it.
        """
        return None

    def unsubscribed(self, message: MessageT) -> Collection[KeyT] | None:
        """Return the keys whose unsubscription the message confirms.

        With this method, a new subscription to the key waits for this confirmation. Without it,
        updates of the old and the new subscription cannot be distinguished.
        """
        return None

    def is_ready(self, message: MessageT) -> bool:
        """Return whether the message means that the server accepts subscriptions from now on.

        The message may confirm a login. On each link, the method is called until it returns True.
        Until then, neither subscriptions nor the program's messages are sent, only replies from
        hooks. The message is also passed to ``handle_receive``. Without this method, the server is
        ready when ``handle_connect`` has returned.
        """
        return True

    def reset(self) -> None:
        """Forget the ids that the server assigned on the previous link.

        Called at the start of each link, including the first.
        """


class Consumer(Protocol):
    """Receives the updates of keys: a loop in the program."""

    def put(self, key: Any, message: Any) -> None:
        """Add an update."""

    def activated(self, key: Any) -> None:
        """Called when a key becomes active on the current link."""

    def interrupted(self, key: Any) -> None:
        """Called when a key becomes inactive; updates may be missed until it is active again."""

    def fail(self, error: Exception) -> None:
        """End the consumer."""


class KeyState(Enum):
    """The state of a key on the current link."""

    WANTED = "wanted"
    """It has consumers; its subscription has not been sent."""
    REQUESTED = "requested"
    """Its subscription was sent."""
    ACTIVE = "active"
    """Its subscription was confirmed, or was sent to a server that does not confirm."""
    REFUSED = "refused"
    """Its subscription was not confirmed in time, or the server ended it. The client unsubscribes
    from the key as a precaution."""
    LEAVING = "leaving"
    """The message that unsubscribes from it was sent."""


WANTED, REQUESTED, ACTIVE, REFUSED, LEAVING = KeyState

SubscriptionRequest: TypeAlias = tuple[bool, list[Any]]
"""Whether to subscribe or to unsubscribe, and the keys."""


class _Key:
    """The state and the consumers of a key that is wanted, or has a subscription."""

    __slots__ = ("consumers", "state")

    def __init__(self) -> None:
        self.state = WANTED
        self.consumers: dict[Consumer, None] = {}  # an ordered set


class SubscriptionMachine:
    """The subscriptions of one connection.

    After each call, :attr:`has_requests` is True if :meth:`take_requests` may return requests.

    Args:
        batch: maximum number of keys in a request, or None.
        timeout: seconds to wait for a confirmation, or None.
        confirms: whether the server confirms subscriptions.
        confirms_leaving: whether the server confirms the end of a subscription.
        delays: whether requests are delayed; :meth:`written` is called once they are written.
    """

    def __init__(
        self,
        *,
        batch: int | None = None,
        timeout: float | None = None,
        confirms: bool = True,
        confirms_leaving: bool = True,
        delays: bool = False,
    ) -> None:
        self._batch = batch
        self._timeout = math.inf if timeout is None else timeout
        self._confirms = confirms
        self._confirms_leaving = confirms_leaving
        self._delays = delays
        self._keys: dict[Any, _Key] = {}
        self._is_open = False
        self._is_ready = False
        self._changed: dict[Any, None] = {}  # keys that may need a request
        self._deadlines: dict[Any, float] = {}  # in the order in which they expire
        self._sent: set[Any] = set()  # keys for which something was sent on this link
        self._unclear: set[Any] = set()  # keys unsubscribed on this link without a confirmation

    def state(self, key: object) -> KeyState | None:
        """Return the state of a key; None if it is neither wanted nor subscribed."""
        entry = self._keys.get(key)
        return None if entry is None else entry.state

    def knows(self, key: object) -> bool:
        """Whether a key is wanted, or something was sent for it on the current link."""
        return key in self._keys or key in self._sent

    @property
    def has_requests(self) -> bool:
        """Whether :meth:`take_requests` may return requests."""
        return self._is_ready and bool(self._changed)

    @property
    def next_deadline(self) -> float:
        """The time at which to call :meth:`expire`; infinity if no confirmation is missing."""
        return next(iter(self._deadlines.values()), math.inf)

    # The program.

    def join(self, key: Any, consumer: Consumer, now: float) -> None:
        """Add a consumer of a key."""
        entry = self._keys.get(key)
        if entry is None:
            entry = self._keys[key] = _Key()
        entry.consumers[consumer] = None
        if entry.state is ACTIVE:
            consumer.activated(key)
        elif entry.state is WANTED and self._is_open:
            self._changed[key] = None
            self._deadlines.setdefault(key, now + self._timeout)

    def leave(self, key: Any, consumer: Consumer) -> None:
        """Remove a consumer of a key. Leaving again does nothing."""
        entry = self._keys.get(key)
        if entry is None or consumer not in entry.consumers:
            return
        del entry.consumers[consumer]
        if not entry.consumers:
            self._last_left(key, entry)

    def _last_left(self, key: Any, entry: _Key) -> None:
        if entry.state is WANTED:
            self._forget(key)
        elif entry.state is ACTIVE:
            self._changed[key] = None
        # The other states wait for the confirmation.

    # The link.

    def open_link(self, now: float) -> None:
        """Start a link: all keys are wanted. Nothing may be sent before :meth:`set_ready`."""
        self._is_open = True
        self._deadlines = dict.fromkeys(self._keys, now + self._timeout)

    def set_ready(self) -> None:
        """Allow requests: the server accepts subscriptions."""
        self._is_ready = True
        self._changed = dict.fromkeys(self._keys)

    def close_link(self) -> None:
        """End the link and with it all subscriptions."""
        if not self._is_open:
            return
        self._is_open = self._is_ready = False
        self._changed.clear()
        self._deadlines.clear()
        self._sent.clear()
        self._unclear.clear()
        for key, entry in list(self._keys.items()):
            if not entry.consumers:
                del self._keys[key]
                continue
            entry.state = WANTED
            for consumer in entry.consumers:
                consumer.interrupted(key)

    def take_requests(self, now: float) -> list[SubscriptionRequest]:
        """Return the requests to send now; they count as sent. The oldest change comes first.

        Requests to unsubscribe come before requests to subscribe, because servers limit the number
        of subscriptions.
        """
        if not self._is_ready:
            return []
        changed, self._changed = self._changed, {}
        left, wanted = [], []
        for key in changed:
            entry = self._keys.get(key)
            if entry is None:
                continue
            if entry.state is REFUSED or (entry.state is ACTIVE and not entry.consumers):
                left.append(key)
            elif entry.state is WANTED:
                wanted.append(key)
        for key in left:
            self._leave_sent(key, now)
        for key in wanted:
            self._request_sent(key, now)
        return [*self._batches(left, subscribe=False), *self._batches(wanted, subscribe=True)]

    def _batches(self, keys: list[Any], *, subscribe: bool) -> Iterable[SubscriptionRequest]:
        size = self._batch or len(keys) or 1
        return ((subscribe, keys[at : at + size]) for at in range(0, len(keys), size))

    def _request_sent(self, key: Any, now: float) -> None:
        self._sent.add(key)
        self._keys[key].state = REQUESTED
        self._restart(key, now)
        if not (self._confirms or self._delays):
            self._activate(key)

    def written(self, key: Any, now: float) -> None:
        """Record that the delayed request for a key has been written."""
        state = self.state(key)
        if state is REQUESTED and not self._confirms:
            self._activate(key)
        elif state is REQUESTED or state is LEAVING:
            self._restart(key, now)

    def _leave_sent(self, key: Any, now: float) -> None:
        if self._confirms_leaving:
            self._keys[key].state = LEAVING
            self._restart(key, now)
        else:
            self._unclear.add(key)
            self._left(key)

    def _restart(self, key: Any, now: float) -> None:
        """Start the timeout of a key, behind all others."""
        self._deadlines.pop(key, None)
        self._deadlines[key] = now + self._timeout

    def _activate(self, key: Any) -> None:
        entry = self._keys[key]
        entry.state = ACTIVE
        self._deadlines.pop(key, None)
        for consumer in entry.consumers:
            consumer.activated(key)
        if not entry.consumers:
            self._changed[key] = None

    def _forget(self, key: Any) -> None:
        del self._keys[key]
        self._deadlines.pop(key, None)

    # The server.

    def update(self, key: Any, message: Any) -> bool:
        """Pass an update to the consumers of its key.

        Returns:
            Whether the key is known. Updates of a key whose subscription is neither active nor
            requested are dropped.
        """
        entry = self._keys.get(key)
        if entry is None:
            return key in self._sent
        if entry.state is ACTIVE or (entry.state is REQUESTED and key not in self._unclear):
            for consumer in entry.consumers:
                consumer.put(key, message)
        elif entry.state is REQUESTED:
            # The update may belong to the earlier subscription; updates sent after the end of that
            # subscription are missing.
            for consumer in entry.consumers:
                consumer.interrupted(key)
        return True

    def subscribed(self, key: Any) -> None:
        """Handle the confirmation of a subscription."""
        state = self.state(key)
        if state is REQUESTED:
            self._activate(key)
        elif state is ACTIVE and key in self._unclear:
            # The first confirmation belonged to the earlier subscription.
            self._unclear.discard(key)
            for consumer in self._keys[key].consumers:
                consumer.interrupted(key)
                consumer.activated(key)

    def unsubscribed(self, key: Any, message: Any) -> None:
        """Handle the confirmation of the end of a subscription."""
        self._unclear.discard(key)
        state = self.state(key)
        if state is LEAVING or state is REFUSED:
            self._left(key)
        elif state is ACTIVE:
            # The server has ended the subscription, or the confirmation is late.
            self._fail(key, lambda: SubscriptionRefused(key, message, ended=True))
            self._refuse(key)

    def refused(self, key: Any, message: Any) -> None:
        """Handle a refusal."""
        state = self.state(key)
        if state is LEAVING or state is REFUSED:
            # There is nothing to unsubscribe from.
            self._left(key)
        elif state is REQUESTED or state is ACTIVE:
            ended = state is ACTIVE
            self._fail(key, lambda: SubscriptionRefused(key, message, ended=ended))
            if key in self._unclear:
                # The refusal may belong to an earlier request.
                self._refuse(key)
            else:
                self._forget(key)

    def _left(self, key: Any) -> None:
        """Handle the end of a subscription on the current link."""
        entry = self._keys[key]
        if not entry.consumers:
            self._forget(key)
            return
        entry.state = WANTED
        self._changed[key] = None

    def _refuse(self, key: Any) -> None:
        self._keys[key].state = REFUSED
        self._changed[key] = None

    def _fail(self, key: Any, error: Callable[[], Exception]) -> None:
        """End the consumers of a key, each with its own exception."""
        entry = self._keys[key]
        consumers, entry.consumers = entry.consumers, {}
        for consumer in consumers:
            consumer.fail(error())

    # Time.

    def expire(self, now: float, unsent: Collection[Any] = ()) -> None:
        """Handle the confirmations that did not arrive in time.

        Args:
            now: the current time.
            unsent: keys whose request has not been written, which get more time.
        """
        while self.next_deadline <= now:
            key = next(iter(self._deadlines))
            entry = self._keys[key]
            if key in unsent:
                self._restart(key, now)
                continue
            del self._deadlines[key]
            if entry.state is LEAVING:
                self._unclear.add(key)
                self._left(key)
                if key in self._keys:
                    self._restart(key, now)
                continue
            self._fail(key, lambda key=key: self._timeout_error(key))  # type: ignore[misc]
            if entry.state is WANTED:
                self._forget(key)
            else:
                self._refuse(key)

    def _timeout_error(self, key: Any) -> SubscriptionTimeout:
        return SubscriptionTimeout(key, self._timeout, is_ready=self._is_ready)
