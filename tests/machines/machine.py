"""The machine: runs one program against one connection, under a clock that costs no time."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, cast

import trio
import trio.testing

from tests.machines.calls import Calls
from tests.machines.hooks import Obedient
from tests.machines.links import BEAT, BEAT_ANSWER, RESET, VIOLATION, Net, Peer
from tests.machines.meddler import Meddler
from tests.machines.notebook import Boom, Notebook, frame_of
from tests.machines.programs import Program, Step
from tests.machines.verdict import judge
from trioglock import (
    Backoff,
    Close,
    Connection,
    MessageHeartbeat,
    Ping,
    Pong,
    Socket,
    Status,
    connect,
)
from trioglock.telemetry import events, listen

__all__ = ["TOTALS", "Machine", "run"]

PATIENCE = 3
"""Seconds that the body itself waits for a call."""

FOR_EVER = 3000
"""Seconds after which whatever still waits will wait for ever."""


TOTALS: Counter[str] = Counter()
"""What this process has run so far: programs, steps, calls of hooks."""


def run(program: Program) -> Notebook:
    """Run a program; raises AssertionError where the connection broke a promise."""
    machine = Machine(program)
    trio.run(machine.main, clock=trio.testing.MockClock(autojump_threshold=0))
    TOTALS.update(programs=1, steps=machine.notes.steps, hooks=machine.notes.hooks)
    judge(machine)
    return machine.notes


class Machine:
    """One run of one program."""

    def __init__(self, program: Program) -> None:
        self.setup = program.setup
        self.notes = Notebook()
        self.net: Net
        self.conn: Connection[Any] | None = None
        self.outcome: BaseException | None = None
        """What came out of the block."""
        self.left_by: BaseException | None = None
        """What the body raised."""
        self.closing_took = 0.0
        self._steps = program.steps
        self._waiting: dict[trio.CancelScope, str] = {}
        self._meddler: Meddler | None = None
        self._tasks: trio.Nursery
        self._calls: Calls

    async def main(self) -> None:
        """Everything, from the first dial to the last call's return."""
        with self._listening():
            await self._live()

    @contextmanager
    def _listening(self) -> Iterator[None]:
        """Whoever is told the events."""
        with ExitStack() as listeners:
            if self.setup.heard:
                listeners.enter_context(listen(self.notes.events.append))
            if self.setup.meddler is not None:
                kind, word = self.setup.meddler
                self._meddler = Meddler(self.notes, word)
                listeners.enter_context(listen(self._meddler.hear, getattr(events, kind)))
            yield

    async def _live(self) -> None:
        async with trio.open_nursery() as peers:
            self.net = Net(self.setup, self.notes, peers)
            async with trio.open_nursery() as self._tasks:
                with trio.move_on_after(FOR_EVER) as patience:
                    await self._block()
                if patience.cancelled_caught:
                    self.notes.blame("the block never ended")
                with trio.move_on_after(1):
                    while self._waiting:
                        await trio.testing.wait_all_tasks_blocked()
                        await trio.sleep(0.1)
                for call in self._waiting.values():
                    self.notes.blame(f"{call} never returned")
                self._tasks.cancel_scope.cancel()
            peers.cancel_scope.cancel()

    def socket(self) -> Socket[Any] | None:
        """The hooks, or None for the default ones."""
        return Obedient(self.setup, self.notes) if self.setup.hooks else None

    async def _block(self) -> None:
        setup, notes = self.setup, self.notes
        options: dict[str, Any] = dict(setup.options)
        if setup.beat:
            options["heartbeat"] = MessageHeartbeat(
                message=lambda: BEAT, is_answer=lambda message: message == BEAT_ANSWER
            )
        policy = False if setup.backoff is None else Backoff(**dict(setup.backoff))
        socket = self.socket()
        left = -math.inf
        with trio.CancelScope(deadline=trio.current_time() + setup.deadline) as outside:
            try:
                async with connect(
                    "ws://memory.test/", socket, transport=self.net, reconnect=policy, **options
                ) as conn:
                    self.conn = cast("Connection[Any]", conn)
                    if isinstance(socket, Obedient):
                        socket.conn = self.conn
                    if self._meddler is not None:
                        self._meddler.conn = self.conn
                    try:
                        self._calls = Calls(setup, notes, self.net, self.conn)
                        await self._body(self.conn, outside)
                    except BaseException as error:
                        self.left_by = error
                        raise
                    finally:
                        left = trio.current_time()
                        if self.left_by is not None or outside.cancel_called:
                            notes.lost_track = True
            except Exception as error:
                self.outcome = error
        if outside.cancel_called:
            notes.lost_track = True
        if left > -math.inf:
            self.closing_took = trio.current_time() - left

    async def _body(self, conn: Connection[Any], outside: trio.CancelScope) -> None:
        for step in self._steps:
            self.notes.steps += 1
            if step.what in ("yield", "settle", "nap", "cancel", "refuse"):
                await self._pass_time(step)
            elif step.what.startswith("peer_"):
                self._tell_peer(step.what, step.arg)
            elif step.what == "abort":
                self.notes.lost_track = True
                if conn.status is not Status.CLOSED:
                    self.notes.stopped = "abort()"
                conn.abort()
            else:
                await self._start(step)
        if self._steps:
            await self._pass_time(Step("settle"))
        match self.setup.leave:
            case "raise":
                raise Boom("out of the body")
            case "cancel":
                outside.cancel()
                await trio.lowlevel.checkpoint()
            case "close":
                await conn.aclose(4003)

    async def _pass_time(self, step: Step) -> None:
        match step.what:
            case "yield":
                await trio.lowlevel.checkpoint()
            case "settle":
                await trio.testing.wait_all_tasks_blocked()
                self._look_for_sleepers()
            case "nap":
                await trio.sleep(step.arg)
                await trio.testing.wait_all_tasks_blocked()
                self._look_for_sleepers()
            case "refuse":
                self.net.dials.append(step.arg)
            case "cancel" if self._waiting:
                scopes = list(self._waiting)
                scopes[step.arg % len(scopes)].cancel()

    def _look_for_sleepers(self) -> None:
        """Everybody is idle: nobody may wait for what is there."""
        assert self.conn is not None
        figures = self.conn.statistics()
        calls = {call.partition("(")[0] for call in self._waiting.values()}
        if figures.receive_queue and calls & {"receive", "receive_batch", "iterate"}:
            self.notes.blame("a receiver sleeps, and there are messages")
        if figures.mailbox or figures.send_queue_bytes or self.conn.status is not Status.OPEN:
            return
        if calls & {"send", "send_frame", "flush"}:
            self.notes.blame(f"one of {calls} sleeps, and the send queue is empty")
        if not figures.receive_queue and self.net.links[-1].unread:
            self.notes.blame("the reader sleeps, and nothing holds it")

    def _tell_peer(self, what: str, arg: Any) -> None:
        peer, notes = self.net.peers[-1], self.notes
        match what:
            case "peer_says":
                for word, size in arg:
                    peer.say(frame_of(f"{notes.label('m')}:{word}", size, binary=size == 3))
            case "peer_pings":
                peer.say(Ping(arg.encode()))
            case "peer_pongs" if arg:
                peer.answer()
            case "peer_pongs":
                peer.say(Pong(b"none"))
            case "peer_closes":
                peer.say(Close(arg))
            case "peer_ends":
                peer.say(None)
            case "peer_drops":
                notes.lost_track = True
                self._tasks.start_soon(peer.link.aclose)
            case "peer_resets" | "peer_violates":
                notes.lost_track = True
                peer.say(RESET if what == "peer_resets" else VIOLATION)
            case "peer_beats":
                peer.say(BEAT_ANSWER if self.setup.beat else frame_of(notes.label("m"), 0))
            case "peer_reads":
                self._tasks.start_soon(self._let_read, peer, arg)

    async def _let_read(self, peer: Peer, count: int) -> None:
        with trio.move_on_after(60):
            for _ in range(count):
                await peer.read()

    # Calls.

    async def _start(self, step: Step) -> None:
        if step.inline:
            with trio.move_on_after(PATIENCE):
                await self._calls.make(step.what, step.arg)
            return
        scope = trio.CancelScope()
        self._waiting[scope] = f"{step.what}({step.arg!r})"
        self._tasks.start_soon(self._apart, step, scope)

    async def _apart(self, step: Step, scope: trio.CancelScope) -> None:
        try:
            with scope:
                await self._calls.make(step.what, step.arg)
        finally:
            del self._waiting[scope]
