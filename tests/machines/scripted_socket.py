"""A socket whose hooks perform the actions of a scenario and check how they are called."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import trio

from tests.machines.record import Offer, Record, UserError, frame_of, label_of
from tests.machines.scenarios import Setup
from trioglock import (
    Close,
    Connection,
    Deliver,
    Disconnect,
    Reconnect,
    Reply,
    Socket,
    Status,
    Stop,
    UsageError,
)

__all__ = ["Instruction", "ScriptedSocket"]

SECONDS = {"sleep": 1.0, "long": 50.0}
# The state they return is discarded if their result is refused.
OF_CALLS = ("handle_send", "handle_call")


@dataclass
class Instruction:
    """A message for ``handle_send``, ``handle_cast`` or ``handle_call`` with the hook's action."""

    label: str
    action: str
    size: int = 0
    offer: Offer | None = None


class ScriptedSocket(Socket[int]):
    """Counts the calls of its hooks in its state.

    The setup determines which hooks are overridden, and which of them are async.
    """

    def __init__(self, setup: Setup, record: Record) -> None:
        self.conn: Connection[int]
        self._setup = setup
        self._record = record
        self._running: str | None = None
        # The possible states at the next hook.
        self._states: set[int | None] = {None if "init_stream" not in setup.hooks else -1}
        self._connect_actions = list(setup.connect_actions)
        self._decisions = list(setup.decisions)
        self._open_reply: list[Offer] = []
        for name in setup.hooks:
            body = getattr(self, f"on_{name}")
            wrap = self._wrap_async if name in setup.async_hooks else self._wrap_sync
            setattr(self, name, wrap(name, body))

    # Before and after every hook.

    def _before(self, name: str, args: tuple[Any, ...]) -> None:
        record = self._record
        record.hooks += 1
        if record.started:
            str(self.conn.status_report())
        for offer in self._open_reply:
            offer.ended = record.tick()
        self._open_reply.clear()
        if self._running is not None:
            record.fail(f"{name} begins inside {self._running}")
        if record.ends:
            record.fail(f"{name} after terminate")
        if record.stopped and name != "terminate":
            record.fail(f"{name} after {record.stopped}")
        self._running = name
        if name == "terminate":
            record.ends.append(args[0])
        if name == "init_stream":
            if record.started:
                record.fail("init_stream a second time")
            return
        state = args[-1]
        if not self._has_state:
            return
        if state not in self._states:
            record.fail(f"{name} got state {state}, not of {self._states}")
        self._states = {state}

    @property
    def _has_state(self) -> bool:
        """Whether there is a state; without one, only attempts can fail."""
        return bool(
            self._record.started if "init_stream" in self._setup.hooks else self._record.links
        )

    def _after(self, name: str, returned: Any) -> None:
        record = self._record
        match returned:
            case int() if name == "init_stream":
                record.started += 1
                self._states = {returned}
            case (*_, int(state)) if len(returned) in (2, 3) and self._has_state:
                # If the result is refused, so is the state.
                doubtful = name in OF_CALLS or returned[0] == "again"
                self._states = {*self._states, state} if doubtful else {state}
            case _:
                pass

    @contextmanager
    def _running_hook(self, name: str, args: tuple[Any, ...]) -> Iterator[None]:
        self._before(name, args)
        try:
            yield
        except Exception as error:
            if name not in OF_CALLS:
                self._record.raised.append(error)
                self._record.stopped = f"an error in {name}"
            raise
        finally:
            self._running = None

    def _wrap_sync(self, name: str, body: Callable[..., Any]) -> Callable[..., Any]:
        def hook(*args: Any) -> Any:
            with self._running_hook(name, args):
                returned = body(*args)
                self._after(name, returned)
                return returned

        return hook

    def _wrap_async(self, name: str, body: Callable[..., Any]) -> Callable[..., Any]:
        async def hook(*args: Any) -> Any:
            with self._running_hook(name, args):
                action = self._action_of(name, args)
                if action == "nap":
                    await trio.lowlevel.checkpoint()
                elif action in SECONDS:
                    self._record.may_lose = True
                    await trio.sleep(SECONDS[action])
                returned = body(*args)
                self._after(name, returned)
                return returned

        return hook

    def _action_of(self, name: str, args: tuple[Any, ...]) -> str:
        """The action of a hook."""
        match name:
            case "init_stream":
                return self._setup.first
            case "terminate":
                return self._setup.last
            case "handle_connect":
                return self._connect_actions[0] if self._connect_actions else "none"
            case "handle_disconnect":
                return self._decisions[0] if self._decisions else "none"
            case "handle_receive":
                return label_of(args[0]).partition(":")[2]
            case "handle_ping" | "handle_pong":
                # Pings of the heartbeat have other payloads.
                return str(args[0].decode("latin-1"))
            case _:
                return str(args[0].action)

    # Actions.

    def _result_of(self, action: str, label: str, *, first: bool = False) -> Any:
        """Perform an action and return its result."""
        if action in ("value", "deliver", "both"):
            self._record.delivered.append((label, not first))
        match action:
            case "value":
                return label
            case "deliver":
                return Deliver(label)
            case "both":
                return Reply(*self._reply(1, first=first), deliver=label)
            case "reply":
                return Reply(*self._reply(1, first=first))
            case "many":
                return Reply(*self._reply(3, first=first))
            case "replyclose":
                return Reply(*self._reply(1, first=first), Close(4000), frame_of("never", 0))
            case "close":
                return Close(4001)
        return self._act(action, label)

    def _act(self, action: str, label: str) -> None:
        """Perform an action without a result."""
        record = self._record
        if action in ("raise", "abort", "background"):
            record.may_lose = True
        match action:
            case "raise":
                raise UserError(label)
            case "abort":
                if self.conn.status is not Status.CLOSED:
                    record.stopped = "abort()"
                self.conn.abort()
            case "background":
                self.conn.start_soon(self._background)
            case "inside":
                self._try_inside()
            case "cast" if "handle_cast" in self._setup.hooks and not self.conn_is_over:
                self.conn.cast(Instruction(record.label("c"), "deliver"))

    @property
    def conn_is_over(self) -> bool:
        return self.conn.status is Status.CLOSED or self._record.may_lose

    async def _background(self) -> None:
        await trio.sleep(0.5)
        error = UserError("in the background of a hook")
        self._record.raised.append(error)
        raise error

    def _try_inside(self) -> None:
        for call in (self.conn.receive_nowait, lambda: self.conn.send_nowait("x")):
            try:
                call()
            except UsageError:
                continue
            self._record.fail("a call inside a hook was not refused")

    def _reply(self, count: int, *, first: bool) -> list[str | bytes]:
        offer = self._record.offer(count, "r", first=first)
        self._open_reply.append(offer)
        return [frame_of(label, 0) for label in offer.labels]

    def _answer(self, action: str, label: str, state: int, *, first: bool = False) -> Any:
        if action == "bad":
            self._record.may_lose = True
            return 42
        return self._result_of(action, label, first=first), self._next(state)

    def _next(self, state: int | None) -> int:
        return (state or 0) + 1

    def on_init_stream(self, stream: Any) -> Any:
        self.conn = stream.connection
        self._result_of(self._setup.first, "init")
        return 0

    def on_handle_connect(self, stream: Any, state: int) -> Any:
        self.conn = stream.connection
        action = self._connect_actions.pop(0) if self._connect_actions else "none"
        return self._answer(action, self._record.label("h"), state, first=True)

    def on_handle_receive(self, frame: Any, state: int) -> Any:
        label = label_of(frame)
        self._record.handled.append(label)
        return self._answer(label.partition(":")[2], label, state)

    def on_handle_ping(self, payload: bytes, state: int) -> Any:
        return self._answer(payload.decode("latin-1"), self._record.label("p"), state)

    on_handle_pong = on_handle_ping

    def on_handle_cast(self, message: Instruction, state: int) -> Any:
        return self._answer(message.action, message.label, state)

    def on_handle_call(self, request: Instruction, state: int) -> Any:
        if request.action == "bad":
            return 42
        if request.action == "raise":
            raise UserError(request.label)
        return request.label, self._result_of(request.action, request.label), self._next(state)

    def on_handle_send(self, message: Instruction, state: int) -> Any:
        offer = message.offer
        assert offer is not None
        frames: list[Any] = [frame_of(label, message.size) for label in offer.labels]
        match message.action:
            case "bad":
                return [*frames, 42], self._next(state)
            case "raise":
                raise UserError(message.label)
            case "close":
                return [*frames, Close(4002), frame_of("never", 0)], self._next(state)
        return (frames or None), self._next(state)

    def on_handle_disconnect(self, reason: Disconnect, state: int) -> Any:
        action = self._decisions.pop(0) if self._decisions else "none"
        match action:
            case "again":
                return Reconnect(delay=0), self._next(state)
            case "later":
                return Reconnect(), self._next(state)
            case "stop":
                return Stop(), self._next(state)
            case "raise":
                raise UserError("in handle_disconnect")
            case "bad":
                return "again", self._next(state)
        return None, self._next(state)

    def on_terminate(self, reason: Disconnect, state: int) -> Any:
        self._result_of(self._setup.last, "last")
