"""``GossipSocket``: the hooks that connect the state of a client to its link and callbacks."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import trio

from ...connection import Connection, Status
from ...disconnect import Disconnect
from ...errors import ConnectionClosed, DecodeError
from ...hooks import ConnectionInfo, Reconnect, Reply, Stop
from ...routing import Emit, EventSocket, PendingRequest, RequestLost
from .callbacks import CallbackQueue
from .errors import Offline, RequestRefused
from .messages import (
    Payload,
    event_name,
    failure_reason,
    get_names,
    get_number,
    get_objects,
    get_payload,
    parse_achievement,
    parse_game,
)
from .state import (
    ROUTER,
    ClientState,
    ClientStatus,
    Notify,
    Transition,
    authenticate,
    decide,
    declare,
    disconnect,
    refuse,
)

__all__ = ["GossipSocket"]

MAX_ACHIEVEMENTS = 10_000
"""The maximum number of achievements that one request collects."""

INCOMPLETE: Any = object()


class GossipSocket(EventSocket[None]):
    """The hooks of a client. The state outlives the links; methods that change it never wait."""

    _own_codec = "the protocol uses JSON"

    def __init__(self, state: ClientState, callbacks: CallbackQueue) -> None:
        # handle_event matches answers to requests itself, because a request may have several.
        super().__init__(ROUTER, key=event_name, ref=lambda event: None)
        self.state: ClientState = state
        self.callbacks: CallbackQueue = callbacks
        self._changed = trio.Event()

    def apply(self, transition: Transition) -> list[dict[str, Any]]:
        """Set a new state, queue its callbacks, and return the messages to send."""
        effects, state = transition
        before, self.state = self.state.status, state
        messages = []
        for effect in effects:
            if isinstance(effect, Notify):
                self.callbacks.put(effect)
            else:
                messages.append(effect)
        if state.status is not before:
            self._changed.set()
            self._changed = trio.Event()
            if state.status is ClientStatus.OFFLINE and self._connection is not None:
                # Nothing may be sent over the next link before "authenticate".
                self._connection.discard_unsent()
        return messages

    async def wait_until(self, condition: Callable[[ClientState], bool]) -> None:
        """Wait until the status meets a condition; return immediately if it already does."""
        while not condition(self.state):
            await self._changed.wait()

    # Hooks.

    def handle_connect(self, info: ConnectionInfo, state: None) -> tuple[Reply, None]:
        self.state = declare(*self.callbacks.declared(), self.state)
        messages = self._sent(self.apply(authenticate(self.state)))
        return Reply(*map(self.codec.encode, messages)), None

    def handle_send(self, message: Any, state: None) -> tuple[Any, None]:
        # The link may have ended while the caller waited for the send queue.
        self.check_online()
        encoded = self.codec.encode(message)
        self._sent([message])
        return encoded, None

    def handle_event(self, name: str, event: Any, state: None) -> tuple[Emit | None, None]:
        request = self.requests.get(event.get("ref"))
        own_name = request.event if request is not None and not name else name
        self._emit("received", own_name, event.get("status"))
        if request is not None and name in ("", request.event):
            self._answer(request, event)
            return None, None
        if event.get("status") == "failure":
            transition = refuse(name, event, self.state)
        elif name == "heartbeat":
            return self._heartbeat(), None
        else:
            transition = ROUTER.find(name)(event, self.state)
        return Emit(*self._sent(self.apply(transition))), None

    def handle_disconnect(
        self, reason: Disconnect, state: None
    ) -> tuple[Reconnect | Stop | None, None]:
        self.apply(disconnect(reason, self.state))
        decision, self.state = decide(reason, self.state)
        return decision, None

    def terminate(self, reason: Disconnect, state: None) -> None:
        if self.state.status is not ClientStatus.OFFLINE:
            self.apply(disconnect(reason, self.state))

    def _heartbeat(self) -> Emit | None:
        """Answer with the players who are online; three missed answers end the link."""
        if self.state.status is not ClientStatus.ONLINE:
            return None
        players = self.callbacks.players_online()
        if players is None:
            players = list(self.state.players)
        return Emit(*self._sent([{"event": "heartbeat", "payload": {"players": players}}]))

    # Telemetry.

    def _sent(self, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        for message in messages:
            self._emit("sent", message["event"])
        return messages

    def _emit(
        self, direction: Literal["sent", "received"], name: str, status: object = None
    ) -> None:
        status = status if isinstance(status, str) else None
        if self._connection is not None:
            emitter = self._connection._session.emitter  # noqa: SLF001 - part of the same package
            emitter.protocol_event("gossip", direction, name, status)

    def _answer(self, request: PendingRequest, event: dict[str, Any]) -> None:
        ref, answer, error = event["ref"], None, None
        if event.get("status") == "failure":
            error = RequestRefused(request.event, *failure_reason(event))
        else:
            try:
                answer = self._parse_answer(request, event)
            except DecodeError as invalid:
                error = RequestRefused(request.event, f"the answer is malformed: {invalid}")
        if answer is not INCOMPLETE:
            self.requests.resolve(ref, answer, error)

    def _parse_answer(self, request: PendingRequest, event: dict[str, Any]) -> Any:
        """Return the result of a request; INCOMPLETE if further answers follow."""
        payload = get_payload(event)
        match request.event:
            case "players/status":
                self.apply(ROUTER.find(request.event)(event, self.state))
                return get_names(payload, "players")
            case "games/status":
                self.apply(ROUTER.find(request.event)(event, self.state))
                return parse_game(payload)
            case "achievements/create" | "achievements/update":
                return parse_achievement(payload)
            case "achievements/sync":
                return self._collect_achievements(request, payload)
        return None

    def _collect_achievements(self, request: PendingRequest, payload: Payload) -> Any:
        if not isinstance(payload.get("achievements"), list):
            raise DecodeError("achievements must be a list of objects")
        batch = get_objects(payload, "achievements")
        request.parts = [*(request.parts or ()), *map(parse_achievement, batch)]
        total = get_number(payload, "total")
        if batch and total is not None and len(request.parts) < min(total, MAX_ACHIEVEMENTS):
            return INCOMPLETE
        achievements = tuple(request.parts)
        self.callbacks.put(Notify("achievements", "achievements_synced", (achievements,)))
        return achievements

    # Sending.

    @property
    def connection(self) -> Connection[None, Any] | None:
        """The connection; None before the first link."""
        return self._connection

    @property
    def is_online(self) -> bool:
        """Whether messages can be sent: the client is authenticated and its link has not ended."""
        connection = self._connection
        is_open = connection is not None and connection.status is Status.OPEN
        return is_open and self.state.status is ClientStatus.ONLINE

    def check_online(self) -> None:
        """Raise Offline unless messages can be sent."""
        if not self.is_online:
            status = self.state.status
            lost = status is ClientStatus.ONLINE
            raise Offline("the link was lost" if lost else f"the client is {status.value}")

    async def send_messages(self, messages: list[dict[str, Any]]) -> None:
        """Send messages over the current link only.

        Raises:
            Offline: the link has ended.
        """
        for message in messages:
            self.check_online()
            assert self._connection is not None
            event = message["event"]
            with self.requests.open(str(uuid.uuid4()), event, has_link=True) as request:
                try:
                    await request.send(self._connection, message)
                except (RequestLost, ConnectionClosed, Offline) as lost:
                    raise Offline(f"the link was lost before {event!r} was sent") from lost

    async def request_online(self, event: str, payload: Any, *, timeout: float | None) -> Any:
        """Send a request over the current link and return its result.

        Raises:
            Offline: there is no link, or it ended before the answer arrived.
            RequestRefused, RequestTimeout: the answer is a failure, or none arrived in time.
        """
        self.check_online()
        try:
            return await self.request(event, payload, timeout=timeout)
        except (RequestLost, ConnectionClosed, Offline) as lost:
            raise Offline(f"the link was lost before {event!r} was answered") from lost

    def update(self, **changes: Any) -> None:
        """Replace fields of the state other than the status."""
        self.state = replace(self.state, **changes)
