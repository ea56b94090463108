"""The reader: from a link's events to the hooks, and our own backpressure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import trio

from ..disconnect import ConnectionLost
from ..frames import Close, Data, Ping, Pong, Violation
from ..options import FlowOptions
from ..telemetry import EventEmitter, Queue
from ..transports import Link, LinkBroken
from .actor import Actor
from .heartbeat import Gate
from .hook_results import HookResults
from .owner import Owner
from .pings import Pings
from .receive_queue import ReceiveQueue
from .send_queue import SendQueue

__all__ = ["Reader"]


class Reader:
    """Reads one link.

    Args:
        session: told how the peer ends the connection.
        link: to read.
        actor: gets the messages.
        effects: carry out what hooks ask for.
        send queue: gets the pongs.
        pings: get the answers.
        gate: tells the heartbeat when the reader is held back.
        emitter: told every frame, and when it is held back.
        flow: ``max_queue`` and ``heartbeat``.
    """

    __slots__ = (
        "_actor",
        "_effects",
        "_emitter",
        "_gate",
        "_is_answer",
        "_link",
        "_max_queue",
        "_pings",
        "_receive_queue",
        "_send_queue",
        "_session",
        "messages",
    )

    def __init__(
        self,
        session: Owner,
        link: Link,
        actor: Actor[Any],
        effects: HookResults,
        send_queue: SendQueue,
        pings: Pings,
        gate: Gate,
        emitter: EventEmitter,
        flow: FlowOptions,
    ) -> None:
        self.messages: int = 0
        """Whole data messages read."""
        self._session = session
        self._link = link
        self._actor = actor
        self._effects = effects
        self._receive_queue: ReceiveQueue = effects.receive_queue
        self._send_queue = send_queue
        self._pings = pings
        self._gate = gate
        self._emitter = emitter
        self._max_queue = flow.max_queue
        self._is_answer = None if flow.heartbeat is None else flow.heartbeat.is_answer

    async def read(self) -> ConnectionLost:
        """Read until the stream ends; how it ended, as far as the stream tells."""
        receive, send_queue = self._link.receive, self._send_queue
        try:
            while True:
                events = await receive()
                if not events:
                    return ConnectionLost()
                send_queue.cork()
                for event in events:
                    if event.__class__ is list:
                        self._messages(event)
                    elif event.__class__ is Violation:
                        send_queue.uncork()
                        await self._violation(event)
                    else:
                        self._control(event)  # type: ignore[arg-type]  # nothing else is left
                send_queue.uncork()
                if self._must_hold():
                    await self._hold()
        except LinkBroken as broken:
            return ConnectionLost(error=broken.__cause__ or broken)

    def _messages(self, run: list[Any]) -> None:
        if self._emitter.frames:
            self._emitter.frames_received(run)
        self.messages += len(run)
        if self._is_answer is not None:
            run = self._without_answers(run, self._is_answer)
        if self._session.is_open or not self._hooks_lag():
            self._actor.receive(run)
        else:
            self._receive_queue.give_up(run)

    def _without_answers(self, run: list[Any], is_answer: Callable[[Data], bool]) -> list[Any]:
        """Take the answers to our own beats out."""
        try:
            answers = [is_answer(message) for message in run]
        except Exception as error:
            self._session.crash(error)
            return []
        if any(answers):
            self._pings.beat_answered()
        return [message for message, answer in zip(run, answers, strict=True) if not answer]

    def _control(self, event: Ping | Pong | Close) -> None:
        if self._emitter.frames:
            self._emitter.frames_received([event])
        match event:
            case Ping(payload):
                pong = Pong(payload)
                if self._emitter.frames:
                    self._emitter.hook_replied(self._actor.ping.name, [pong])
                self._send_queue.pong(pong)
                self._actor.control(self._actor.ping, payload)
            case Pong(payload):
                self._pings.answered(payload)
                self._actor.control(self._actor.pong, payload)
            case Close():
                self._session.closed_by_peer(event)

    async def _violation(self, violation: Violation) -> None:
        """What came before the mistake still gets its answer, however the bytes were cut.

        Two rounds of the scheduler: in the first the program's task may have had its turn before
        this one.
        """
        await trio.lowlevel.checkpoint()
        await trio.lowlevel.checkpoint()
        self._session.violated(violation)

    # Backpressure.

    def _must_hold(self) -> bool:
        if not self._session.is_open:
            return False
        # A full send queue holds the reader only for what its own hooks reply: if it waited for the
        # program's sends as well, two peers that send and read at the same time would stand still.
        effects = self._effects
        effects.replied = effects.replied and self._send_queue.full and not self._send_queue.gone
        return self._receive_queue.full or effects.replied or self._hooks_lag()

    def _hooks_lag(self) -> bool:
        limit = self._max_queue
        return limit is not None and self._actor.backlog >= limit

    async def _hold(self) -> None:
        """Read no more until there is room: TCP tells the peer to slow down."""
        queue: Queue = (
            "receive_queue"
            if self._receive_queue.full
            else "mailbox"
            if self._hooks_lag()
            else "send_queue"
        )
        with self._gate, self._emitter.waiting("reader", queue):
            while self._must_hold():
                if self._receive_queue.full:
                    await self._receive_queue.wait_room()
                elif self._hooks_lag():
                    await self._actor.wait_backlog()
                else:
                    await self._send_queue.wait_room()
