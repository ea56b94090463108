"""The server side of the protocol on one connection, without I/O.

The machine receives the messages of the client and the outcomes of hooks. It returns *outputs*:
messages to send and calls to make, in order. It guarantees that every ref is answered at most once,
that messages of an earlier join are ignored, and that each successful join ends exactly once.

The rules are those of Phoenix 1.8; see ``Phoenix.Socket`` and ``Phoenix.Channel.Server``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeAlias

from .._hints import describe_value
from ..protocols.phoenix.errors import InvalidMessage
from ..protocols.phoenix.message import (
    CLOSE,
    ERROR,
    HEARTBEAT,
    JOIN,
    LEAVE,
    PHOENIX,
    REPLY,
    PhoenixMessage,
)
from .results import EndReason, Left, Rejoined

__all__ = [
    "CallEnd",
    "CallHandleIn",
    "CallJoin",
    "CallLeave",
    "CallRefresh",
    "JoinState",
    "Output",
    "ServerMachine",
    "TopicJoin",
]

ACCESS_TOKEN = "access_token"  # noqa: S105 - the name of an event
"""The event with which Supabase clients push a new token."""

MAX_NAME = 1024
"""Maximum length of the topics of joins, and of refs, which are kept until they are answered."""

UNMATCHED = {"reason": "unmatched topic"}
TOO_LONG = {"reason": "topic or ref too long"}
TOO_MANY = {"reason": "too many channels joined"}
JOIN_CRASHED = {"reason": "join crashed"}
JOINED_AGAIN = {"reason": "joined again"}
CRASHED = {"reason": "channel_crash"}
LOST = {"reason": "events may be missing"}
OVERLOADED = {"reason": "too many messages are waiting"}


class JoinState(Enum):
    """The state of a join."""

    JOINING = "joining"
    JOINED = "joined"
    ENDED = "ended"


class TopicJoin:
    """One join of a topic.

    Args:
        topic: the topic.
        join_ref: the ref that messages of this join contain.
        ref: the ref of the reply to the join.
        replaces: the successful join that this one has ended, for its ``phx_close``.
    """

    __slots__ = ("is_leaving", "join_ref", "leave_ref", "ref", "refs", "replaces", "state", "topic")

    def __init__(
        self, topic: str, join_ref: str | None, ref: str | None, replaces: TopicJoin | None
    ) -> None:
        self.topic: str = topic
        self.join_ref: str | None = join_ref
        self.ref: str | None = ref
        self.replaces: TopicJoin | None = replaces
        self.state: JoinState = JoinState.JOINING
        self.is_leaving: bool = False
        """Whether the client has sent a leave."""
        self.leave_ref: str | None = None
        self.refs: set[str | None] | None = None
        """The refs of pushes that may still be answered; None before the first push."""

    def __repr__(self) -> str:
        return f"<TopicJoin {self.topic!r} {self.join_ref!r}, {self.state.value}>"


@dataclass(slots=True)
class CallJoin:
    """Call ``join``, and then :meth:`ServerMachine.joined` or :meth:`ServerMachine.refused`."""

    join: TopicJoin
    payload: Any
    kind: Any
    """The class of the channel."""


@dataclass(slots=True)
class CallHandleIn:
    """Call ``handle_in`` after the channel has handled all earlier messages."""

    join: TopicJoin
    ref: str | None
    event: str
    payload: Any


@dataclass(frozen=True, slots=True)
class CallLeave:
    """Call :meth:`ServerMachine.left` when the channel has handled all earlier messages."""

    join: TopicJoin
    ref: str | None


@dataclass(frozen=True, slots=True)
class CallEnd:
    """Stop the hooks of a join that has ended, and call ``terminate`` if it was successful."""

    join: TopicJoin
    reason: EndReason


@dataclass(frozen=True, slots=True)
class CallRefresh:
    """Verify a token, and then call :meth:`ServerMachine.answer_refresh`."""

    join: TopicJoin | None
    ref: str | None
    payload: Any


Output: TypeAlias = PhoenixMessage | CallJoin | CallHandleIn | CallLeave | CallEnd | CallRefresh


class ServerMachine:
    """The joins of one client.

    Args:
        find: returns the class of the channel for a topic, or None.
        max_topics: maximum number of topics that the client may have joined.
        can_refresh: whether the client may push a new token.
    """

    __slots__ = ("_can_refresh", "_find", "_max_topics", "joins")

    def __init__(
        self, find: Callable[[str], Any], max_topics: int, can_refresh: bool = False
    ) -> None:
        self.joins: dict[str, TopicJoin] = {}
        """The joins that have not ended, by topic, including those that wait for their hooks."""
        self._find = find
        self._max_topics = max_topics
        self._can_refresh = can_refresh

    # The client.

    def receive(self, message: PhoenixMessage) -> tuple[Output, ...]:
        """Handle a message of the client."""
        topic, event, ref = message.topic, message.event, message.ref
        push = self.receive_push(message.join_ref, ref, topic, event)
        if push is not None:
            return (CallHandleIn(push, ref, event, message.payload),)
        # Refs may be numbers.
        if len(str(ref)) > MAX_NAME or len(str(message.join_ref)) > MAX_NAME:
            return (_reply(message.join_ref, ref, topic, "error", TOO_LONG),)
        if event == JOIN:
            return self._join(message)
        join = self.joins.get(topic)
        if join is None:
            if topic == PHOENIX and event == HEARTBEAT:
                return (_reply(None, ref, PHOENIX, "ok", {}),)
            if topic == PHOENIX and event == ACCESS_TOKEN and self._can_refresh:
                return (CallRefresh(None, ref, message.payload),)
            if event == LEAVE:
                # The message and the end of the channel have crossed.
                return (_reply(message.join_ref, ref, topic, "ok", {}),)
            return (_reply(None, ref, topic, "error", UNMATCHED),)
        if message.join_ref != join.join_ref and message.join_ref is not None:
            return ()  # of an earlier join; the client has ended it
        if event == LEAVE:
            if join.is_leaving:
                return (_reply(message.join_ref, ref, topic, "ok", {}),)
            join.is_leaving, join.leave_ref = True, ref
            return (CallLeave(join, ref),)
        # What remains is a new token.
        join.refs = {ref, *(join.refs or ())}
        return (CallRefresh(join, ref, message.payload),)

    def receive_push(
        self, join_ref: str | None, ref: str | None, topic: str, event: str
    ) -> TopicJoin | None:
        """Handle a message of the client if it is a push for ``handle_in``: nearly all are.

        Returns:
            The join whose ``handle_in`` must be called as in :class:`CallHandleIn`, or None if the
            message must be passed to :meth:`receive`.
        """
        join = self.joins.get(topic)
        if (
            join is None
            or (join_ref != join.join_ref and join_ref is not None)
            or event in (JOIN, LEAVE)
            or (event == ACCESS_TOKEN and self._can_refresh)
            or (ref is not None and len(str(ref)) > MAX_NAME)
        ):
            return None
        if join.refs is None:
            join.refs = {ref}
        else:
            join.refs.add(ref)
        return join

    def _join(self, message: PhoenixMessage) -> tuple[Output, ...]:
        topic, ref = message.topic, message.ref
        # A route with an asterisk could match these. "phoenix" is the topic of heartbeats.
        kind = None if topic in ("", PHOENIX) else self._find(topic)
        if kind is None:
            return (_reply(None, ref, topic, "error", UNMATCHED),)
        if len(topic) > MAX_NAME:
            return (_reply(message.join_ref, ref, topic, "error", TOO_LONG),)
        old = self.joins.get(topic)
        if old is None and len(self.joins) >= self._max_topics:
            return (_reply(message.join_ref, ref, topic, "error", TOO_MANY),)
        join = self.joins[topic] = TopicJoin(topic, message.join_ref, ref, old)
        call = CallJoin(join, message.payload, kind)
        if old is None:
            return (call,)
        end = CallEnd(old, Left() if old.is_leaving else Rejoined())
        is_joining, old.state, old.refs = old.state is JoinState.JOINING, JoinState.ENDED, None
        outputs: list[Output] = []
        if is_joining:
            join.replaces, old.replaces = old.replaces, None
            outputs.append(_reply(old.join_ref, old.ref, topic, "error", JOINED_AGAIN))
        if old.is_leaving:
            outputs.append(_reply(old.join_ref, old.leave_ref, topic, "ok", {}))
        return (*outputs, end, call)

    # The outcomes of hooks.

    def joined(self, join: TopicJoin, response: Any) -> tuple[PhoenixMessage, ...]:
        """Handle the success of ``join``; return no outputs if the join has already ended."""
        if join.state is JoinState.ENDED:
            return ()
        join.state = JoinState.JOINED
        return _after_join(join, "ok", response)

    def refused(self, join: TopicJoin, response: Any = JOIN_CRASHED) -> tuple[PhoenixMessage, ...]:
        """Handle the failure of ``join``."""
        if not self._end(join):
            return ()
        return _after_join(join, "error", response)

    def join_crashed(self, join: TopicJoin, response: Any = JOIN_CRASHED) -> PhoenixMessage:
        """Return the reply to a join whose response cannot be sent. The join has ended."""
        self._end(join)
        return _reply(join.join_ref, join.ref, join.topic, "error", response)

    def push(self, join: TopicJoin, event: str, payload: Any) -> PhoenixMessage | None:
        """Return the message for a push to the client, or None if the channel is not joined."""
        if join.state is not JoinState.JOINED:
            return None
        return PhoenixMessage(join.join_ref, None, join.topic, event, payload)

    def answer(
        self, join: TopicJoin, ref: str | None, status: str, response: Any
    ) -> PhoenixMessage | None:
        """Return the message for a reply, or None if the push must not be answered (again).

        Raises:
            InvalidMessage: the status is not a str.
        """
        if not self.may_answer(join, ref, status):
            return None
        return _reply(join.join_ref, ref, join.topic, status, response)

    def may_answer(self, join: TopicJoin, ref: str | None, status: str) -> bool:
        """Return whether a push may be answered; if so, it must not be answered again.

        Raises:
            InvalidMessage: the status is not a str.
        """
        if not isinstance(status, str):
            raise InvalidMessage(f"status must be a str, not {describe_value(status)}")
        if join.refs is None or ref not in join.refs:
            return False
        join.refs.remove(ref)
        return True

    def answer_refresh(
        self, join: TopicJoin | None, ref: str | None, error: Any = None
    ) -> PhoenixMessage | None:
        """Return the message for the reply to a new token, as :meth:`answer` does."""
        status, response = ("ok", {}) if error is None else ("error", error)
        if join is None:
            return _reply(None, ref, PHOENIX, status, response)
        return self.answer(join, ref, status, response)

    def not_answered(self, join: TopicJoin, ref: str | None) -> None:
        """Allow another answer to a push, because that from :meth:`answer` was not sent."""
        if join.refs is not None:
            join.refs.add(ref)

    def forget(self, join: TopicJoin, ref: str | None) -> None:
        """Give up answering a push."""
        if join.refs is not None:
            join.refs.discard(ref)

    def left(self, join: TopicJoin, ref: str | None) -> tuple[PhoenixMessage, ...]:
        """Handle a leave after all earlier messages."""
        if not self._end(join):
            return ()
        return (_reply(join.join_ref, ref, join.topic, "ok", {}), _end_message(join, CLOSE, {}))

    def stopped(self, join: TopicJoin) -> tuple[PhoenixMessage, ...]:
        """Handle the end of a channel by its hook."""
        return (_end_message(join, CLOSE, {}),) if self._end(join) else ()

    def crashed(self, join: TopicJoin) -> tuple[PhoenixMessage, ...]:
        """Handle an exception in a hook, or too many messages for it."""
        if join.state is JoinState.JOINING:
            return self.refused(join)
        return (_end_message(join, ERROR, CRASHED),) if self._end(join) else ()

    def lost(self, join: TopicJoin) -> tuple[PhoenixMessage, ...]:
        """Handle the loss of events: the client has to join again."""
        return (_end_message(join, ERROR, LOST),) if self._end(join) else ()

    def _end(self, join: TopicJoin) -> bool:
        """End a join; return False if it has ended before."""
        if join.state is JoinState.ENDED:
            return False
        join.state = JoinState.ENDED
        join.refs = None
        del self.joins[join.topic]
        return True

    # The connection.

    def exceeded(self, message: PhoenixMessage, reason: str) -> PhoenixMessage:
        """Return the reply to a message that is not handled because of a limit."""
        return _reply(message.join_ref, message.ref, message.topic, "error", {"reason": reason})

    def close(self) -> None:
        """End all joins with the connection."""
        for join in tuple(self.joins.values()):
            self._end(join)


def _reply(
    join_ref: str | None, ref: str | None, topic: str, status: str, response: Any
) -> PhoenixMessage:
    return PhoenixMessage(join_ref, ref, topic, REPLY, {"response": response, "status": status})


def _end_message(join: TopicJoin, event: str, payload: Any) -> PhoenixMessage:
    # Both slots contain the ref of the join.
    return PhoenixMessage(join.join_ref, join.join_ref, join.topic, event, payload)


def _after_join(join: TopicJoin, status: str, response: Any) -> tuple[PhoenixMessage, ...]:
    reply = _reply(join.join_ref, join.ref, join.topic, status, response)
    if join.replaces is None:
        return (reply,)
    old, join.replaces = join.replaces, None  # so that joins do not form a chain
    return (reply, _end_message(old, CLOSE, {}))
