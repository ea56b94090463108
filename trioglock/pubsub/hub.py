"""``Hub``: delivers published messages to all subscribers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Literal, TypeAlias, TypeVar, overload

import trio

from .._hints import checks_keywords, describe_value, require_trio
from .._scope import open_scope
from ..connection.fanout import Fanout
from ..errors import InvalidOption, UsageError
from ..frames import BytesLike
from ..server import ServeTarget
from ..telemetry.hubs import open_hubs
from .broker import Broker, BrokerSession, MemoryBroker
from .history import FindRetention, MessageHistory, Retention
from .listeners import (
    HubListener,
    PlainListener,
    Topic,
    check_topic,
    find_listeners,
    run_listener,
)
from .message import (
    EVERYONE,
    INCOMING,
    Event,
    Gap,
    Message,
    check_channel,
    check_data,
    check_name,
    check_sharded_channel,
)
from .patterns import ChannelFilter
from .queue import SubscriberOverflow, make_queue
from .socket import EventEncoders, HubSocket, HubTarget
from .subscribers import Counters, Subscriber, SubscriberRegistry
from .subscription import LoopSubscriber, Subscription

__all__ = ["Hub", "HubStatistics"]

NO_HISTORY = "the broker keeps no history: create it with history=..."

Service: TypeAlias = Callable[[BrokerSession, trio.Nursery], None]
"""Starts tasks that use the session of an open hub."""

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class HubStatistics:
    """Counters of a hub since it was created.

    Args:
        subscribers: current number of clients, subscriptions and listeners.
        channels: current number of channels with a subscriber, not counting patterns.
        received: messages received from the broker.
        delivered: messages delivered to a subscriber; one message to ten subscribers counts as
            ten.
        dropped: messages included in ``delivered`` that were dropped later because the queue of the
            subscriber was full.
        disconnected: clients disconnected because they were too slow.
        gaps: gaps after interruptions of the connection to the broker.
        failures: exceptions raised by listeners.
        queued_bytes: current size of the messages in the queues of clients, subscriptions and
            listeners, counted as for ``max_queue_bytes``.
        broker_up: whether the hub is open and its broker can currently be reached.
    """

    subscribers: int
    channels: int
    received: int
    delivered: int
    dropped: int
    disconnected: int
    gaps: int
    failures: int
    queued_bytes: int
    broker_up: bool


class Hub:
    """Delivers messages to subscribers in this process and, through a broker, in others.

    ::

        hub = Hub()

        @hub.on("echo")
        def echo(message):
            print(message.data)

        async with hub, serve(hub.socket, "0.0.0.0", 8020):
            await hub.publish("new model!", channel="model_created")

    A client that opens ``ws://.../model_created`` receives the messages on that channel; the
    messages it sends are published on the ``incoming`` channel.

    A *pattern* is a channel name in which ``*`` stands for any number of characters, ``?`` for any
    single character, ``[ae]`` for ``a`` or ``e``, ``[a-e]`` for a range and ``[^e]`` for any
    character other than ``e``; a backslash makes the next character literal. Patterns match as in
    Redis, which compares UTF-8 bytes. A message without a channel is a broadcast: every subscriber
    receives it.

    Args:
        name: separates applications that use the same broker; letters, digits and ``-_.:``.
        broker: by default a new :class:`MemoryBroker`, which is limited to this process.
        max_queue: maximum number of messages in the queue of one subscriber. A client also has the
            send queue of its connection.
        max_queue_bytes: total size of these messages in bytes at which the queue also counts as
            full.
        overflow: what happens when the queue is full; see :data:`SubscriberOverflow`.

    Raises:
        InvalidOption: an argument has the wrong type or value.
    """

    @checks_keywords("Hub")
    def __init__(
        self,
        name: str = "trioglock",
        broker: Broker | None = None,
        *,
        max_queue: int = 256,
        max_queue_bytes: int = 2**24,
        overflow: SubscriberOverflow = "resume",
    ) -> None:
        if not (broker is None or isinstance(broker, Broker)):
            raise InvalidOption(
                f"broker must be a Broker such as RedisBroker(url), not {describe_value(broker)}"
            )
        make_queue(max_queue, overflow, max_bytes=max_queue_bytes)
        self.name: str = check_name(name)
        self.max_queue: int = max_queue
        self.max_queue_bytes: int = max_queue_bytes
        self.overflow: SubscriberOverflow = overflow
        self.counters: Counters = Counters()
        self.encoders: EventEncoders = EventEncoders()
        self._broker = MemoryBroker() if broker is None else broker
        self._registry = SubscriberRegistry()
        self._listeners: list[HubListener] = []
        self._services: list[Service] = []
        self._topic_retentions: list[FindRetention] = []
        self._session: BrokerSession | None = None
        self._nursery: trio.Nursery | None = None
        self._context: AbstractAsyncContextManager[None] | None = None

    def __repr__(self) -> str:
        return f"<Hub {self.name}, {len(self._registry)} subscribers>"

    @property
    def broker(self) -> Broker:
        """The broker that connects this hub to others."""
        return self._broker

    async def __aenter__(self) -> Hub:
        """Connect to the broker and start the listeners.

        Raises:
            UsageError: the hub is already open, or the current task is not a trio task.
            BrokerUnavailable: the broker could not be reached in time.
            BrokerError: the broker returned an error, for example because of a wrong password.
        """
        require_trio("Hub(...)")
        if self._context is not None:
            raise UsageError(f"the hub {self.name!r} is already open")
        self._context = self._open()
        try:
            await self._context.__aenter__()
        except BaseException:
            self._context = None
            raise
        return self

    async def __aexit__(self, *exc_info: Any) -> None:
        assert self._context is not None
        try:
            await self._context.__aexit__(*exc_info)
        finally:
            self._context = None

    async def run(self, *, task_status: trio.TaskStatus[Hub] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep the hub open until cancelled, for ``await nursery.start(hub.run)``.

        Args:
            task_status: passed by ``nursery.start``, which returns the open hub.
        """
        async with self:
            task_status.started(self)
            await trio.sleep_forever()

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[None]:
        topics = [self._find_topic_retention] if self._topic_retentions else []
        opening = self._broker.open(self.name, self._deliver, *topics)
        async with opening as session, open_scope() as nursery:
            if topics and session.topic_history is None:
                raise UsageError(
                    f"{type(self._broker).__name__} keeps no history of topics: remove the history "
                    "of your channel classes, or set topic_history of its sessions"
                )
            self._session, self._nursery = session, nursery
            for listener in self._listeners:
                self._start_listener(listener)
            for service in self._services:
                service(session, nursery)
            open_hubs.add(self)
            try:
                for channels in self._registry.filters():
                    await session.wait_subscribed(channels)
                yield
            finally:
                open_hubs.discard(self)
                self._session = self._nursery = None
                self._registry.end()

    async def publish(self, message: str | BytesLike, channel: str = "") -> None:
        """Publish a message to all subscribers, in this process and in others.

        Args:
            message: text or binary data.
            channel: name of the channel; by default the message is a broadcast.

        Raises:
            InvalidFrame: the message is neither text nor bytes-like.
            InvalidOption: ``channel`` is not the name of a channel.
            BrokerUnavailable: the broker did not accept the message in time.
            BrokerError: the broker returned an error.
            UsageError: the hub is not open.
        """
        data = check_data(message)
        await self._open_session().publish(self._check_channel(channel), data)

    def publish_nowait(self, message: str | BytesLike, channel: str = "") -> bool:
        """Publish a message without waiting, if the broker delivers messages immediately.

        A :class:`MemoryBroker` does. Other tasks do not run in the meantime, so use :meth:`publish`
        in loops.

        Args:
            message: as in :meth:`publish`.
            channel: as in :meth:`publish`.

        Returns:
            Whether the message was published; if not, use :meth:`publish`.

        Raises:
            InvalidFrame, InvalidOption, UsageError: as in :meth:`publish`.
        """
        data = check_data(message)
        return self._open_session().publish_nowait(self._check_channel(channel), data)

    def _check_channel(self, channel: object) -> str:
        checked = check_channel(channel)
        return check_sharded_channel(checked) if self._broker.sharded else checked

    def _check_filter(self, channels: ChannelFilter) -> ChannelFilter:
        if self._broker.sharded:
            if channels.channel is None:
                raise InvalidOption(
                    f"patterns such as {channels.pattern!r} are not supported with sharded=True: "
                    "subscribe to channels, or use a broker without sharded=True"
                )
            check_sharded_channel(channels.channel)
        return channels

    def _open_session(self) -> BrokerSession:
        if self._session is None:
            raise UsageError(f"the hub {self.name!r} is not open: use it inside 'async with hub'")
        return self._session

    def _deliver(self, event: Event) -> bool:
        counters = self.counters
        nearly_full = counters.nearly_full
        if isinstance(event, Gap):
            counters.gaps += self._deliver_gap(event)
        else:
            counters.received += 1
            counters.delivered += self._registry.deliver(event)
        Fanout.current().schedule()
        return counters.nearly_full != nearly_full

    def _deliver_gap(self, gap: Gap) -> bool:
        session = self._session
        if session is None:  # still opening, without subscribers
            return False
        if gap.channel == INCOMING and not self._broker.sharded:
            return self._registry.deliver_plain_gap(gap, session.has_history)
        if session.history is None:
            gap = replace(gap, id=None)
        return self._registry.deliver_gap(gap)

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
        """Subscribe with a loop: ``async for message in hub.subscribe("news/*")``.

        Args:
            pattern: the channels.
            gaps: whether the loop also receives a :class:`Gap` where messages may be missing,
                because the broker was unreachable, or the queue or the history was too short.
            after: id of the last message already seen. The messages after it come first, as far
                back as the broker's history goes; if some are missing, a Gap precedes them. With
                ``"0"``, all messages that are kept come first, without a Gap. To begin after the
                messages that the hub has already received, pass ``hub.history.last``.
            max_queue: maximum number of messages in the queue; by default that of the hub.
            overflow: what happens when the queue is full; by default as set for the hub.

        Raises:
            InvalidOption: an argument has the wrong type or value.
            UsageError: the hub is not open, or ``after`` is given and there is no history.
        """
        session = self._open_session()
        channels = self._check_filter(ChannelFilter(check_channel(pattern)))
        queue = make_queue(
            self.max_queue if max_queue is None else max_queue,
            self.overflow if overflow is None else overflow,
            max_bytes=self.max_queue_bytes,
            gaps=gaps,
        )
        subscriber = LoopSubscriber(channels, queue, self.counters, session)
        if after is not None:
            if session.history is None:
                raise UsageError(NO_HISTORY)
            subscriber.resume_after(after)
        return self._add_loop(subscriber, channels)

    def _add(self, subscriber: Subscriber, channels: ChannelFilter | None) -> None:
        session = self._open_session()
        if self._registry.add(subscriber, channels) and channels is not None:
            session.subscribe(channels)

    def _remove(self, subscriber: Subscriber, channels: ChannelFilter | None) -> None:
        is_last = self._registry.remove(subscriber, channels)
        if is_last and channels is not None and self._session is not None:
            self._session.unsubscribe(channels)

    def _add_loop(
        self, subscriber: LoopSubscriber, channels: ChannelFilter | None
    ) -> Subscription[Any]:
        self._add(subscriber, channels)
        return Subscription(subscriber, partial(self._remove, subscriber, channels))

    @property
    def history(self) -> MessageHistory:
        """The latest messages of each channel, kept by the broker.

        Raises:
            UsageError: the hub is not open, or its broker keeps no history.
        """
        history = self._open_session().history
        if history is None:
            raise UsageError(NO_HISTORY)
        return history

    def on(self, topic: Topic) -> Callable[[FunctionT], FunctionT]:
        """Call a function, plain or async, with every :class:`Message` on a channel.

        Several functions may listen to one channel, and one function to several channels. A plain
        function is called immediately and must be quick; an async one has its own task and queue.
        An exception is logged and counted, and the function is still called for later messages.

        Args:
            topic: a channel, a pattern, or the class :class:`Gap`, to be called for each gap.

        Raises:
            InvalidOption: ``topic`` is none of these.
        """
        checked = check_topic(topic)

        def listen(function: FunctionT) -> FunctionT:
            if not callable(function):
                raise InvalidOption(f"a listener must be a function, not {function!r}")
            self._add_listener(HubListener(checked, function))
            return function

        return listen

    def include(self, owner: object) -> None:
        """Register the methods of an object that are marked with :func:`on` as listeners.

        Args:
            owner: an instance of a class with marked methods.

        Raises:
            InvalidOption: ``owner`` is a class, or has no marked methods.
        """
        for listener in list(find_listeners(owner)):
            self._add_listener(listener)

    def _add_listener(self, listener: HubListener) -> None:
        if listener.channels is not None:
            self._check_filter(listener.channels)
        self._listeners.append(listener)
        self._start_listener(listener)

    def _start_listener(self, listener: HubListener) -> None:
        if self._nursery is None:
            return
        channels = listener.channels
        if listener.is_async:
            queue = make_queue(
                self.max_queue,
                "resume",
                max_bytes=self.max_queue_bytes,
                gaps=channels is None,
            )
            subscriber = LoopSubscriber(
                channels or ChannelFilter(EVERYONE), queue, self.counters, self._open_session()
            )
            events = self._add_loop(subscriber, channels)
            self._nursery.start_soon(run_listener, listener.function, events, self.counters)
        else:
            self._add(PlainListener(listener, self.counters), channels)

    def _add_service(self, service: Service) -> None:
        """Start tasks when the hub opens. They are cancelled when it closes.

        Args:
            service: called with the session and the nursery, immediately if the hub is already
                open.
        """
        self._services.append(service)
        if self._nursery is not None:
            service(self._open_session(), self._nursery)

    def _keep_topics(self, find_retention: FindRetention) -> None:
        """Keep the messages of topics.

        Args:
            find_retention: returns the retention of the channel of a topic, or None.

        Raises:
            UsageError: the hub was opened without a history of topics.
        """
        if self._session is not None and self._session.topic_history is None:
            raise UsageError(
                f"the hub {self.name!r} is already open without a history of topics: create the "
                "Channels before you open the hub"
            )
        self._topic_retentions.append(find_retention)

    def _find_topic_retention(self, channel: str) -> Retention | None:
        for find_retention in self._topic_retentions:
            retention = find_retention(channel)
            if retention is not None:
                return retention
        return None

    def _topic_history(self) -> MessageHistory:
        history = self._open_session().topic_history
        assert history is not None, "a class has a history"
        return history

    @property
    def socket(self) -> ServeTarget:
        """The target for :func:`trioglock.serve` or :class:`trioglock.asgi.WebSocketApp`."""
        return HubTarget(self, HubSocket)

    def socket_of(self, make_socket: Callable[[Hub], HubSocket]) -> ServeTarget:
        """Return a target like :attr:`socket` for your own subclass of :class:`HubSocket`.

        Args:
            make_socket: the class, or a function that is called with this hub for each client.

        Raises:
            InvalidOption: ``make_socket`` is not callable.
        """
        if not callable(make_socket):
            raise InvalidOption(
                f"make_socket must be a subclass of HubSocket, not {describe_value(make_socket)}"
            )
        return HubTarget(self, make_socket)

    def join(self, subscriber: Subscriber, channel: str) -> None:
        """Add your own :class:`Subscriber` to a channel.

        It receives every message that is published after :meth:`wait_subscribed` has returned.

        Args:
            subscriber: the subscriber.
            channel: name of the channel, never a pattern.

        Raises:
            InvalidOption: the broker is sharded, and ``channel`` contains braces or is empty.
            UsageError: the hub is not open.
        """
        self._add(subscriber, self._check_filter(ChannelFilter(channel, literal=True)))

    def is_subscribed(self, channel: str) -> bool:
        """Whether subscribers receive every message published from now on, or a gap in its place.

        Args:
            channel: as passed to :meth:`join`.

        Raises:
            UsageError: the hub is not open.
        """
        return self._open_session().is_subscribed(ChannelFilter(channel, literal=True))

    async def wait_subscribed(self, channel: str) -> None:
        """Wait until the broker has confirmed the subscription to a channel.

        Args:
            channel: as passed to :meth:`join`.

        Raises:
            BrokerUnavailable: the broker did not confirm the subscription in time.
            BrokerError: the broker returned an error.
            UsageError: the hub is not open.
        """
        await self._open_session().wait_subscribed(ChannelFilter(channel, literal=True))

    def leave(self, subscriber: Subscriber, channel: str) -> None:
        """Remove a subscriber; do nothing if it has not joined.

        Args:
            subscriber: as passed to :meth:`join`.
            channel: as passed to :meth:`join`.
        """
        self._remove(subscriber, ChannelFilter(channel, literal=True))

    def statistics(self) -> HubStatistics:
        """Return the current counters. You can call this method from any thread.

        With 10,000 subscribers, it takes about a millisecond.
        """
        counters = asdict(self.counters)
        del counters["nearly_full"]
        session = self._session
        return HubStatistics(
            subscribers=len(self._registry),
            channels=self._registry.channels,
            queued_bytes=self._registry.queued_bytes,
            broker_up=session is not None and session.is_up,
            **counters,
        )
