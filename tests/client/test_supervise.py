"""``supervise()``: which services restart, when, how often, and what it raises."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing

from trioglock import (
    Backoff,
    Close,
    InvalidOption,
    MemoryTransport,
    RestartLimit,
    ServiceReturned,
    Socket,
    run,
    supervise,
)

Clock = trio.testing.MockClock
Life = Callable[[], Awaitable[object]]


async def for_ever() -> None:
    await trio.sleep_forever()


async def at_once() -> None:
    pass


def failing(error: BaseException | None = None, *, after: float = 0) -> Life:
    """A run of a service that fails after this many seconds."""

    async def fail() -> None:
        await trio.sleep(after)
        raise error or ValueError("broken")

    return fail


class Scripted:
    """A service with the given runs, the last one repeated; records their start and end."""

    def __init__(self, *lives: Life) -> None:
        self.began: list[float] = []
        self.ended: list[float] = []
        self._lives: Iterator[Life] = iter(lives)
        self._last = lives[-1]

    async def __call__(self) -> None:
        self.began.append(trio.current_time())
        try:
            await next(self._lives, self._last)()
        finally:
            self.ended.append(trio.current_time())


# What is started again.


async def test_services_that_return_are_done(autojump_clock: Clock) -> None:
    """By default a return is not a failure; supervise() returns when all have."""
    quick, slow = Scripted(at_once), Scripted(partial(trio.sleep, 5))
    await supervise(quick, slow, max_restarts=0)
    assert (len(quick.began), len(slow.began)) == (1, 1)
    assert trio.current_time() == 5


async def test_a_service_that_raises_is_started_again_alone(autojump_clock: Clock) -> None:
    """One for one: the other service keeps running."""
    broken, healthy = Scripted(failing(after=1), at_once), Scripted(partial(trio.sleep, 9))
    await supervise(broken, healthy)
    assert broken.began == [0, 1]
    assert healthy.ended == [9]


async def test_a_permanent_service_may_not_return(autojump_clock: Clock) -> None:
    """Each return is a failure, a ServiceReturned among the causes."""
    service = Scripted(partial(trio.sleep, 1))
    with pytest.raises(RestartLimit) as caught:
        await supervise(service, restart="permanent", max_restarts=2)
    assert service.began == [0, 1, 2]
    assert [type(cause) for cause in caught.value.causes] == [ServiceReturned] * 3


async def test_a_temporary_service_is_never_started_again(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Its failure is logged, the others continue, nothing is raised."""
    broken, healthy = Scripted(failing()), Scripted(partial(trio.sleep, 9))
    await supervise(broken, healthy, restart="temporary", max_restarts=0)
    assert (len(broken.began), healthy.ended) == (1, [9])
    assert "ValueError: broken" in caplog.text


async def test_one_for_all_starts_all_again(autojump_clock: Clock) -> None:
    """The others, also those that returned, have ended before any service restarts."""

    async def slow_to_go() -> None:
        try:
            await trio.sleep(5)
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(2)

    broken, busy, done = (
        Scripted(failing(after=1), at_once),
        Scripted(slow_to_go),
        Scripted(at_once),
    )
    await supervise(broken, busy, done, strategy="one_for_all")
    assert broken.began == busy.began == done.began == [0, 3]
    assert busy.ended == [3, 10]


async def test_a_permanent_return_restarts_all_for_one(autojump_clock: Clock) -> None:
    """With both, a service that returns restarts the others."""
    returns, other = Scripted(partial(trio.sleep, 1)), Scripted(for_ever)
    with pytest.raises(RestartLimit):
        await supervise(returns, other, strategy="one_for_all", restart="permanent", max_restarts=1)
    assert returns.began == other.began == [0, 1]


async def test_nothing_to_supervise_is_done_immediately(autojump_clock: Clock) -> None:
    """Without services it returns immediately."""
    await supervise()
    assert trio.current_time() == 0


# How often.


