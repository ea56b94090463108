"""The poller by itself: cancellation, exceptions, closed descriptors, the end of the run."""

from __future__ import annotations

import contextlib
import contextvars
import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from trioglock.transports.native import poller as module
from trioglock.transports.native.poller import AGAIN, ENDED, LEFT, PAUSED, WAIT, Poller

pytestmark = [
    pytest.mark.skipif(not module.is_supported, reason="needs epoll"),
    pytest.mark.usefixtures("no_epoll_left"),
]

Step = Callable[[], int]
number: contextvars.ContextVar[int] = contextvars.ContextVar("number")


def epolls() -> int:
    """The number of open epolls of this process."""
    count = 0
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            count += str(link.readlink()) == "anon_inode:[eventpoll]"
    return count


@pytest.fixture
def no_epoll_left() -> Iterator[None]:
    """The epoll of a poller is closed at the latest when its run ends."""
    before = epolls()
    yield
    assert epolls() == before


@contextmanager
def sockets(count: int = 1) -> Iterator[list[tuple[socket.socket, socket.socket]]]:
    """Pairs of connected sockets that do not block."""
    pairs = [socket.socketpair() for _ in range(count)]
    try:
        for pair in pairs:
            for end in pair:
                end.setblocking(False)
        yield pairs
    finally:
        for pair in pairs:
            for end in pair:
                end.close()


def reading(end: socket.socket, result: int = WAIT) -> Step:
    """A function that reads at most 100 bytes, and has a result if it read any."""

    def step() -> int:
        try:
            return result if end.recv(100) else ENDED
        except BlockingIOError:
            return WAIT

    return step


@pytest.fixture
async def poller() -> Poller:
    """A poller that one link has joined. It closes with the run."""
    poller = Poller()
    poller.join()
    return poller


@pytest.mark.parametrize("result", [PAUSED, ENDED, LEFT])
async def test_a_result_wakes_the_task(poller: Poller, result: int) -> None:
    """The function is called when there are bytes, and its result is returned."""
    with sockets() as [(near, far)], trio.fail_after(300):
        for _ in range(2):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(sends_later, far)
                assert await poller.feed(near.fileno(), reading(near, result)) == result


async def sends_later(end: socket.socket, data: bytes = b"x") -> None:
    """Send as soon as all other tasks wait."""
    await trio.testing.wait_all_tasks_blocked()
    end.send(data)


async def test_again_needs_no_readable_descriptor(poller: Poller) -> None:
    """The function is called in each turn while it returns AGAIN, and other tasks run."""
    calls = turns = 0

    def step() -> int:
        nonlocal calls
        if not calls:
            near.recv(100)
        calls += 1
        return AGAIN if calls < 50 else PAUSED

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.sleep(0)

    with sockets() as [(near, far)], trio.fail_after(300):
        far.send(b"x")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(count)
            assert await poller.feed(near.fileno(), step) == PAUSED
            nursery.cancel_scope.cancel()
    assert calls == 50
    assert turns >= 49


@pytest.mark.parametrize("busy", [WAIT, AGAIN])
async def test_links_with_more_to_read_starve_no_others(poller: Poller, busy: int) -> None:
    """One chunk of each link is read in a turn, however much is left."""
    order: list[int] = []

    def step(at: int, end: socket.socket) -> Step:
        def read() -> int:
            end.recv(1)
            order.append(at)
            return PAUSED if order.count(at) == 20 else busy if at % 2 else WAIT

        return read

    with sockets(300) as pairs, trio.fail_after(20):
        for _, far in pairs:
            far.send(b"x" * 20)
        async with trio.open_nursery() as nursery:
            for at, (near, _) in enumerate(pairs):
                nursery.start_soon(poller.feed, near.fileno(), step(at, near))
    counts = dict.fromkeys(range(300), 0)
    for at in order:
        counts[at] += 1
        # A turn feeds at most 128 readable links, and for as many that have something left.
        assert counts[at] <= 3 * min(counts.values()) + 3


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt, SystemExit, GeneratorExit])
async def test_an_exception_is_raised_in_the_task(
    poller: Poller, kind: type[BaseException]
) -> None:
    """It keeps its traceback, and other links are not affected."""

    def fail() -> int:
        raise kind("here")

    caught: list[BaseException] = []

    async def feed() -> None:
        try:
            await poller.feed(near.fileno(), fail)
        except BaseException as error:
            caught.append(error)

    with sockets(2) as [(near, far), (other, other_far)], trio.fail_after(300):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(feed)
            far.send(b"x")
            nursery.start_soon(sends_later, other_far)
            assert await poller.feed(other.fileno(), reading(other, PAUSED)) == PAUSED
    [error] = caught
    assert isinstance(error, kind)
    names = []
    traceback = error.__traceback__
    while traceback is not None:
        names.append(traceback.tb_frame.f_code.co_name)
        traceback = traceback.tb_next
    assert names[-1] == "fail"


