"""The page of ``trioglock serve`` in a real browser: what is published shows up, as text."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.cli.helpers import COMMAND, environment
from tests.cli.hubs import publication
from tests.pubsub.redis_server import RealRedis, real_redis
from tests.scripts import ROOT
from trioglock import connect
from trioglock.cli.live import PUBLISH

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")

EVIL = "evil.example"

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    # A name of somebody else that leads to this machine: DNS rebinding.
    f"--host-resolver-rules=MAP {EVIL} 127.0.0.1",
]
MILLISECONDS = 15_000
"""That the page may take to show something."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """The system's Chromium."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("needs chromium: install the system's package")
    playwright.expect.set_options(timeout=MILLISECONDS)
    with playwright.sync_playwright() as tools:
        chromium = tools.chromium.launch(executable_path=program, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def redis() -> Iterator[RealRedis]:
    """A real server, for one test."""
    with real_redis() as server:
        yield server


@pytest.fixture
def open_page(browser: Any) -> Iterator[Callable[..., Any]]:
    """Opens pages; none of them may have an error, or ask anybody else for anything."""
    errors: list[str] = []
    opened: list[Any] = []

    def refuse(dialog: Any) -> None:
        errors.append(dialog.message)
        dialog.dismiss()

    def open_one(at: str, **options: Any) -> Any:
        page = browser.new_page(**{"viewport": {"width": 1000, "height": 700}, **options})
        opened.append(page)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("dialog", refuse)
        page.on(
            "request",
            lambda request: (
                errors.append(request.url)
                if not re.match(rf"(data:|https?://{re.escape(at)}/)", request.url)
                else None
            ),
        )
        page.goto(f"http://{at}/")
        playwright.expect(page.locator("#status")).to_have_text("live")
        return page

    yield open_one
    for page in opened:
        page.close()
    assert errors == []


@contextmanager
def serving(*arguments: str, port: int = 0, **env: str) -> Iterator[str]:
    """``trioglock serve`` in a process; its address, such as ``"127.0.0.1:50812"``."""
    command = [*COMMAND, "serve", "--port", str(port), "--drain", "1", *arguments]
    process = subprocess.Popen(  # noqa: S603
        command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment(**env)
    )
    try:
        assert process.stdout is not None
        yield process.stdout.readline().split()[2]
    finally:
        process.send_signal(signal.SIGTERM)
        code = process.wait(20)
        process.stdout.close()  # type: ignore[union-attr]
        assert code == 0


def publish(channel: str, message: str, *arguments: str) -> str:
    """What ``trioglock publish`` prints, from a process of its own."""
    command = [*COMMAND, "publish", *arguments, "--", channel, message]
    done = subprocess.run(  # noqa: S603
        command, check=True, capture_output=True, text=True, cwd=ROOT, env=environment(), timeout=20
    )
    return done.stdout.strip()


def publish_many(at: str, count: int) -> None:
    """A burst, as fast as one connection goes."""

    async def burst() -> None:
        async with (
            connect(f"ws://{at}/", subprotocols=[PUBLISH]) as conn,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(answers, conn)
            for number in range(count):
                await conn.send(publication("burst", f"number {number}"))

    async def answers(conn: Any) -> None:
        with trio.fail_after(60):
            for _ in range(count):
                await conn.receive()

    trio.run(burst)


def keep_screenshot(page: Any, name: str, tmp_path: Path) -> None:
    """A picture of the page; into docs/images where SCREENSHOTS=docs/images asks for it."""
    path = Path(os.environ.get("SCREENSHOTS", tmp_path)) / f"{name}.png"
    page.screenshot(path=path)
    assert path.read_bytes().startswith(b"\x89PNG")


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


ORDER = {"id": 17, "items": [{"sku": "apple", "count": 2, "price": 1.20}], "paid": True}

SHOWN = [
    ("news", "The library opens at nine tomorrow."),
    ("sensors/garden", '{"temperature": 9.75, "humidity": 0.81}'),
    ("chat/kitchen", "Is there any tea left?"),
    ("", "Lunch is at noon."),
    ("orders/17", json.dumps(ORDER)),
    ("news", "Rain until noon, then clouds."),
]


def test_what_is_published_shows_up(open_page: Callable[..., Any], tmp_path: Path) -> None:
    """From another process: channel, time, JSON laid out; the numbers count."""
    expect = playwright.expect
    with serving("--name", "office") as at:
        page = open_page(at, viewport={"width": 1000, "height": 780})
        expect(page.locator("#hub")).to_have_text("office")
        expect(page.locator("#empty")).to_have_text("Nothing since you opened this page.")
        rows = page.locator("#log li")
        for count, (channel, message) in enumerate(SHOWN, 1):
            told = publish(channel, message, "--to", f"ws://{at}")
            assert told.endswith(": 1 got it")
            expect(rows).to_have_count(count)
        expect(rows.first.locator("pre")).to_have_text("Rain until noon, then clouds.")
        expect(rows.first.locator("button")).to_have_text("news")
        expect(rows.first.locator("time")).to_have_text(re.compile(r"\d\d:\d\d:\d\d\.\d{3}"))
        laid_out = rows.nth(1).locator("pre").inner_text()
        assert laid_out == json.dumps(ORDER, indent=2)
        expect(rows.nth(2).locator(".all")).to_have_text("everyone")
        expect(page.locator("#received")).to_have_text(str(len(SHOWN)))
        expect(page.locator("#browsers")).to_have_text("0")
        page.evaluate(f"window.listener = new WebSocket('ws://{at}/news')")
        expect(page.locator("#browsers")).to_have_text("1")
        keep_screenshot(page, "live_page", tmp_path)


def test_through_redis_and_two_workers(redis: RealRedis, open_page: Callable[..., Any]) -> None:
    """Whichever process the page is at; each says that it is one of several."""
    expect = playwright.expect
    with serving("--redis", redis.url, "--workers", "2") as at:
        pages = [open_page(at) for _ in range(4)]
        assert publish("news", "hello", "--redis", redis.url) == "published on news"
        assert publish("news", "again", "--to", f"ws://{at}") == "published on news"
        redis.publish_plainly("trioglock/raw", b"\xff\x00binary")
        for page in pages:
            rows = page.locator("#log li pre")
            expect(rows).to_have_text(["ff 00 62 69 6e 61 72 79", "again", "hello"])
            expect(page.locator("#log li small")).to_have_text("8 bytes of binary")
            title = page.locator("#browsers").get_attribute("title")
            assert re.search(r"of process \d+, one of several", title)


HOSTILE = [
    "<img src=x onerror=alert(1)>",
    "<script>alert(2)</script></pre></script><svg/onload=alert(3)>",
    '{"<b>bold</b>": "<img src=x onerror=alert(4)>", "__proto__": {"gap": 1}}',
    "javascript:alert(5)//",
    "'\"`${alert(6)}`",
]


@pytest.mark.parametrize("message", HOSTILE)
def test_a_payload_is_never_markup(message: str, open_page: Callable[..., Any]) -> None:
    """Nor is a channel: it is shown letter by letter, and nothing of it runs."""
    with serving() as at:
        page = open_page(at)
        elements = "document.querySelectorAll('img, script, b, svg').length"
        before = page.evaluate(elements)
        publish(message[:300].lstrip("/"), message, "--to", f"ws://{at}")
        row = page.locator("#log li")
        playwright.expect(row).to_have_count(1)
        text = row.locator("pre").inner_text()
        expected = json.dumps(json.loads(message), indent=2) if message[0] == "{" else message
        assert text == expected
        assert row.locator("button").inner_text() == message
        assert page.evaluate(elements) == before
        assert page.evaluate("({}).gap") is None


def test_what_cannot_be_seen_is_shown(open_page: Callable[..., Any]) -> None:
    """Controls and signs that turn text around; numbers stay as they were written."""
    with serving() as at:
        page = open_page(at)
        publish("x", "a\x1b[2Jb\u202egpj.exe", "--to", f"ws://{at}")
        publish("x", '[12345678901234567890, 1.0, "\\u0041\\/", {}, []]', "--to", f"ws://{at}")
        rows = page.locator("#log li pre")
        playwright.expect(rows).to_have_count(2)
        assert rows.nth(1).inner_text() == "a\u241b[2Jb\u27e8U+202E\u27e9gpj.exe"
        lines = [line.strip() for line in rows.nth(0).inner_text().splitlines()]
        wanted = ["[", "12345678901234567890,", "1.0,", '"\\u0041\\/",', "{},", "[]", "]"]
        assert lines == wanted


def test_filter_pause_and_clear(open_page: Callable[..., Any]) -> None:
    """Some channels alone; nothing moves while it is paused, and nothing is lost by that."""
    expect = playwright.expect
    with serving() as at:
        page = open_page(at)
        rows = page.locator("#log li pre")
        to = ("--to", f"ws://{at}")
        for channel in ("news/local", "news/world", "sport"):
            publish(channel, f"about {channel}", *to)
        expect(rows).to_have_count(3)
        page.fill("#filter", "news/*")
        expect(rows).to_have_text(["about news/world", "about news/local"])
        page.fill("#filter", "nothing")
        expect(page.locator("#empty")).to_have_text("Nothing that is kept matches.")
        page.fill("#filter", "")
        expect(rows).to_have_count(3)
        page.locator("#log li button").first.click()
        expect(page.locator("#filter")).to_have_value("sport")
        expect(rows).to_have_text(["about sport"])
        page.fill("#filter", "")
        page.click("#pause")
        expect(page.locator("#pause")).to_have_attribute("aria-pressed", "true")
        publish("sport", "late", *to)
        expect(page.locator("#received")).to_have_text("4")
        publish("sport", "later", *to)
        expect(page.locator("#count")).to_have_text("2 more came")
        expect(rows).to_have_count(3)
        page.click("#pause")
        expect(rows).to_have_count(5)
        expect(rows.first).to_have_text("later")
        page.click("#clear")
        expect(rows).to_have_count(0)
        publish("sport", "new", *to)
        expect(rows).to_have_text(["new"])


def test_a_burst(open_page: Callable[..., Any]) -> None:
    """Of 10,000 messages: the newest are shown, the page stays small, and it tells the rest."""
    expect = playwright.expect
    with serving() as at:
        page = open_page(at)
        publish_many(at, 10_000)
        expect(page.locator("#log li").first.locator("pre")).to_have_text("number 9999")
        expect(page.locator("#received")).to_have_text("10,000")
        rows = page.locator("#log li")
        assert rows.count() == 300
        shown = [int(text.split()[1]) for text in page.locator("#log li pre").all_inner_texts()]
        assert shown == sorted(shown, reverse=True)
        assert page.evaluate("state.events.length") <= 2000
        publish("after", "still here", "--to", f"ws://{at}")
        expect(rows.first.locator("pre")).to_have_text("still here")


def test_a_long_message_is_cut(open_page: Callable[..., Any]) -> None:
    """The page gets the beginning, and how long it was."""
    with serving() as at:
        page = open_page(at)
        publish("x", "[" + "1," * 50_000 + "1]", "--to", f"ws://{at}")
        row = page.locator("#log li")
        told = "100,003 characters, the first of them are shown"
        playwright.expect(row.locator("small")).to_have_text(told)
        assert len(row.locator("pre").inner_text()) == 8192


def test_the_server_is_started_again(open_page: Callable[..., Any]) -> None:
    """The page says that it has lost it, finds it again, and that something may be missing."""
    expect = playwright.expect
    port = free_port()
    with serving(port=port) as at:
        page = open_page(at)
        publish("x", "before", "--to", f"ws://{at}")
        expect(page.locator("#log li pre")).to_have_text(["before"])
    expect(page.locator("#status")).to_have_text("reconnecting")
    expect(page.locator("form button")).to_be_disabled()
    with serving(port=port) as at:
        expect(page.locator("#status")).to_have_text("live")
        publish("x", "after", "--to", f"ws://{at}")
        rows = page.locator("#log li")
        expect(rows).to_have_count(3)
        assert rows.first.locator("pre").inner_text() == "after"
        assert "Connected again." in rows.nth(1).inner_text()


def test_with_a_history_nothing_is_missed(redis: RealRedis, open_page: Callable[..., Any]) -> None:
    """What was published before the page was opened, and while it was away, comes from Redis."""
    expect = playwright.expect
    port, asked = free_port(), ("--redis", redis.url, "--history", "50")
    with serving(*asked, port=port) as at:
        publish("x", "early", *asked)
        page = open_page(at)
        rows = page.locator("#log li pre")
        expect(rows).to_have_text(["early"])
    expect(page.locator("#status")).to_have_text("reconnecting")
    publish("x", "meanwhile", *asked)
    with serving(*asked, port=port):
        expect(page.locator("#status")).to_have_text("live")
        publish("x", "late", *asked)
        expect(rows).to_have_text(["late", "meanwhile", "early"])
        expect(page.locator("#log li")).to_have_count(3)


def test_the_form_publishes(open_page: Callable[..., Any]) -> None:
    """With the keyboard alone; who listens gets it."""
    expect = playwright.expect
    with serving() as at:
        page = open_page(at)
        page.locator("summary").focus()
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        page.keyboard.type("news")
        page.keyboard.press("Tab")
        page.keyboard.type("hello")
        page.keyboard.press("Control+Enter")
        expect(page.locator("#answer")).to_have_text("Published: 1 got it, this page among them.")
        expect(page.locator("#log li pre")).to_have_text(["hello"])
        page.fill("#channel", "/slash")
        page.click("form button")
        expect(page.locator("#answer")).to_have_text(
            "Not published: a channel is named without a slash in front."
        )


def test_the_form_asks_for_the_token(open_page: Callable[..., Any]) -> None:
    """A wrong one is refused; the page forgets it when it is closed."""
    expect = playwright.expect
    with serving(TRIOGLOCK_PUBLISH_TOKEN="open-sesame") as at:
        page = open_page(at)
        page.click("summary")
        page.fill("#channel", "news")
        page.fill("#token", "guess")
        page.click("form button")
        wrong = "Not published: the publish token is wrong."
        expect(page.locator("#answer")).to_have_text(wrong)
        page.fill("#token", "open-sesame")
        page.click("form button")
        expect(page.locator("#answer")).to_have_text(re.compile("^Published: 1"))
        assert page.evaluate("localStorage.length + sessionStorage.length") == 0


OPENS = """([url, protocol]) => new Promise(done => {
    const socket = new WebSocket(url, [protocol]);
    socket.onopen = () => done("open");
    socket.onclose = () => done("closed");
})"""


@pytest.mark.parametrize("protocol", ["trioglock.publish", "trioglock.live"])
def test_a_foreign_page_cannot_publish_or_watch(protocol: str, browser: Any) -> None:
    """In a real browser, from another origin: the WebSocket does not open."""
    with serving() as at, serving() as elsewhere:
        page = browser.new_page()
        page.goto(f"http://{elsewhere}/favicon.ico")
        assert page.evaluate(OPENS, [f"ws://{at}/", protocol]) == "closed"
        assert page.evaluate(OPENS, [f"ws://{elsewhere}/", protocol]) == "open"
        page.close()


@pytest.mark.parametrize("protocol", ["trioglock.publish", "trioglock.live"])
def test_a_name_that_is_rebound_cannot_publish_or_watch(protocol: str, browser: Any) -> None:
    """The server is of the page's own origin, says the browser; the server knows better."""
    with serving() as at:
        rebound = f"{EVIL}:{at.rpartition(':')[2]}"
        page = browser.new_page()
        page.goto(f"http://{rebound}/favicon.ico")
        assert page.evaluate("location.hostname") == EVIL
        assert page.evaluate("fetch('/').then(answer => answer.status)") == 421
        assert page.evaluate(OPENS, [f"ws://{rebound}/", protocol]) == "closed"
        assert page.evaluate(OPENS, [f"ws://{at}/", protocol]) == "closed"
        page.close()


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_on_a_phone(scheme: str, open_page: Callable[..., Any]) -> None:
    """Nothing is wider than the screen, dark or light."""
    with serving() as at:
        page = open_page(at, viewport={"width": 360, "height": 740}, color_scheme=scheme)
        for channel, message in (*SHOWN[:3], ("a/long/" + "name/" * 30, "x" * 500)):
            publish(channel, message, "--to", f"ws://{at}")
        playwright.expect(page.locator("#log li")).to_have_count(4)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, re.findall(r"\d+", colour))) < 382) is (scheme == "dark")