async def test_the_limit_carries_all_causes_in_order(autojump_clock: Clock) -> None:
    """One failure more than ``max_restarts`` ends it; the last is the cause of the error too."""
    errors = [ValueError("a"), KeyError("b"), OSError("c")]
    service = Scripted(*map(failing, errors))
    with pytest.raises(RestartLimit) as caught:
        await supervise(service, max_restarts=2, within=7)
    assert list(caught.value.causes) == errors
    assert caught.value.__cause__ is errors[-1]
    assert str(caught.value) == "3 failures within 7 seconds; the last one was OSError('c')"


@pytest.mark.parametrize(("within", "gives_up"), [(4, False), (4.1, True)])
async def test_the_period_slides(autojump_clock: Clock, within: float, gives_up: bool) -> None:
    """Failures 2 seconds apart: three of them are within 4.1 seconds, but not within 4."""
    lives = [failing(after=2)] * 10
    service = Scripted(*lives, at_once)
    try:
        await supervise(service, max_restarts=2, within=within)
    except RestartLimit:
        assert gives_up
        assert len(service.began) == 3
    else:
        assert not gives_up
        assert len(service.began) == 11


async def test_old_failures_are_no_causes(autojump_clock: Clock) -> None:
    """Only failures within the period are causes."""
    errors = [ValueError(number) for number in range(4)]
    lives = [failing(errors[0]), failing(errors[1], after=60), *map(failing, errors[2:])]
    with pytest.raises(RestartLimit) as caught:
        await supervise(Scripted(*lives), max_restarts=2, within=5)
    assert list(caught.value.causes) == errors[1:]


async def test_failures_of_all_services_count_together(autojump_clock: Clock) -> None:
    """Two services, one failure each; the third failure exceeds the limit."""
    one, two = Scripted(failing(after=1), for_ever), Scripted(failing(after=2))
    with pytest.raises(RestartLimit) as caught:
        await supervise(one, two, max_restarts=1, within=5)
    assert len(caught.value.causes) == 2
    assert one.ended == [1, 2]


@pytest.mark.parametrize("strategy", ["one_for_one", "one_for_all"])
@pytest.mark.slow
async def test_fault_48_restarts_without_a_limit_are_delayed(
    autojump_clock: Clock, strategy: Any
) -> None:
    """By the default backoff, if there is no other."""
    service = Scripted(*[failing()] * 500, at_once)
    await supervise(service, max_restarts=None, strategy=strategy)
    assert len(service.began) == 501
    assert service.began[50] > 10 * Backoff().initial
    assert service.began[-1] > 100 * Backoff().maximum


async def test_giving_up_cancels_the_siblings(autojump_clock: Clock) -> None:
    """They have ended before the error is raised."""
    sibling = Scripted(for_ever)
    with pytest.raises(RestartLimit) as caught:
        await supervise(sibling, failing(after=1), max_restarts=0)
    assert sibling.ended == [1]
    assert len(caught.value.causes) == 1


# How fast.


@pytest.mark.parametrize(
    ("backoff", "lengths", "began"),
    [
        # Growing up to the maximum, also after max_attempts.
        (
            Backoff(initial=1, multiplier=3, maximum=10, jitter="none", max_attempts=2),
            [0, 0, 0, 0, 0],
            [0, 1, 4, 13, 23, 33],
        ),
        # Reset by a run of at least stable_after seconds: 1, 2, 1, 2.
        (Backoff(initial=1, jitter="none", stable_after=10), [0, 9, 10, 0], [0, 1, 12, 23, 25]),
    ],
    ids=["growing", "reset"],
)
async def test_delays_are_those_of_the_backoff(
    autojump_clock: Clock, backoff: Backoff, lengths: list[float], began: list[float]
) -> None:
    service = Scripted(*(failing(after=seconds) for seconds in lengths), at_once)
    await supervise(service, max_restarts=None, backoff=backoff)
    assert service.began == began


async def test_each_service_has_its_own_delays(autojump_clock: Clock) -> None:
    """The failures of one do not slow down the other."""
    one, two = Scripted(failing(), failing(), at_once), Scripted(failing(after=5), at_once)
    await supervise(one, two, backoff=Backoff(initial=1, jitter="none"))
    assert one.began == [0, 1, 3]
    assert two.began == [0, 6]


# Trees.


