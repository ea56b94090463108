"""A transport whose links record their frames, and its peers, in memory or on sockets."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import trio

from tests.machines.record import Record, frame_of, label_of
from tests.machines.scenarios import Setup
from tests.machines.wires import RESET, VIOLATION, Far, Wire, memory_wire, socket_wire
from trioglock import Close, ConnectFailed, HandshakeRefused, Headers, Ping, Pong
from trioglock.frames import Event, Frame
from trioglock.options import DialOptions
from trioglock.transports import Handshake, Link, LinkBroken, Transport

__all__ = ["RESET", "VIOLATION", "Peer", "RecordingLink", "RecordingTransport"]

BEAT, BEAT_ANSWER = "message_heartbeat", "beat!"


class RecordingLink(Link):
    """The link of the connection, which records all frames.

    Args:
        wire: the links of both ends.
        writes_now: whether the link can also write without waiting.
    """

    def __init__(self, wire: Wire, record: Record, *, writes_now: bool) -> None:
        self.handshake = wire.near.handshake
        self.record = record
        self.written: list[str] = []
        """Labels of the data frames that were written."""
        self.in_doubt: list[str] = []
        """Labels of the data frames whose write was cancelled or failed."""
        self.closes = 0
        self.closed = False
        self._wire = wire
        self._near = wire.near
        self._cut = False
        self._busy = False
        self._writes_now = writes_now
        self._kept: list[str] = []

    @property
    def unread(self) -> bool:
        """Whether there are frames that the connection has not read."""
        return not self.closed and self._wire.has_unread()

    @property
    def bytes_received(self) -> int:  # type: ignore[override]
        return self._near.bytes_received

    @property
    def bytes_sent(self) -> int:  # type: ignore[override]
        return self._near.bytes_sent

    async def write(self, frames: Sequence[Frame]) -> None:
        kept, self._kept = self._kept, []
        labels = kept + self._check(frames)
        del self.in_doubt[len(self.in_doubt) - len(kept) :]
        self._busy = self._cut = True
        try:
            await self._near.write(frames)
            self._cut = False
        finally:
            self._busy = False
            (self.in_doubt if self._cut else self.written).extend(labels)

    @property
    def writes_now(self) -> bool:
        return self._writes_now and self._near.writes_now

    def write_now(self, frames: Sequence[Frame]) -> bool:
        labels = self._check(frames)
        if self._kept:
            self.record.fail("an immediate write before the rest of the previous one")
        done = self._near.write_now(frames)
        (self.written if done else self.in_doubt).extend(labels)
        self._kept = [] if done else labels
        return done

    @property
    def defers(self) -> bool:
        return self._near.defers

    def defer(self, write: Callable[[], None]) -> None:
        self._near.defer(write)

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
        raise NotImplementedError  # a connection calls only feed()

    async def feed(self, handle: Callable[[list[Event]], bool]) -> bool:
        def record_and_handle(events: list[Event]) -> bool:
            for event in events:
                for message in event if isinstance(event, list) else ():
                    if message != BEAT_ANSWER:
                        self.record.read.append(label_of(message))
            return handle(events)

        return await self._near.feed(record_and_handle)

    async def aclose(self) -> None:
        self.closed = True
        await self._near.aclose()


class Peer:
    """The far end of one link. It follows the protocol unless a step violates it."""

    def __init__(self, link: Far, behavior: str, record: Record) -> None:
        self.link = link
        self._behavior = behavior
        self._record = record
        self._closing = False
        self._pending: deque[Frame | None] = deque()
        self._wake = trio.Event()
        self.unanswered: list[Ping] = []

    async def run(self) -> None:
        """Write the queued frames, and read unless the peer is silent, until it is cancelled."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write)
                if self._behavior != "silent":
                    while await self.read():
                        pass
                await trio.sleep_forever()
        finally:
            await self.link.aclose()

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
        handshake = Handshake(url=options.url)
        if self._setup.wire == "memory":
            wire = memory_wire(handshake, self._setup.capacity)
        else:
            wire = await socket_wire(
                handshake, self._setup.capacity, encrypted=self._setup.wire == "tls"
            )
        near = RecordingLink(wire, self._record, writes_now=self._setup.writes_now)
        peer = Peer(wire.far, self._setup.peer, self._record)
        self.links.append(near)
        self.peers.append(peer)
        self._record.links += 1
        self._nursery.start_soon(peer.run)
        if action == "early":
            peer.send(frame_of(self._record.label("m") + ":deliver", 0))
            peer.send(Ping(b"none"))
        return near
