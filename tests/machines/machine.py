"""Runs a scenario against one connection, on a mock clock."""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, cast

import trio
import trio.testing

from tests.machines.calls import Calls
from tests.machines.checks import check_run
from tests.machines.interfering_listener import InterferingListener
from tests.machines.links import BEAT, BEAT_ANSWER, RESET, VIOLATION, Peer, RecordingTransport
from tests.machines.record import Record, UserError, frame_of
from tests.machines.scenarios import Scenario, Step
from tests.machines.scripted_socket import ScriptedSocket
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
from trioglock.transports.native import link as native_link

__all__ = ["TOTALS", "Machine", "run"]

CALL_TIMEOUT = 3
"""Seconds that the body waits for an inline call."""

HANG_TIMEOUT = 3000
"""Seconds after which a waiting call is considered stuck."""


TOTALS: Counter[str] = Counter()
"""Totals of this process: scenarios, steps and calls of hooks."""


def run(scenario: Scenario) -> Record:
    """Run a scenario. Raises AssertionError if the connection violates a guarantee."""
    machine = Machine(scenario)
    with _polling(scenario.setup.polled):
        trio.run(machine.main, clock=trio.testing.MockClock(autojump_threshold=0))
    TOTALS.update(scenarios=1, steps=machine.record.steps, hooks=machine.record.hooks)
    check_run(machine)
    return machine.record


@contextmanager
def _polling(polled: bool) -> Iterator[None]:
    before = native_link.CLIENTS_TO_POLL
    native_link.CLIENTS_TO_POLL = 1 if polled else sys.maxsize
    try:
        yield
    finally:
        native_link.CLIENTS_TO_POLL = before


