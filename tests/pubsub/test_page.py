"""The pages of the examples in Chromium."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.pubsub.redis_server import RealRedis
from tests.scripts import ROOT

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
pytestmark = [pytest.mark.browser, pytest.mark.slow]

FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
MILLISECONDS = 10_000
"""Time limit for the page to show something."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, as installed on the system."""
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("needs chromium: install the system's package")
    with playwright.sync_playwright() as tools:
        chromium = tools.chromium.launch(executable_path=path, args=FLAGS)
        yield chromium
        chromium.close()


@contextmanager
def example(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run an example; yield its process and the URL that it prints."""
    command = [sys.executable, *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)  # noqa: S603
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("open http://"), line
        yield process, line.split()[1]
    finally:
        process.send_signal(signal.SIGINT)
        code = process.wait(10)
        assert process.stdout is not None
        process.stdout.close()
        assert code == 0


def free_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def keep_screenshot(page: Any, name: str, tmp_path: Path) -> None:
    """Save a screenshot, in the directory of the environment variable SCREENSHOTS if it is set."""
    path = Path(os.environ.get("SCREENSHOTS", tmp_path)) / f"{name}.png"
    page.screenshot(path=path)
    assert path.read_bytes().startswith(b"\x89PNG")


def test_events_move_the_page(redis: RealRedis, browser: Any, tmp_path: Path) -> None:
    """A plain PUBLISH appears on the page, also after the server has restarted."""
    live = ("examples/live_events/live_events.py", "--redis", redis.url, "--port", free_port())
    page = browser.new_page(viewport={"width": 800, "height": 600})
    errors: list[object] = []
    page.on("pageerror", lambda error: errors.append(error))
    expect = playwright.expect
    expect.set_options(timeout=MILLISECONDS)
    status, value = page.locator("#status"), page.locator("#value")
    with example(*live) as (server, url):
        page.goto(url)
        expect(status).to_have_text("live")
        redis.publish_plainly("trioglock/visitors", b"41")
        expect(value).to_have_text("41")
        page.click("#hello")
        assert server.stdout is not None
        assert server.stdout.readline() == "from a browser: 'hello from the page'\n"
    expect(status).to_have_text("reconnecting")
    with example(*live):
        expect(status).to_have_text("live")
        for number in range(40):
            redis.publish_plainly("trioglock/visitors", b"%d" % (50 + number * 7 % 31 - number))
        expect(value).to_have_text("36")
        redis.publish_plainly("trioglock/", "gr\u00fc\u00dfe an alle".encode())
        expect(page.locator("#note")).to_have_text("gr\u00fc\u00dfe an alle")
        keep_screenshot(page, "live_events", tmp_path)
    assert errors == []
    page.close()


def test_two_pages_chat(browser: Any, tmp_path: Path) -> None:
    """Each shows the messages and names of both, and messages are never parsed as HTML."""
    expect = playwright.expect
    expect.set_options(timeout=MILLISECONDS)
    errors: list[object] = []
    with example("examples/chat/chat.py", "--port", "0") as (_, url):
        pages = []
        for name in ("Ann", "Bob"):
            page = browser.new_page(viewport={"width": 800, "height": 560})
            page.on("pageerror", lambda error: errors.append(error))
            page.goto(url + "rooms/garden%20party")
            page.fill("#name", name)
            page.click("#enter button")
            pages.append(page)
            expect(page.locator("#names li")).to_have_text(["Ann", "Bob"][: len(pages)])
        ann, bob = pages
        for page, text in ((ann, "Hello Bob!"), (bob, "<b>Hello</b> Ann & all")):
            page.fill("#text", text)
            page.press("#text", "Enter")
            for other in pages:
                expect(other.locator("#messages li").last).to_have_text(re.compile(re.escape(text)))
        keep_screenshot(ann, "chat", tmp_path)
        bob.close()
        expect(ann.locator("#messages li").last).to_have_text("Bob left")
        expect(ann.locator("#names li")).to_have_text(["Ann"])
        ann.close()
    assert errors == []