async def test_it_runs_in_the_context_of_the_task(poller: Poller) -> None:
    """Each function sees and changes the variables of its own task."""

    async def feed(at: int, end: socket.socket) -> None:
        number.set(at)

        def step() -> int:
            end.recv(100)
            seen = number.get()
            number.set(seen + 100)
            return PAUSED if seen >= 200 else WAIT

        assert await poller.feed(end.fileno(), step) == PAUSED
        assert number.get() == 300 + at

    with sockets(5) as pairs, trio.fail_after(300):
        async with trio.open_nursery() as sender, trio.open_nursery() as nursery:
            sender.start_soon(keep_sending, [far for _, far in pairs])
            async with trio.open_nursery() as nursery:
                for at, (near, _) in enumerate(pairs):
                    nursery.start_soon(feed, at, near)
            sender.cancel_scope.cancel()


async def keep_sending(ends: list[socket.socket]) -> None:
    """Send a byte to everyone, again and again."""
    while True:
        await trio.testing.wait_all_tasks_blocked()
        for end in ends:
            end.send(b"x")


# Cancellation.


async def test_a_cancelled_task_leaves(poller: Poller) -> None:
    """Nothing is read after it, and the descriptor can be fed again."""
    with sockets() as [(near, far)], trio.fail_after(300):
        with trio.move_on_after(0.01) as scope:
            await poller.feed(near.fileno(), reading(near))
        assert scope.cancelled_caught
        far.send(b"kept")
        await trio.testing.wait_all_tasks_blocked()
        assert near.recv(100) == b"kept"
        far.send(b"x")
        assert await poller.feed(near.fileno(), reading(near, PAUSED)) == PAUSED


async def test_cancelled_before_it_waits(poller: Poller) -> None:
    """A call in a cancelled scope reads nothing."""
    with sockets() as [(near, far)]:
        far.send(b"kept")
        with trio.CancelScope() as scope:
            scope.cancel()
            await poller.feed(near.fileno(), reading(near, PAUSED))
        assert scope.cancelled_caught
        assert near.recv(100) == b"kept"


@pytest.mark.parametrize("result", [WAIT, AGAIN, PAUSED, ENDED])
async def test_a_function_that_cancels_its_own_task(poller: Poller, result: int) -> None:
    """A result is returned; without one, Cancelled is raised."""
    returned: list[int] = []
    with sockets() as [(near, far)], trio.fail_after(300):
        with trio.CancelScope() as scope:

            def step() -> int:
                near.recv(100)
                scope.cancel()
                return result

            far.send(b"x")
            returned.append(await poller.feed(near.fileno(), step))
            await trio.sleep_forever()
        assert scope.cancelled_caught
        assert returned == ([result] if result >= PAUSED else [])


async def test_a_function_that_cancels_its_own_task_and_raises(poller: Poller) -> None:
    """The exception is not lost."""
    with sockets() as [(near, far)], trio.fail_after(300), trio.CancelScope() as scope:

        def step() -> int:
            scope.cancel()
            raise LookupError

        far.send(b"x")
        with pytest.raises(LookupError):
            await poller.feed(near.fileno(), step)


async def test_a_function_that_cancels_all_tasks(poller: Poller) -> None:
    """Those of the same turn are not called any more."""
    called: list[int] = []

    def step(at: int) -> Step:
        def run() -> int:
            called.append(at)
            nursery.cancel_scope.cancel()
            return WAIT

        return run

    with sockets(50) as pairs, trio.fail_after(300):
        for _, far in pairs:
            far.send(b"x")
        async with trio.open_nursery() as nursery:
            for at, (near, _) in enumerate(pairs):
                nursery.start_soon(poller.feed, near.fileno(), step(at))
    assert len(called) == 1


# Descriptors that other code closes.


async def test_a_closed_descriptor_wakes_the_task(poller: Poller) -> None:
    """OSError, whether the task waits or its function is running."""
    with sockets(2) as [(near, _), (other, far)], trio.fail_after(300):

        def step() -> int:
            poller.closed(other.fileno())
            poller.closed(near.fileno())
            return WAIT

        far.send(b"x")
        async with trio.open_nursery() as nursery:
            for end in (near, other):
                nursery.start_soon(expect_closed, poller, end, step)