async def test_an_inner_limit_is_one_failure_of_the_outer(autojump_clock: Clock) -> None:
    """The outer supervisor restarts the inner one, with a new count, until its own limit."""
    broken, healthy = Scripted(failing(after=1)), Scripted(for_ever)
    inner = partial(supervise, broken, healthy, max_restarts=2, within=60)
    with pytest.raises(RestartLimit) as caught:
        await supervise(inner, max_restarts=1, within=60)
    assert len(broken.began) == 6
    assert healthy.began == [0, 3]
    assert [type(cause) for cause in caught.value.causes] == [RestartLimit] * 2
    assert isinstance(caught.value.__cause__, RestartLimit)
    assert len(caught.value.__cause__.causes) == 3


async def test_a_cured_branch_leaves_the_rest_alone(autojump_clock: Clock) -> None:
    """A failure below one supervisor does not affect the other branch."""
    cured, beside = Scripted(failing(), at_once), Scripted(partial(trio.sleep, 3))
    await supervise(partial(supervise, cured), partial(supervise, beside), max_restarts=0)
    assert (len(cured.began), len(beside.began)) == (2, 1)


# What comes out.


@pytest.mark.parametrize("strategy", ["one_for_one", "one_for_all"])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3)], ids=repr)
async def test_what_is_no_exception_passes(
    autojump_clock: Clock, error: BaseException, strategy: Any
) -> None:
    """It is not counted, not grouped, and cancels the others."""
    sibling = Scripted(for_ever)
    with pytest.raises(type(error)) as caught:
        await supervise(failing(error, after=1), sibling, strategy=strategy, max_restarts=None)
    assert caught.value is error
    assert sibling.ended == [1]


@pytest.mark.parametrize("strategy", ["one_for_one", "one_for_all"])
async def test_a_group_of_a_service_is_one_failure(autojump_clock: Clock, strategy: Any) -> None:
    """It is a cause, unchanged, without another group around it."""
    group = ExceptionGroup("mine", [ValueError("a"), KeyError("b")])
    with pytest.raises(RestartLimit) as caught:
        await supervise(failing(group), for_ever, strategy=strategy, max_restarts=0)
    [cause] = caught.value.causes
    assert isinstance(cause, ExceptionGroup)
    # Not the same object: trio takes groups apart to look for Cancelled.
    assert (cause.message, cause.exceptions) == (group.message, group.exceptions)


@pytest.mark.parametrize("strategy", ["one_for_one", "one_for_all"])
async def test_a_cancel_passes_immediately(autojump_clock: Clock, strategy: Any) -> None:
    """Nothing restarts, neither during a run nor during a delay."""
    living, waiting = Scripted(for_ever), Scripted(failing())
    with trio.move_on_after(5) as scope:
        await supervise(
            living, waiting, strategy=strategy, backoff=Backoff(initial=60, jitter="none")
        )
    assert scope.cancelled_caught
    assert trio.current_time() == 5
    assert (len(living.began), len(waiting.began)) == (1, 1)


@pytest.mark.parametrize("strategy", ["one_for_one", "one_for_all"])
async def test_a_failure_while_cancelled_comes_out(autojump_clock: Clock, strategy: Any) -> None:
    """It is raised unchanged, without a restart in the cancelled scope."""

    async def cannot_stop() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("while stopping")

    service, sibling = Scripted(cannot_stop), Scripted(for_ever)
    with pytest.raises(ValueError, match="while stopping"), trio.move_on_after(5):
        await supervise(service, sibling, strategy=strategy, max_restarts=None)
    assert len(service.began) == 1


async def test_a_failure_in_a_nursery_while_cancelled_comes_out(autojump_clock: Clock) -> None:
    """The group is that of the service's own nursery, and holds no Cancelled."""

    async def cannot_stop() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(for_ever)
            try:
                await trio.sleep_forever()
            finally:
                raise ValueError("while stopping")

    with pytest.raises(ExceptionGroup) as caught, trio.move_on_after(5):
        await supervise(cannot_stop, for_ever, max_restarts=None)
    [inner] = caught.value.exceptions
    assert isinstance(inner, ValueError)


