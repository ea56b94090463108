"""The guarantees that are checked after every run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from tests.machines.event_oracle import check_events
from tests.machines.record import UserError
from trioglock import BadHookResult, ConnectError, Connection, ConnectionClosed, Status

if TYPE_CHECKING:
    from tests.machines.machine import Machine

__all__ = ["check_run"]


def check_run(machine: Machine) -> None:
    """Raise AssertionError with all violations."""
    record, conn = machine.record, machine.conn
    problems = [*record.problems, *_ends(machine), *_links(machine), *_outcome(machine)]
    problems += check_events(machine)
    if conn is not None:
        problems += [*_sent(machine, conn), *_received(machine, conn)]
    assert not problems, "\n".join(["", *problems])


def _ends(machine: Machine) -> Iterable[str]:
    record, setup, conn = machine.record, machine.setup, machine.conn
    if conn is not None and conn.status is not Status.CLOSED:
        yield f"the block has ended, and the status is {conn.status}"
    started = record.started if "init_stream" in setup.hooks else bool(machine.transport.links)
    if "terminate" in setup.hooks and len(record.ends) != started:
        yield f"init_stream returned {started} times, terminate was called {len(record.ends)} times"
    options = dict(setup.options)
    limit = 2 * options.get("close_timeout", 10) + 3
    if machine.closing_took > limit:
        yield f"leaving the block took {machine.closing_took} seconds"


def _links(machine: Machine) -> Iterable[str]:
    for number, link in enumerate(machine.transport.links, 1):
        if not link.closed:
            yield f"link {number} was not closed"
        if link.closes > 1:
            yield f"{link.closes} Close frames on link {number}"


def _outcome(machine: Machine) -> Iterable[str]:
    outcome, body_error, record = machine.outcome, machine.body_error, machine.record
    exceptions = list(_flatten(outcome))
    for exception in exceptions:
        if not isinstance(exception, UserError | BadHookResult | ConnectError):
            yield f"the block raised {exception!r}"
        if isinstance(exception, ConnectError) and machine.conn is not None:
            yield f"the block raised {exception!r} after it was entered"
        if (
            isinstance(exception, UserError)
            and exception is not body_error
            and exception not in record.raised
        ):
            yield f"the block raised {exception!r}, which does not belong to it"
    if isinstance(body_error, UserError) and body_error not in exceptions:
        yield f"the body raised {body_error!r}, the block raised {outcome!r}"
    if isinstance(outcome, BaseExceptionGroup) and len(exceptions) < 2:
        yield f"a group of a single exception: {outcome!r}"
    if len(set(map(id, exceptions))) < len(exceptions):
        yield f"an exception is raised twice: {outcome!r}"


def _flatten(error: BaseException | None) -> Iterable[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _flatten(inner)
    elif error is not None:
        yield error


def _sent(machine: Machine, conn: Connection[Any]) -> Iterable[str]:
    """Every frame is sent once and in order: it is written, in doubt or unsent."""
    links, statistics = machine.transport.links, conn.statistics()
    closed = _closed(conn)
    if closed is None:
        yield "a closed connection accepts messages"
        return
    written = [label for link in links for label in link.written]
    in_doubt = [label for link in links for label in link.in_doubt]
    unsent = [str(frame if isinstance(frame, str) else _text(frame)) for frame in closed.unsent]
    unsent = [text.partition("~")[0] for text in unsent]
    if (statistics.messages_sent, statistics.in_doubt) != (len(written), len(in_doubt)):
        yield f"{len(written)} were written, {len(in_doubt)} are in doubt: {statistics}"
    if statistics.unsent != len(unsent) or statistics.send_queue or statistics.send_queue_bytes:
        yield f"{len(unsent)} are unsent: {statistics}"
    last = [] if not links else links[-1].in_doubt
    reported = [_text(frame).partition("~")[0] for frame in closed.in_doubt]
    if reported != last:
        yield f"in doubt are {last}, reported {reported}"
    found = [label for link in links for label in (*link.written, *link.in_doubt)] + unsent
    yield from _whole(machine, found)


def _whole(machine: Machine, found: list[str]) -> Iterable[str]:
    """Offers are queued completely or not at all, and no frame is sent twice."""
    record = machine.record
    for label, count in Counter(found).items():
        if count > 1:
            yield f"{label} was sent {count} times"
    for label in set(found).difference(*(offer.labels for offer in record.offers)):
        yield f"{label} was sent without an offer"
    positions = {label: at for at, label in enumerate(found)}
    for offer in record.offers:
        queued = [label for label in offer.labels if label in positions]
        if queued and queued != offer.labels:
            yield f"of {offer.labels} only {queued} were queued"
        if offer.queued and not queued and offer.labels:
            yield f"{offer.labels} are lost"
        if offer.queued is False and queued:
            yield f"{queued} were queued, but the call raised"
        if any(positions[a] > positions[b] for a, b in pairwise(queued)):
            yield f"{queued} were not queued in order"
    yield from _order(machine, positions)


def _order(machine: Machine, positions: dict[str, int]) -> Iterable[str]:
    """Frames are sent in the order in which they were queued."""
    offers = [
        offer
        for offer in machine.record.offers
        if offer.labels and offer.labels[0] in positions and not offer.first
    ]
    for later in offers:
        for earlier in offers:
            ended = earlier.ended
            if ended is None or ended >= later.began:
                continue
            if positions[earlier.labels[-1]] > positions[later.labels[0]]:
                yield f"{earlier.labels} were queued before {later.labels}, and sent after them"


def _received(machine: Machine, conn: Connection[Any]) -> Iterable[str]:
    """Messages reach the hook and the receivers once and in order."""
    record, setup, statistics = machine.record, machine.setup, conn.statistics()
    beats = statistics.messages_received - len(record.read)
    if beats < 0 or (beats and not setup.message_heartbeat):
        yield f"{len(record.read)} messages were read: {statistics}"
    hooked = "handle_receive" in setup.hooks
    handled = record.handled if hooked else record.read
    if not _is_subsequence(record.handled, record.read):
        yield f"read were {record.read}, handled {record.handled}"
    if not record.may_lose and len(handled) != len(record.read) and not statistics.dropped:
        yield f"read were {record.read}, handled only {record.handled}"
    delivered = [label for label, _ in record.delivered]
    if not hooked:
        # Messages of the other hooks may be anywhere in between.
        others = set(delivered)
        received = [label for label in record.received if label not in others]
        if not _is_subsequence(received, record.read):
            yield f"read were {record.read}, received {received}"
        if not _is_subsequence([label for label in record.received if label in others], delivered):
            yield f"delivered were {delivered}, received {record.received}"
    elif not _is_subsequence(record.received, delivered):
        yield f"delivered were {delivered}, received {record.received}"
    certain = [label for label, sure in record.delivered if sure]
    least = len(certain) if hooked else 0 if record.may_lose else len(certain) + len(record.read)
    if len(record.received) + statistics.receive_queue + statistics.dropped < least:
        yield f"delivered were {certain}, received {record.received}: {statistics}"
    most = len(delivered) + (0 if hooked else len(record.read))
    if len(record.received) + statistics.receive_queue > most:
        yield f"delivered were {delivered}, received {record.received}: {statistics}"


def _closed(conn: Connection[Any]) -> ConnectionClosed | None:
    try:
        conn.send_nowait("too late")
    except ConnectionClosed as error:
        return error
    return None


def _text(frame: object) -> str:
    return frame.decode() if isinstance(frame, bytes) else str(frame)


def _is_subsequence(part: list[str], whole: list[str]) -> bool:
    rest = iter(whole)
    return all(label in rest for label in part)