class Machine:
    """One run of a scenario."""

    def __init__(self, scenario: Scenario) -> None:
        self.setup = scenario.setup
        self.record = Record()
        self.transport: RecordingTransport
        self.conn: Connection[Any] | None = None
        self.outcome: BaseException | None = None
        """The exception raised by the block."""
        self.body_error: BaseException | None = None
        """The exception raised by the body."""
        self.closing_took = 0.0
        self._steps = scenario.steps
        self._running_calls: dict[trio.CancelScope, str] = {}
        self._interference: InterferingListener | None = None
        self._tasks: trio.Nursery
        self._calls: Calls

    async def main(self) -> None:
        """Run everything, from the first attempt to the return of the last call."""
        with self._listeners():
            await self._run()

    @contextmanager
    def _listeners(self) -> Iterator[None]:
        """Start the listeners."""
        with ExitStack() as listeners:
            if self.setup.listened:
                listeners.enter_context(listen(self.record.events.append))
            if self.setup.interference is not None:
                kind, action = self.setup.interference
                self._interference = InterferingListener(self.record, action)
                listeners.enter_context(listen(self._interference.receive, getattr(events, kind)))
            yield

    async def _run(self) -> None:
        async with trio.open_nursery() as peers:
            self.transport = RecordingTransport(self.setup, self.record, peers)
            async with trio.open_nursery() as self._tasks:
                with trio.move_on_after(HANG_TIMEOUT) as hang:
                    await self._block()
                if hang.cancelled_caught:
                    self.record.fail("the block never ended")
                with trio.move_on_after(1):
                    while self._running_calls:
                        await trio.testing.wait_all_tasks_blocked()
                        await trio.sleep(0.1)
                for call in self._running_calls.values():
                    self.record.fail(f"{call} never returned")
                self._tasks.cancel_scope.cancel()
            peers.cancel_scope.cancel()

    def socket(self) -> Socket[Any] | None:
        """Create the socket, or return None for the default hooks."""
        return ScriptedSocket(self.setup, self.record) if self.setup.hooks else None

    async def _block(self) -> None:
        setup, record = self.setup, self.record
        options: dict[str, Any] = dict(setup.options)
        if setup.message_heartbeat:
            options["heartbeat"] = MessageHeartbeat(
                message=lambda: BEAT, is_answer=lambda message: message == BEAT_ANSWER
            )
        policy = False if setup.backoff is None else Backoff(**dict(setup.backoff))
        socket = self.socket()
        body_ended_at = -math.inf
        with trio.CancelScope(deadline=trio.current_time() + setup.deadline) as scope:
            try:
                async with connect(
                    "ws://memory.test/",
                    socket,
                    transport=self.transport,
                    reconnect=policy,
                    **options,
                ) as conn:
                    self.conn = cast("Connection[Any]", conn)
                    if isinstance(socket, ScriptedSocket):
                        socket.conn = self.conn
                    if self._interference is not None:
                        self._interference.conn = self.conn
                    try:
                        self._calls = Calls(setup, record, self.transport, self.conn)
                        await self._body(self.conn, scope)
                    except BaseException as error:
                        self.body_error = error
                        raise
                    finally:
                        body_ended_at = trio.current_time()
                        if self.body_error is not None or scope.cancel_called:
                            record.may_lose = True
            except Exception as error:
                self.outcome = error
        if scope.cancel_called:
            record.may_lose = True
        if body_ended_at > -math.inf:
            self.closing_took = trio.current_time() - body_ended_at

    async def _body(self, conn: Connection[Any], scope: trio.CancelScope) -> None:
        for step in self._steps:
            self.record.steps += 1
            if step.what in ("yield", "settle", "nap", "cancel", "refuse"):
                await self._pass_time(step)
            elif step.what.startswith("peer_"):
                self._run_peer_step(step.what, step.arg)
            elif step.what == "abort":
                self.record.may_lose = True
                if conn.status is not Status.CLOSED:
                    self.record.stopped = "abort()"
                conn.abort()
            else:
                await self._start(step)
        if self._steps:
            await self._pass_time(Step("settle"))
        match self.setup.leave:
            case "raise":
                raise UserError("raised by the body")
            case "cancel":
                scope.cancel()
                await trio.lowlevel.checkpoint()
            case "close":
                await conn.aclose(4003)

    async def _pass_time(self, step: Step) -> None:
        match step.what:
            case "yield":
                await trio.lowlevel.checkpoint()
            case "settle":
                await trio.testing.wait_all_tasks_blocked()
                self._check_no_task_is_stuck()
            case "nap":
                await trio.sleep(step.arg)
                await trio.testing.wait_all_tasks_blocked()
                self._check_no_task_is_stuck()
            case "refuse":
                self.transport.attempts.append(step.arg)
            case "cancel" if self._running_calls:
                scopes = list(self._running_calls)
                scopes[step.arg % len(scopes)].cancel()

    def _check_no_task_is_stuck(self) -> None:
        """All tasks are blocked: none may wait for something that is available."""
        assert self.conn is not None
        statistics = self.conn.statistics()
        calls = {call.partition("(")[0] for call in self._running_calls.values()}
        if statistics.receive_queue and calls & {"receive", "receive_batch", "iterate"}:
            self.record.fail("a receiver waits although there are messages")
        if statistics.mailbox or statistics.send_queue_bytes or self.conn.status is not Status.OPEN:
            return
        if calls & {"send", "send_frame", "flush"}:
            self.record.fail(f"one of {calls} waits although the send queue is empty")
        if not statistics.receive_queue and self.transport.links[-1].unread:
            self.record.fail("the reader waits although nothing pauses it")

    def _run_peer_step(self, what: str, arg: Any) -> None:
        peer, record = self.transport.peers[-1], self.record
        match what:
            case "peer_sends":
                for action, size in arg:
                    peer.send(frame_of(f"{record.label('m')}:{action}", size, binary=size == 3))
            case "peer_pings":
                peer.send(Ping(arg.encode()))
            case "peer_pongs" if arg:
                peer.answer()
            case "peer_pongs":
                peer.send(Pong(b"none"))
            case "peer_closes":
                peer.send(Close(arg))
            case "peer_ends":
                peer.send(None)
            case "peer_drops":
                record.may_lose = True
                self._tasks.start_soon(peer.link.aclose)
            case "peer_resets" | "peer_violates":
                record.may_lose = True
                peer.send(RESET if what == "peer_resets" else VIOLATION)
            case "peer_answers_heartbeat":
                peer.send(
                    BEAT_ANSWER if self.setup.message_heartbeat else frame_of(record.label("m"), 0)
                )
            case "peer_reads":
                self._tasks.start_soon(self._read_frames, peer, arg)

    async def _read_frames(self, peer: Peer, count: int) -> None:
        with trio.move_on_after(60):
            for _ in range(count):
                await peer.read()

    # Calls.

    async def _start(self, step: Step) -> None:
        if step.inline:
            with trio.move_on_after(CALL_TIMEOUT):
                await self._calls.make(step.what, step.arg)
            return
        scope = trio.CancelScope()
        self._running_calls[scope] = f"{step.what}({step.arg!r})"
        self._tasks.start_soon(self._call_in_background, step, scope)

    async def _call_in_background(self, step: Step, scope: trio.CancelScope) -> None:
        try:
            with scope:
                await self._calls.make(step.what, step.arg)
        finally:
            del self._running_calls[scope]
