"""The verdict: what must be true of any program's run, whatever it did."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from tests.machines.notebook import Boom
from tests.machines.story import check_story
from trioglock import BadHookResult, ConnectError, Connection, ConnectionClosed, Status

if TYPE_CHECKING:
    from tests.machines.machine import Machine

__all__ = ["judge"]


def judge(machine: Machine) -> None:
    """Raise AssertionError, with all that is wrong."""
    notes, conn = machine.notes, machine.conn
    wrong = [*notes.wrong, *_ends(machine), *_links(machine), *_outcome(machine)]
    wrong += check_story(machine)
    if conn is not None:
        wrong += [*_sent(machine, conn), *_received(machine, conn)]
    assert not wrong, "\n".join(["", *wrong])


def _ends(machine: Machine) -> Iterable[str]:
    notes, setup, conn = machine.notes, machine.setup, machine.conn
    if conn is not None and conn.status is not Status.CLOSED:
        yield f"the block is left, and the status is {conn.status}"
    begun = notes.begun if "init_stream" in setup.hooks else bool(machine.net.links)
    if "terminate" in setup.hooks and len(notes.ends) != begun:
        yield f"init_stream returned {begun} times, terminate was called {len(notes.ends)} times"
    options = dict(setup.options)
    limit = 2 * options.get("close_timeout", 10) + 3
    if machine.closing_took > limit:
        yield f"leaving the block took {machine.closing_took} seconds"


def _links(machine: Machine) -> Iterable[str]:
    for number, link in enumerate(machine.net.links, 1):
        if not link.freed:
            yield f"link {number} was never freed"
        if link.closes > 1:
            yield f"{link.closes} Close frames on link {number}"


def _outcome(machine: Machine) -> Iterable[str]:
    outcome, left_by, notes = machine.outcome, machine.left_by, machine.notes
    leaves = list(_leaves(outcome))
    for leaf in leaves:
        if not isinstance(leaf, Boom | BadHookResult | ConnectError):
            yield f"out of the block came {leaf!r}"
        if isinstance(leaf, ConnectError) and machine.conn is not None:
            yield f"out of an open block came {leaf!r}"
        if isinstance(leaf, Boom) and leaf is not left_by and leaf not in notes.raised:
            yield f"out of the block came {leaf!r}, which is not the block's"
    if isinstance(left_by, Boom) and left_by not in leaves:
        yield f"the body raised {left_by!r}, out of the block came {outcome!r}"
    if isinstance(outcome, BaseExceptionGroup) and len(leaves) < 2:
        yield f"a group around a single error: {outcome!r}"
    if len(set(map(id, leaves))) < len(leaves):
        yield f"an error comes out twice: {outcome!r}"


def _leaves(error: BaseException | None) -> Iterable[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    elif error is not None:
        yield error


def _sent(machine: Machine, conn: Connection[Any]) -> Iterable[str]:
    """Once, in order: written, in doubt or unsent."""
    links, figures = machine.net.links, conn.statistics()
    closed = _closed(conn)
    if closed is None:
        yield "a closed connection takes messages"
        return
    written = [label for link in links for label in link.written]
    in_doubt = [label for link in links for label in link.in_doubt]
    unsent = [str(frame if isinstance(frame, str) else _text(frame)) for frame in closed.unsent]
    unsent = [text.partition("~")[0] for text in unsent]
    if (figures.messages_sent, figures.in_doubt) != (len(written), len(in_doubt)):
        yield f"{len(written)} were written, {len(in_doubt)} are in doubt: {figures}"
    if figures.unsent != len(unsent) or figures.send_queue or figures.send_queue_bytes:
        yield f"{len(unsent)} are unsent: {figures}"
    last = [] if not links else links[-1].in_doubt
    told = [_text(frame).partition("~")[0] for frame in closed.in_doubt]
    if told != last:
        yield f"in doubt are {last}, told were {told}"
    found = [label for link in links for label in (*link.written, *link.in_doubt)] + unsent
    yield from _whole(machine, found)


def _whole(machine: Machine, found: list[str]) -> Iterable[str]:
    """All of an offer or nothing of it, and nothing twice."""
    notes = machine.notes
    for label, count in Counter(found).items():
        if count > 1:
            yield f"{label} was sent {count} times"
    for label in set(found).difference(*(offer.labels for offer in notes.offers)):
        yield f"{label} was sent, and nobody wanted that"
    place = {label: at for at, label in enumerate(found)}
    for offer in notes.offers:
        there = [label for label in offer.labels if label in place]
        if there and there != offer.labels:
            yield f"of {offer.labels} only {there} were queued"
        if offer.taken and not there and offer.labels:
            yield f"{offer.labels} are lost"
        if offer.taken is False and there:
            yield f"{there} were queued, but the call raised"
        if any(place[a] > place[b] for a, b in pairwise(there)):
            yield f"{there} were not queued in order"
    yield from _order(machine, place)


def _order(machine: Machine, place: dict[str, int]) -> Iterable[str]:
    """What was queued before something else began is sent before it."""
    offers = [
        offer
        for offer in machine.notes.offers
        if offer.labels and offer.labels[0] in place and not offer.first
    ]
    for later in offers:
        for earlier in offers:
            ended = earlier.ended
            if ended is None or ended >= later.began:
                continue
            if place[earlier.labels[-1]] > place[later.labels[0]]:
                yield f"{earlier.labels} were queued before {later.labels}, and sent after them"


def _received(machine: Machine, conn: Connection[Any]) -> Iterable[str]:
    """Every message to the hook once and in order, and what the hook hands on to the program."""
    notes, setup, figures = machine.notes, machine.setup, conn.statistics()
    beats = figures.messages_received - len(notes.read)
    if beats < 0 or (beats and not setup.beat):
        yield f"{len(notes.read)} messages were read: {figures}"
    hooked = "handle_receive" in setup.hooks
    handled = notes.handled if hooked else notes.read
    if not _is_subsequence(notes.handled, notes.read):
        yield f"read were {notes.read}, handled {notes.handled}"
    if not notes.lost_track and len(handled) != len(notes.read) and not figures.dropped:
        yield f"read were {notes.read}, handled only {notes.handled}"
    delivered = [label for label, _ in notes.delivered]
    if not hooked:
        # Those of the other hooks are somewhere in between.
        others = set(delivered)
        taken = [label for label in notes.taken if label not in others]
        if not _is_subsequence(taken, notes.read):
            yield f"read were {notes.read}, received {taken}"
        if not _is_subsequence([label for label in notes.taken if label in others], delivered):
            yield f"delivered were {delivered}, received {notes.taken}"
    elif not _is_subsequence(notes.taken, delivered):
        yield f"delivered were {delivered}, received {notes.taken}"
    certain = [label for label, sure in notes.delivered if sure]
    least = len(certain) if hooked else 0 if notes.lost_track else len(certain) + len(notes.read)
    if len(notes.taken) + figures.receive_queue + figures.dropped < least:
        yield f"delivered were {certain}, received {notes.taken}: {figures}"
    most = len(delivered) + (0 if hooked else len(notes.read))
    if len(notes.taken) + figures.receive_queue > most:
        yield f"delivered were {delivered}, received {notes.taken}: {figures}"


def _closed(conn: Connection[Any]) -> ConnectionClosed | None:
    try:
        conn.send_nowait("too late")
    except ConnectionClosed as error:
        return error
    return None


def _text(frame: object) -> str:
    return frame.decode() if isinstance(frame, bytes) else str(frame)


def _is_subsequence(few: list[str], many: list[str]) -> bool:
    rest = iter(many)
    return all(label in rest for label in few)
