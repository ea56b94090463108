"""What every test relies on."""

from __future__ import annotations

import compileall
import gc
import importlib
import os
import sys
import tracemalloc
from collections.abc import Generator, Iterator
from contextlib import suppress
from pathlib import Path

import hypothesis
import pytest

import trioglock
from trioglock.transports.native import link, poller

# A busy machine may stop a test for longer than the default deadline of an example.
hypothesis.settings.register_profile("trioglock", deadline=None)
# For --hypothesis-profile: many more examples than the default of 100.
hypothesis.settings.register_profile("thorough", deadline=None, max_examples=5000)
hypothesis.settings.load_profile("trioglock")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--poller",
        choices=("auto", "always", "never"),
        default="auto",
        help="whether a poller feeds the links, on Linux: auto (the default of the package), "
        "always (also a single client), never (each waits in its own task, as on other systems)",
    )


def pytest_xdist_auto_num_workers() -> int:
    """Return the number of workers for ``-n auto``: two more than cores, as many tests sleep."""
    affinity = getattr(os, "sched_getaffinity", None)
    return 2 + (len(affinity(0)) if affinity else os.cpu_count() or 1)


def pytest_configure(config: pytest.Config) -> None:
    use_poller(config.getoption("--poller"))
    for scheme in ("http", "https", "ws", "wss", "all", "socks", "no"):
        for name in (f"{scheme}_proxy", f"{scheme}_PROXY".upper()):
            os.environ.pop(name, None)  # must not send loopback traffic to a proxy
    if config.getoption("numprocesses", None) and not hasattr(config, "workerinput"):
        compileall.compile_dir(Path(trioglock.__file__).parent, quiet=1, workers=0)


@pytest.hookimpl(trylast=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Import a share of the test modules, before each worker collects the whole suite.

    In a fresh clone the workers would otherwise all compile the same modules at the same time.
    The garbage collector is off until all tests are collected: they are many objects, which it
    would examine again and again.
    """
    gc.disable()
    worker = getattr(session.config, "workerinput", None)
    tests = Path(__file__).parent
    if worker is None or [Path(name).resolve() for name in session.config.args] != [tests]:
        return
    for path in sorted(tests.rglob("test_*.py"))[
        int(worker["workerid"][2:]) :: worker["workercount"]
    ]:
        module = ".".join(path.relative_to(tests.parent).with_suffix("").parts)
        with suppress(Exception, pytest.skip.Exception):  # the collection reports it
            importlib.import_module(module)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Turn the garbage collector on again, for what is created from now on."""
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_sessionfinish() -> None:
    """End the process of :mod:`tests.forks`."""
    if "tests.forks" in sys.modules:
        sys.modules["tests.forks"].close_forks()


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark the tests that use Redis."""
    if "redis" in getattr(item, "fixturenames", ()):
        item.add_marker(pytest.mark.redis)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests with a browser first, so that one worker starts one browser for all.

    Let the marks of :mod:`tests.protocols.clock` precede the one that trio_mode adds.
    """
    items.sort(key=lambda item: not needs_browser(item))
    for item in items:
        marks = list(item.iter_markers("trio"))
        # A mark of the test itself comes first. Otherwise the first is that of trio_mode.
        if sum(mark.name == "trio" for mark in item.own_markers) == 1 and len(marks) > 1:
            item.add_marker(pytest.mark.trio(**marks[1].kwargs), append=False)


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(nextitem: pytest.Item | None) -> None:
    """End the browser after its last test: its event loop excludes ``asyncio.run`` in others."""
    if "tests.browser" in sys.modules and not (nextitem and needs_browser(nextitem)):
        sys.modules["tests.browser"].close_browser()


def needs_browser(item: pytest.Item) -> bool:
    return item.get_closest_marker("browser") is not None


def use_poller(when: str) -> None:
    """Choose which links are fed by a poller; see the option ``--poller``."""
    poller.enabled = when != "never" and poller.is_supported
    link.CLIENTS_TO_POLL = 1 if when == "always" else 4


@pytest.fixture
def no_tracing() -> None:
    """Skip a test that measures memory: coverage and similar tools allocate and refer to frames."""
    if tracemalloc.is_tracing() or sys.gettrace() is not None:
        pytest.skip("another tool is tracing")


@pytest.fixture(autouse=True, scope="module")
def nothing_left_behind() -> Iterator[None]:
    """Collect garbage after every module: a leaked socket warns, and a warning fails.

    What remains is not examined again, which would take longer after each module.
    """
    yield
    gc.collect()
    gc.freeze()
