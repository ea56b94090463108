"""A memory transport that takes notes, and the peers at its far ends."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import trio

from tests.machines.notebook import Notebook, frame_of, label_of
from tests.machines.programs import Setup
from trioglock import Close, ConnectFailed, HandshakeRefused, Headers, Ping, Pong
from trioglock.frames import Event, Frame, Violation
from trioglock.options import DialOptions
from trioglock.testing import MemoryLink
from trioglock.transports import Handshake, Link, LinkBroken, Transport

__all__ = ["Net", "Peer", "WatchedLink"]

VIOLATION = "!violation"
RESET = "!reset"
BEAT, BEAT_ANSWER = "beat", "beat!"


class WatchedLink(MemoryLink):
    """The near end: notes what the connection writes and reads, and translates two strange words.

    A message VIOLATION is handed up as one, and nothing after it; RESET breaks the stream.
    """

    notes: Notebook

    def watch(self, notes: Notebook, *, eager: bool) -> None:
        """Begin to take notes; ``eager`` links also write without waiting."""
        self.notes = notes
        self.written: list[str] = []
        """Labels of the data frames that were written whole."""
        self.in_doubt: list[str] = []
        """Those of a write that was cancelled or broke."""
        self.closes = 0
        self.freed = False
        self._dead = False
        self._reset = False
        self._cut = False
        self._busy = False
        self._eager = eager
        self._kept: list[str] = []

    @property
    def unread(self) -> bool:
        """Whether something has come that the connection has not taken."""
        figures = self._incoming.statistics()
        return bool(figures.current_buffer_used or figures.tasks_waiting_send)

    async def write(self, frames: Sequence[Frame]) -> None:
        kept, self._kept = self._kept, []
        labels = kept + self._checked(frames)
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
        return self._eager

    def write_now(self, frames: Sequence[Frame]) -> bool:
        labels = self._checked(frames)
        if self._kept:
            self.notes.blame("a write on the spot ahead of what an earlier one has kept")
        done = super().write_now(frames)
        (self.written if done else self.in_doubt).extend(labels)
        self._kept = [] if done else labels
        return done

    def _checked(self, frames: Sequence[Frame]) -> list[str]:
        """The labels of the data frames; whoever writes now must be allowed to."""
        if self._busy:
            self.notes.blame("two writes at the same time")
        if self._cut:
            self.notes.blame(f"a write after one that was cut: {frames!r}")
        for frame in frames:
            # A ping must be answered until the peer's Close has come (RFC 6455, section 5.5.2).
            if self.closes and not isinstance(frame, Pong):
                self.notes.blame(f"{frame!r} after a Close frame")
            self.closes += isinstance(frame, Close)
        labels = [label_of(frame) for frame in frames if isinstance(frame, str | bytes)]
        return [label for label in labels if label != BEAT]

    async def receive(self) -> list[Event]:
        while not (self._dead or self._reset):
            came = await super().receive()
            events = self._translated(came)
            if events or not came:
                return events
        if self._reset:
            await trio.lowlevel.checkpoint()
            raise LinkBroken("reset by the program") from ConnectionResetError()
        # Nothing behind a violation is read, but the end of the stream is.
        while await super().receive():
            pass
        return []

    def _translated(self, came: list[Event]) -> list[Event]:
        events: list[Event] = []
        for event in came:
            for message in event if isinstance(event, list) else ():
                if message == RESET:
                    self._reset = True
                    return events
                if message == VIOLATION:
                    self._dead = True
                    return [*events, Violation(1002, "ordered by the program")]
                if message != BEAT_ANSWER:
                    self.notes.read.append(label_of(message))
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
        self.freed = True
        await super().aclose()


class Peer:
    """The far end of one link. It never breaks the protocol unless it is told to."""

    def __init__(self, link: MemoryLink, temper: str, notes: Notebook) -> None:
        self.link = link
        self._temper = temper
        self._notes = notes
        self._closing = False
        self._todo: deque[Frame | None] = deque()
        self._wake = trio.Event()
        self.unanswered: list[Ping] = []

    async def live(self) -> None:
        """Read, as the temper wants, and write what is to be said, until the link is gone."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._write)
            if self._temper != "silent":
                while await self.read():
                    pass

    async def _write(self) -> None:
        while True:
            while not self._todo:
                await self._wake.wait()
                self._wake = trio.Event()
            frame = self._todo.popleft()
            try:
                if frame is None:
                    await self.link.send_eof()
                else:
                    await self.link.write([frame])
            except LinkBroken:
                return

    def say(self, frame: Frame | None) -> None:
        """Write a frame, or end the stream (None), after all that was said before."""
        if not self._closing:
            self._closing = frame is None or isinstance(frame, Close)
            self._todo.append(frame)
            self._wake.set()
        elif frame is None and isinstance(self._todo[-1] if self._todo else Close(), Close):
            self._todo.append(None)
            self._wake.set()

    async def read(self) -> bool:
        """Take what has come; False once nothing more will."""
        try:
            events = await self.link.receive()
        except (LinkBroken, trio.ClosedResourceError):
            return False
        for event in events:
            match event:
                case Ping():
                    self.unanswered.append(event)
                case Close() if self._temper == "polite":
                    self.say(event)
                    self.say(None)
                case list() if BEAT in event and self._temper == "polite":
                    self.say(BEAT_ANSWER)
        if self._temper == "polite":
            self.answer()
        return bool(events)

    def answer(self) -> None:
        """Answer the latest ping."""
        if self.unanswered:
            self.say(Pong(self.unanswered.pop().payload))
            self.unanswered.clear()


class Net(Transport):
    """Opens watched links to peers; each attempt goes as the program says."""

    def __init__(self, setup: Setup, notes: Notebook, nursery: trio.Nursery) -> None:
        self.links: list[WatchedLink] = []
        self.peers: list[Peer] = []
        self.dials: deque[str] = deque(setup.dials)
        self._setup = setup
        self._notes = notes
        self._nursery = nursery

    async def connect(self, options: DialOptions, nursery: trio.Nursery) -> Link:
        await trio.lowlevel.checkpoint()
        word = self.dials.popleft() if self.dials else "ok"
        match word:
            case "refuse":
                raise ConnectFailed("refused by the program")
            case "forbid":
                raise HandshakeRefused(403, Headers())
            case "hang":
                await trio.sleep_forever()
            case "slow":
                await trio.sleep(2)
        to_far, from_near = trio.open_memory_channel[Frame](self._setup.capacity)
        to_near, from_far = trio.open_memory_channel[Frame](self._setup.capacity)
        handshake = Handshake(url=options.url)
        near = WatchedLink(handshake, to_far, from_far)
        near.watch(self._notes, eager=self._setup.eager)
        peer = Peer(MemoryLink(handshake, to_near, from_near), self._setup.peer, self._notes)
        self.links.append(near)
        self.peers.append(peer)
        self._notes.links += 1
        self._nursery.start_soon(peer.live)
        if word == "early":
            peer.say(frame_of(self._notes.label("m") + ":deliver", 0))
            peer.say(Ping(b"none"))
        return near