async def test_failures_at_the_same_moment_are_one_limit(autojump_clock: Clock) -> None:
    """Services that fail together do not hide RestartLimit in a group: all are its causes."""
    lost = trio.Event()

    async def fail() -> None:
        await lost.wait()
        raise ValueError

    async def lose() -> None:
        await trio.sleep(1)
        lost.set()

    with pytest.raises(RestartLimit) as caught:
        await supervise(fail, fail, fail, lose, max_restarts=0)
    assert [type(cause) for cause in caught.value.causes] == [ValueError] * 3


async def test_a_failure_of_a_stopped_sibling_is_a_cause_too(autojump_clock: Clock) -> None:
    """After the counted ones; the failure that exceeded the limit is the ``__cause__``."""

    async def cannot_stop() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise KeyError("while stopping")

    with pytest.raises(RestartLimit) as caught:
        await supervise(cannot_stop, failing(after=1), max_restarts=0)
    assert [type(cause) for cause in caught.value.causes] == [ValueError, KeyError]
    assert caught.value.__cause__ is caught.value.causes[0]


# How it is used.


async def test_it_starts_in_a_nursery(autojump_clock: Clock) -> None:
    """``nursery.start`` returns once all services are started; they keep running."""
    service = Scripted(partial(trio.sleep, 3))
    async with trio.open_nursery() as nursery:
        await nursery.start(supervise, service)
        assert trio.current_time() == 0
        await trio.testing.wait_all_tasks_blocked()
        assert service.began == [0]
    assert service.ended == [3]


async def test_it_restarts_connections(autojump_clock: Clock) -> None:
    """A ``run()`` that is closed with an error connects again; 1000 is its end."""
    transport = MemoryTransport()
    service = partial(run, "ws://memory.test/", Socket(), transport=transport)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(supervise, service)
        for code in (1011, 1012, 1000):
            far = await transport.accept()
            await far.write([Close(code)])
            await far.send_eof()
    assert len(transport.dialed) == 3


async def test_names_are_in_the_logs(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """The name of the supervisor, and the number and name or function of each service."""

    async def feed(number: int, name: str = "") -> None:
        raise ValueError(number)

    caplog.set_level(logging.INFO, "trioglock.supervise")
    with pytest.raises(RestartLimit):
        await supervise(partial(feed, 1), max_restarts=1, name="orders-supervisor")
    await supervise(partial(partial(feed, 1), name="orders"), restart="temporary", name="room")
    await supervise(at_once)
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "orders-supervisor: feed#1 failed"),
        ("INFO", "orders-supervisor: feed#1 restarts in 0 seconds"),
        ("ERROR", "orders-supervisor: feed#1 failed too often"),
        ("ERROR", "room: orders#1 failed"),
        ("INFO", "supervise: at_once#1 returned"),
    ]
    assert all(record.exc_info for record in caplog.records if record.levelno > logging.INFO)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"max_restarts": -1}, "max_restarts must be at least 0"),
        ({"max_restarts": 1.5}, "max_restarts must be a whole number"),
        ({"within": 0}, "within must be more than 0"),
        ({"within": None}, "within must be a number of seconds"),
        ({"within": "5"}, "within must be a number of seconds"),
        ({"strategy": "rest_for_one"}, "strategy must be"),
        ({"restart": "always"}, "restart must be"),
        ({"restart": "temporary", "strategy": "one_for_all"}, "one_for_all"),
        ({"backoff": 3}, "backoff must be a Backoff"),
    ],
)
async def test_bad_options_are_refused(options: Any, text: str) -> None:
    """Immediately, before any service is started."""
    service = Scripted(at_once)
    with pytest.raises(InvalidOption, match=text):
        await supervise(service, **options)
    assert service.began == []


async def test_a_service_is_a_function() -> None:
    """A coroutine is refused with a hint to use partial, without a RuntimeWarning."""
    mistake: Any = for_ever()
    with pytest.raises(InvalidOption, match="write functools"):
        await supervise(mistake)
    services: list[Any] = [None, "run"]
    for wrong in services:
        with pytest.raises(InvalidOption, match="a service must be an async function"):
            await supervise(wrong)
