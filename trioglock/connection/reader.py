"""The reader: passes received frames to the hooks and pauses for backpressure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import trio

from ..disconnect import ConnectionLost
from ..frames import Close, Data, Event, Ping, Pong, Violation
from ..options import FlowOptions
from ..telemetry import EventEmitter, Queue
from ..transports import Link, LinkBroken
from .actor import Actor
from .heartbeat import Pings, ReadPause
from .hook_results import HookResults
from .links import LinkOwner
from .receive_queue import ReceiveQueue
from .send_queue import SendQueue

__all__ = ["Reader"]


class Reader:
    """Reads one link.

    Args:
        owner: receives Close frames and violations.
        link: the link to read.
        actor: receives the messages.
        results: applies the results of hooks.
        send_queue: sends the pongs.
        pings: receives the pongs.
        read_pause: records for the heartbeat when the reader is paused.
        emitter: emits an event for each frame and each pause.
        flow: ``max_queue`` and ``heartbeat``.
    """

    __slots__ = (
        "_actor",
        "_emitter",
        "_is_answer",
        "_link",
        "_max_queue",
        "_owner",
        "_pings",
        "_read_pause",
        "_receive_queue",
        "_results",
        "_send_queue",
        "_violation",
        "messages",
    )

    def __init__(
        self,
        owner: LinkOwner,
        link: Link,
        actor: Actor[Any],
        results: HookResults,
        send_queue: SendQueue,
        pings: Pings,
        read_pause: ReadPause,
        emitter: EventEmitter,
        flow: FlowOptions,
    ) -> None:
        self.messages: int = 0
        """The number of data messages read."""
        self._owner = owner
        self._link = link
        self._actor = actor
        self._results = results
        self._receive_queue: ReceiveQueue = results.receive_queue
        self._send_queue = send_queue
        self._pings = pings
        self._read_pause = read_pause
        self._emitter = emitter
        self._max_queue = flow.max_queue
        self._violation: Violation | None = None
        self._is_answer = None if flow.heartbeat is None else flow.heartbeat.is_answer

    async def read(self) -> ConnectionLost:
        """Read until the stream ends; return how it ended."""
        try:
            while await self._link.feed(self._handle):
                await self._wait()
        except LinkBroken as broken:
            return ConnectionLost(error=broken.__cause__ or broken)
        return ConnectionLost()

    def _handle(self, events: list[Event]) -> bool:
        """Handle the events of one chunk; return whether reading continues immediately."""
        send_queue = self._send_queue
        send_queue.cork()
        for event in events:
            if event.__class__ is list:
                self._handle_messages(event)
            elif event.__class__ is Violation:
                self._violation = event  # the last event
            else:
                self._handle_control(event)  # type: ignore[arg-type]  # a control frame
        send_queue.uncork()
        return self._violation is None and not self._must_wait()

    async def _wait(self) -> None:
        """Wait for what :meth:`_handle` could not wait for."""
        if self._violation is not None:
            violation, self._violation = self._violation, None
            await self._handle_violation(violation)
        if self._must_wait():
            await self._pause()

    def _handle_messages(self, run: list[Any]) -> None:
        if self._emitter.emits_frames:
            self._emitter.frames_received(run)
        self.messages += len(run)
        if self._is_answer is not None:
            run = self._remove_answers(run, self._is_answer)
        if self._owner.is_open or not self._hooks_behind():
            self._actor.receive(run)
        else:
            self._receive_queue.drop(run)

    def _remove_answers(self, run: list[Any], is_answer: Callable[[Data], bool]) -> list[Any]:
        """Remove the answers to heartbeat messages."""
        try:
            answers = [is_answer(message) for message in run]
        except Exception as error:
            self._owner.fail(error)
            return []
        if any(answers):
            self._pings.message_answered()
        return [message for message, answer in zip(run, answers, strict=True) if not answer]

    def _handle_control(self, event: Ping | Pong | Close) -> None:
        if self._emitter.emits_frames:
            self._emitter.frames_received([event])
        match event:
            case Ping(payload):
                pong = Pong(payload)
                if self._emitter.emits_frames:
                    self._emitter.hook_replied(self._actor.ping.name, [pong])
                self._send_queue.pong(pong)
                self._actor.handle_control(self._actor.ping, payload)
            case Pong(payload):
                self._pings.pong_received(payload)
                self._actor.handle_control(self._actor.pong, payload)
            case Close():
                self._owner.on_close_received(event)

    async def _handle_violation(self, violation: Violation) -> None:
        """Close the link, once the program has had time to answer messages before the violation.

        The second checkpoint is needed because in one round of the scheduler the program's task may
        run before this one.
        """
        await trio.lowlevel.checkpoint()
        await trio.lowlevel.checkpoint()
        self._owner.on_violation(violation)

    # Backpressure.

    def _must_wait(self) -> bool:
        if not self._owner.is_open:
            return False
        # A full send queue pauses the reader only if hooks have replied. If the program's own sends
        # also paused it, two peers that both send a lot would deadlock.
        results = self._results
        results.replied = (
            results.replied and self._send_queue.full and not self._send_queue.link_lost
        )
        return self._receive_queue.full or results.replied or self._hooks_behind()

    def _hooks_behind(self) -> bool:
        limit = self._max_queue
        return limit is not None and self._actor.backlog >= limit

    async def _pause(self) -> None:
        """Pause reading until there is space; TCP then slows the peer down."""
        queue: Queue = (
            "receive_queue"
            if self._receive_queue.full
            else "mailbox"
            if self._hooks_behind()
            else "send_queue"
        )
        with self._read_pause, self._emitter.waiting("reader", queue):
            while self._must_wait():
                if self._receive_queue.full:
                    await self._receive_queue.wait_space()
                elif self._hooks_behind():
                    await self._actor.wait_backlog()
                else:
                    await self._send_queue.wait_space()