async def expect_closed(poller: Poller, end: socket.socket, step: Step) -> None:
    """Feed until the poller notices a closed descriptor."""
    with pytest.raises(OSError, match="descriptor"):
        await poller.feed(end.fileno(), step)


async def test_a_number_that_is_used_again(poller: Poller) -> None:
    """The link that had the number before is woken, and the new one is fed."""
    with sockets(2) as [(near, _), (other, far)], trio.fail_after(300):
        fd = near.fileno()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(expect_closed, poller, near, reading(near))
            await trio.testing.wait_all_tasks_blocked()
            near.close()
            os.dup2(other.fileno(), fd)
            again = socket.socket(fileno=fd)
            with again:
                far.send(b"x")
                assert await poller.feed(fd, reading(again, PAUSED)) == PAUSED


class Steps(trio.abc.Instrument):
    """Counts the steps of all tasks."""

    def __init__(self) -> None:
        self.count = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.count += 1


@pytest.mark.parametrize("used_again", [False, True])
async def test_a_closed_file_that_lives_on_is_no_busy_loop(
    poller: Poller, used_again: bool
) -> None:
    """A child process that inherited the file keeps it in the epoll, always readable."""
    with sockets(2) as [(near, far), (other, other_far)], trio.fail_after(10):
        fd = near.fileno()
        inherited = os.dup(fd)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(expect_closed, poller, near, reading(near))
            await trio.testing.wait_all_tasks_blocked()
            near.close()
            if used_again:
                os.dup2(other.fileno(), fd)
                again = socket.socket(fileno=fd)
            else:
                again = other
                poller.closed(fd)
            far.send(b"always readable")
            nursery.start_soon(poller.feed, again.fileno(), reading(again, PAUSED))
            steps = Steps()
            trio.lowlevel.add_instrument(steps)
            await trio.sleep(0.1)
            trio.lowlevel.remove_instrument(steps)
            assert steps.count < 20
            other_far.send(b"x")
        os.close(inherited)
        again.close()


async def test_what_cannot_be_polled_is_left_to_the_task(poller: Poller) -> None:
    """A regular file or a closed descriptor: LEFT."""
    with Path(__file__).open("rb") as file:
        assert await poller.feed(file.fileno(), lambda: WAIT) == LEFT
    assert await poller.feed(-1, lambda: WAIT) == LEFT


# The lifetime of the epoll and the task.


async def test_the_epoll_lives_as_long_as_links_do() -> None:
    """It is opened by the first feed, closed when the last link leaves, and opened again."""
    poller = Poller()
    before = epolls()
    with sockets() as [(near, far)], trio.fail_after(300):
        for _ in range(3):
            poller.join()
            poller.join()
            assert epolls() == before
            far.send(b"x")
            assert await poller.feed(near.fileno(), reading(near, PAUSED)) == PAUSED
            poller.leave()
            assert epolls() == before + 1
            poller.leave()
            assert epolls() == before
            await trio.testing.wait_all_tasks_blocked()


def test_links_of_system_tasks_when_the_run_ends() -> None:
    """A shielded task is woken with LEFT when the poller is cancelled before it."""
    results: list[int] = []
    before = epolls()

    async def feed(end: socket.socket) -> None:
        poller = Poller()
        poller.join()
        with trio.CancelScope(shield=True):
            results.append(await poller.feed(end.fileno(), reading(end)))

    async def main() -> None:
        trio.lowlevel.spawn_system_task(feed, near)
        await trio.testing.wait_all_tasks_blocked()

    with sockets() as [(near, _)]:
        trio.run(main)
    assert results == [LEFT]
    assert epolls() == before


async def test_an_idle_poller_does_not_stop_the_clock(
    poller: Poller, autojump_clock: trio.testing.MockClock
) -> None:
    """Time jumps while all links are idle."""
    with sockets() as [(near, _)]:
        with trio.move_on_after(3600) as scope:
            await poller.feed(near.fileno(), reading(near))
        assert scope.cancelled_caught


async def test_each_run_has_its_own() -> None:
    """One per run, and none in another thread's run or where it is switched off."""
    here = module.poller_of_run()
    assert here is not None
    assert module.poller_of_run() is here

    async def other() -> Poller | None:
        return module.poller_of_run()

    there = await trio.to_thread.run_sync(trio.run, other)
    assert there is not None
    assert there is not here


def test_only_on_linux() -> None:
    """Elsewhere the package must not need epoll."""
    assert module.is_supported == (sys.platform == "linux")
