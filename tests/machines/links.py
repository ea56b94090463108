"""A memory transport whose links record their frames, and its peers."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import trio

from tests.machines.record import Record, frame_of, label_of
from tests.machines.scenarios import Setup
from trioglock import Close, ConnectFailed, HandshakeRefused, Headers, Ping, Pong
from trioglock.frames import Event, Frame, Violation
from trioglock.options import DialOptions
from trioglock.testing import MemoryLink
from trioglock.transports import Handshake, Link, LinkBroken, Transport

__all__ = ["Peer", "RecordingLink", "RecordingTransport"]

VIOLATION = "!violation"
RESET = "!reset"
BEAT, BEAT_ANSWER = "message_heartbeat", "beat!"


class RecordingLink(MemoryLink):
    """The link of the connection, which records all frames.

    The message VIOLATION is received as a violation of the protocol; RESET breaks the stream.
    """

    record: Record

    def start(self, record: Record, *, writes_now: bool) -> None:
        """Start to record; with ``writes_now`` the link can also write without waiting."""
        self.record = record
        self.written: list[str] = []
        """Labels of the data frames that were written."""
        self.in_doubt: list[str] = []
        """Labels of the data frames whose write was cancelled or failed."""
        self.closes = 0
        self.closed = False
        self._violated = False
        self._reset = False
        self._cut = False
        self._busy = False
        self._writes_now = writes_now
        self._kept: list[str] = []

    @property
    def unread(self) -> bool:
        """Whether there are frames that the connection has not read."""
        statistics = self._incoming.statistics()
        return bool(statistics.current_buffer_used or statistics.tasks_waiting_send)

    async def write(self, frames: Sequence[Frame]) -> None:
        kept, self._kept = self._kept, []
        labels = kept + self._check(frames)
        del self.in_doubt[len(self.in_doubt) - len(kept) :]
        self._busy = self._cut = True
        try:
            await super().write(frames)
            self._cut = False
        finally:
            self._busy = False
            (self.in_doubt if self._cut else self.written).extend(labels)

    @property
    def writes_now(self) -> bool:
        return self._writes_now

    def write_now(self, frames: Sequence[Frame]) -> bool:
        labels = self._check(frames)
        if self._kept:
            self.record.fail("an immediate write before the rest of the previous one")
        done = super().write_now(frames)
        (self.written if done else self.in_doubt).extend(labels)
        self._kept = [] if done else labels
        return done

    def _check(self, frames: Sequence[Frame]) -> list[str]:
        """Check that the write is allowed, and return the labels of the data frames."""
        if self._busy:
            self.record.fail("two writes at the same time")
        if self._cut:
            self.record.fail(f"a write after one that was cut: {frames!r}")
        for frame in frames:
            # A ping must be answered until the peer's Close has come (RFC 6455, section 5.5.2).
            if self.closes and not isinstance(frame, Pong):
                self.record.fail(f"{frame!r} after a Close frame")
            self.closes += isinstance(frame, Close)
        labels = [label_of(frame) for frame in frames if isinstance(frame, str | bytes)]
        return [label for label in labels if label != BEAT]

    async def receive(self) -> list[Event]:
        while not (self._violated or self._reset):
            received = await super().receive()
            events = self._translate(received)
            if events or not received:
                return events
        if self._reset:
            await trio.lowlevel.checkpoint()
            raise LinkBroken("reset by the scenario") from ConnectionResetError()
        # After a violation only the end of the stream is read.
        while await super().receive():
            pass
        return []

    def _translate(self, received: list[Event]) -> list[Event]:
        events: list[Event] = []
        for event in received:
            for message in event if isinstance(event, list) else ():
                if message == RESET:
                    self._reset = True
                    return events
                if message == VIOLATION:
                    self._violated = True
                    return [*events, Violation(1002, "caused by the scenario")]
                if message != BEAT_ANSWER:
                    self.record.read.append(label_of(message))
                self._add(events, message)
            if not isinstance(event, list):
                events.append(event)
        return events

    def _add(self, events: list[Event], message: str | bytes) -> None:
        if events and isinstance(events[-1], list):
            events[-1].append(message)
        else:
            events.append([message])

    async def aclose(self) -> None:
        self.closed = True
        await super().aclose()


class Peer:
    """The far end of one link. It follows the protocol unless a step violates it."""

    def __init__(self, link: MemoryLink, behavior: str, record: Record) -> None:
        self.link = link
        self._behavior = behavior
        self._record = record
        self._closing = False
        self._pending: deque[Frame | None] = deque()
        self._wake = trio.Event()
        self.unanswered: list[Ping] = []

    async def run(self) -> None:
        """Write the queued frames, and read unless the peer is silent, until the link has ended."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._write)
            if self._behavior != "silent":
                while await self.read():
                    pass

    async def _write(self) -> None:
        while True:
            while not self._pending:
                await self._wake.wait()
                self._wake = trio.Event()
            frame = self._pending.popleft()
            try:
                if frame is None:
                    await self.link.send_eof()
                else:
                    await self.link.write([frame])
            except LinkBroken:
                return

    def send(self, frame: Frame | None) -> None:
        """Queue a frame, or None to end the stream."""
        if not self._closing:
            self._closing = frame is None or isinstance(frame, Close)
            self._pending.append(frame)
            self._wake.set()
        elif frame is None and isinstance(self._pending[-1] if self._pending else Close(), Close):
            self._pending.append(None)
            self._wake.set()

    async def read(self) -> bool:
        """Read the received frames; return False at the end."""
        try:
            events = await self.link.receive()
        except (LinkBroken, trio.ClosedResourceError):
            return False
        for event in events:
            match event:
                case Ping():
                    self.unanswered.append(event)
                case Close() if self._behavior == "polite":
                    self.send(event)
                    self.send(None)
                case list() if BEAT in event and self._behavior == "polite":
                    self.send(BEAT_ANSWER)
        if self._behavior == "polite":
            self.answer()
        return bool(events)

    def answer(self) -> None:
        """Answer the latest ping."""
        if self.unanswered:
            self.send(Pong(self.unanswered.pop().payload))
            self.unanswered.clear()


class RecordingTransport(Transport):
    """Opens links to peers; the scenario determines the result of each attempt."""

    def __init__(self, setup: Setup, record: Record, nursery: trio.Nursery) -> None:
        self.links: list[RecordingLink] = []
        self.peers: list[Peer] = []
        self.attempts: deque[str] = deque(setup.attempts)
        self._setup = setup
        self._record = record
        self._nursery = nursery

    async def connect(self, options: DialOptions, nursery: trio.Nursery) -> Link:
        await trio.lowlevel.checkpoint()
        action = self.attempts.popleft() if self.attempts else "ok"
        match action:
            case "refuse":
                raise ConnectFailed("refused by the scenario")
            case "forbid":
                raise HandshakeRefused(403, Headers())
            case "hang":
                await trio.sleep_forever()
            case "async_hooks":
                await trio.sleep(2)
        to_far, from_near = trio.open_memory_channel[Frame](self._setup.capacity)
        to_near, from_far = trio.open_memory_channel[Frame](self._setup.capacity)
        handshake = Handshake(url=options.url)
        near = RecordingLink(handshake, to_far, from_far)
        near.start(self._record, writes_now=self._setup.writes_now)
        peer = Peer(MemoryLink(handshake, to_near, from_near), self._setup.peer, self._record)
        self.links.append(near)
        self.peers.append(peer)
        self._record.links += 1
        self._nursery.start_soon(peer.run)
        if action == "early":
            peer.send(frame_of(self._record.label("m") + ":deliver", 0))
            peer.send(Ping(b"none"))
        return near
