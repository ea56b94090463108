"""``Hub``: what is published anywhere reaches everyone who listens."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from types import TracebackType
from typing import Any, Literal, TypeVar, overload

import trio

from .._scope import open_scope
from ..errors import InvalidOption, UsageError
from ..frames import BytesLike
from .broker import Broker, Line
from .fanout import Fanout
from .history import History
from .listeners import Listener, Topic, check_topic, listeners_of
from .listening import Listening
from .memory import MemoryBroker
from .message import Gap, Message, check_channel, check_data, check_name
from .queue import Event, SubscriberOverflow, new_backlog
from .socket import HubSocket
from .statistics import Counters, HubStatistics
from .subscriber import Subscriber
from .subscribers import Registry, matches
from .subscription import LoopSubscriber, Subscription

__all__ = ["Hub"]

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])


class Hub:
    """Fan-out between connections, programs and, through a broker, processes and machines.

    ::

        hub = Hub()

        @hub.on("echo")
        def echo(message):
            print(message.data)

        async with hub, serve(hub.socket, "0.0.0.0", 8020):
            await hub.publish("new model!", channel="model_created")

    A browser that opens ``ws://.../model_created`` gets what is published on that channel; what
    it sends is published on the channel ``incoming``.

    A *pattern* is a channel, or one with ``*`` for anything, ``?`` for one character or ``[ae]``
    for one of these, as Redis matches them. A message without a channel is for everyone.

    Args:
        name: tells this application from others at the same broker; letters, digits and
            ``-_.:``.
        broker: by default a :class:`MemoryBroker` of its own: this process alone.
        max_queue: messages that may wait for one subscriber, beyond what its connection takes.
        overflow: what happens to one who is slower than that, see :data:`SubscriberOverflow`.

    Raises:
        InvalidOption: one of these does not fit.
    """

    def __init__(
        self,
        name: str = "trioglock",
        broker: Broker | None = None,
        *,
        max_queue: int = 256,
        overflow: SubscriberOverflow = "drop_oldest",
    ) -> None:
        if not (broker is None or isinstance(broker, Broker)):
            raise InvalidOption(f"broker is a Broker such as RedisBroker(url), not {broker!r}")
        new_backlog(max_queue, overflow)
        self.name: str = check_name(name)
        self.max_queue: int = max_queue
        self.overflow: SubscriberOverflow = overflow
        self.counters: Counters = Counters()
        self.fanout: Fanout = Fanout()
        self._broker = MemoryBroker() if broker is None else broker
        self._registry = Registry()
        self._listening = Listening(self._registry, self.counters, self._subscribe_listener)
        self._line: Line | None = None
        self._context: AbstractAsyncContextManager[None] | None = None

    def __repr__(self) -> str:
        return f"<Hub {self.name}, {len(self._registry)} subscribers>"

    # Open and closed.

    async def __aenter__(self) -> Hub:
        """Open: reach the broker, start the listeners.

        Raises:
            UsageError: the hub is open already.
            BrokerUnavailable, BrokerError: see the broker.
        """
        if self._context is not None:
            raise UsageError(f"the hub {self.name!r} is open already")
        context = self._open()
        self._context = context
        try:
            await context.__aenter__()
        except BaseException:
            self._context = None
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._context is not None
        try:
            await self._context.__aexit__(kind, error, traceback)
        finally:
            self._context = None

    async def run(self, *, task_status: trio.TaskStatus[Hub] = trio.TASK_STATUS_IGNORED) -> None:
        """Stay open until cancelled, for ``await nursery.start(hub.run)``.

        Args:
            task_status: of ``nursery.start``; it gives the hub, open.
        """
        async with self:
            task_status.started(self)
            await trio.sleep_forever()

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[None]:
        async with self._broker.open(self.name, self._deliver) as line, open_scope() as tasks:
            self._line = line
            self._listening.open(tasks)
            try:
                yield
            finally:
                self._line = None
                self._listening.close()
                self._registry.end()

    # Publishing.

    async def publish(self, message: str | BytesLike, channel: str = "") -> None:
        """Hand a message to everyone who listens, in this process and, by the broker, in others.

        Args:
            message: text or binary.
            channel: where to; by default everyone gets it, whatever they listen to.

        Raises:
            InvalidFrame: the message is neither text nor bytes-like.
            InvalidOption: there is no such channel.
            BrokerUnavailable: the broker did not take it in time.
            BrokerError: the broker does not want it.
            UsageError: the hub is not open.
        """
        data = check_data(message)
        await self._open_line().publish(check_channel(channel), data)

    def _open_line(self) -> Line:
        if self._line is None:
            raise UsageError(f"the hub {self.name!r} is not open: use it inside 'async with hub'")
        return self._line

    def _deliver(self, event: Event) -> None:
        counters = self.counters
        self.fanout.begin()
        if isinstance(event, Gap):
            counters.gaps += 1
            self._registry.tell(event)
        else:
            counters.received += 1
            counters.delivered += self._registry.deliver(event)

    # Subscribing.

    @overload
    def subscribe(
        self,
        pattern: str,
        *,
        gaps: Literal[False] = False,
        after: str | None = None,
        max_queue: int | None = None,
        overflow: SubscriberOverflow | None = None,
    ) -> Subscription[Message]: ...

    @overload
    def subscribe(
        self,
        pattern: str,
        *,
        gaps: Literal[True],
        after: str | None = None,
        max_queue: int | None = None,
        overflow: SubscriberOverflow | None = None,
    ) -> Subscription[Message | Gap]: ...

    def subscribe(
        self,
        pattern: str,
        *,
        gaps: bool = False,
        after: str | None = None,
        max_queue: int | None = None,
        overflow: SubscriberOverflow | None = None,
    ) -> Subscription[Any]:
        """Listen in a loop: ``async for message in hub.subscribe("news/*")``.

        Args:
            pattern: of the channels.
            gaps: whether a :class:`Gap` comes too, where messages may be missing.
            after: the id of the last message that was seen: what came after it comes first, as far
                as the broker's history reaches; where that is not all, a Gap comes before it.
            max_queue: messages that may wait, for this subscriber; by default as for the hub.
            overflow: as for the hub, for this subscriber.

        Raises:
            InvalidOption: one of these does not fit.
            UsageError: the hub is not open, or ``after`` is given and there is no history.
        """
        self._open_line()
        check_channel(pattern)
        return self._subscribe(pattern, gaps=gaps, after=after, limit=max_queue, overflow=overflow)

    def _subscribe(
        self,
        pattern: str | None,
        *,
        gaps: bool = False,
        after: str | None = None,
        limit: int | None = None,
        overflow: SubscriberOverflow | None = None,
    ) -> Subscription[Any]:
        limit = self.max_queue if limit is None else limit
        backlog = new_backlog(limit, self.overflow if overflow is None else overflow)
        subscriber = LoopSubscriber(backlog, self.counters, gaps=gaps)
        if after is not None and pattern is not None:
            missed = self.history.after(after)
            subscriber.catch_up(missed, partial(matches, pattern), gaps=gaps)
        self._registry.add(subscriber, pattern)
        return Subscription(subscriber, lambda: self._registry.remove(subscriber, pattern))

    def _subscribe_listener(self, listener: Listener) -> Subscription[Any]:
        pattern = listener.pattern
        return self._subscribe(pattern, gaps=pattern is None, overflow="drop_oldest")

    @property
    def history(self) -> History:
        """The broker's latest messages.

        Raises:
            UsageError: the hub is not open, or its broker keeps none.
        """
        history = self._open_line().history
        if history is None:
            raise UsageError("the broker keeps no history: give it one with history=...")
        return history

    # Listeners.

    def on(self, topic: Topic) -> Callable[[FunctionT], FunctionT]:
        """Call a function, plain or async, with every :class:`Message` of a channel.

        Several functions may listen to one channel, and one function to several. A plain function
        is called on the spot and must be quick; an async one has a task and a queue of its own. One
        that raises is logged and counted, and goes on.

        Args:
            topic: a channel, a pattern, or the class :class:`Gap`: then it is called with the
                Gap.

        Raises:
            InvalidOption: it is none of these.
        """
        checked = check_topic(topic)

        def listen(function: FunctionT) -> FunctionT:
            if not callable(function):
                raise InvalidOption(f"a listener is a function, not {function!r}")
            self._listening.add(Listener(checked, function))
            return function

        return listen

    def include(self, owner: object) -> None:
        """Let the methods of an object listen that are marked with :func:`on`.

        Args:
            owner: an instance, whose class has marked some.

        Raises:
            InvalidOption: it is a class, or has none.
        """
        for listener in list(listeners_of(owner)):
            self._listening.add(listener)

    # Browsers.

    def socket(self) -> HubSocket:
        """A Socket for one browser, for ``serve(hub.socket, ...)``; see :class:`HubSocket`."""
        return HubSocket(self)

    def join(self, subscriber: Subscriber, channel: str) -> None:
        """Let a subscriber of one's own making listen to one channel.

        Args:
            subscriber: takes what is published, and never waits.
            channel: that it listens to.

        Raises:
            UsageError: the hub is not open.
        """
        self._open_line()
        self._registry.add(subscriber, channel, literal=True)

    def leave(self, subscriber: Subscriber, channel: str) -> None:
        """Let it listen no more; harmless if it does not.

        Args:
            subscriber: as it joined.
            channel: that it listened to.
        """
        self._registry.remove(subscriber, channel)

    def statistics(self) -> HubStatistics:
        """What the hub has done so far."""
        counters = self.counters
        return HubStatistics(
            subscribers=len(self._registry),
            channels=self._registry.channels,
            received=counters.received,
            delivered=counters.delivered,
            dropped=counters.dropped,
            disconnected=counters.disconnected,
            gaps=counters.gaps,
            failures=counters.failures,
        )
