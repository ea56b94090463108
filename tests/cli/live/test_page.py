"""The page of ``trioglock serve`` in a real browser."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets import Subprotocol
from websockets.sync.client import connect as connect_program

from tests.browser import FOREIGN, browser, expect, keep_screenshot
from tests.cli.serving import publish_request, serve_in_thread
from tests.pubsub.redis_server import RealRedis, find_port
from trioglock.cli import main
from trioglock.cli.live.sockets import LIVE, PUBLISH

__all__ = ["browser"]

pytestmark = [pytest.mark.browser, pytest.mark.slow]

OpenPage = Callable[..., Any]


@pytest.fixture
def open_page(browser: Any) -> Iterator[OpenPage]:
    """Opens pages, which must not raise errors or send requests to other servers."""
    errors: list[str] = []
    opened: list[Any] = []

    def dismiss(dialog: Any) -> None:
        errors.append(dialog.message)
        dialog.dismiss()

    def open_page(at: str, **options: Any) -> Any:
        def check_request(request: Any) -> None:
            if not re.match(rf"(data:|https?://{re.escape(at)}/)", request.url):
                errors.append(request.url)

        page = browser.new_page(**{"viewport": {"width": 1000, "height": 700}, **options})
        opened.append(page)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("dialog", dismiss)
        page.on("request", check_request)
        page.goto(f"http://{at}/")
        expect(page.locator("#status")).to_have_text("Connected")
        return page

    yield open_page
    for page in opened:
        page.close()
    assert errors == []


def publish(channel: str, message: str, *arguments: str) -> str:
    """Run ``trioglock publish``; its output."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        assert main(["publish", *arguments, "--", channel, message]) == 0
    return output.getvalue().strip()


ITEM = {"sku": "apple", "count": 2, "price": 1.20}
ORDER = {"id": 17, "items": [ITEM], "paid": True}
LONG_ORDER = {"id": 18, "items": [ITEM] * 3, "note": "Please deliver before noon."}

MESSAGES = [
    ("news", "The library opens at nine tomorrow."),
    ("sensors/garden", '{"temperature": 9.75, "humidity": 0.81}'),
    ("chat/kitchen", "Is there any tea left?"),
    ("", "Lunch is at noon."),
    ("sensors/garden", '{"temperature": 9.8, "humidity": 0.8}'),
    ("chat/kitchen", "Two pots, next to the window."),
    ("orders/18", json.dumps(LONG_ORDER)),
    ("sensors/cellar", '{"temperature": 7.5, "humidity": 0.92}'),
    ("orders/17", json.dumps(ORDER)),
    ("news", "Rain until noon, then clouds."),
]


def test_messages(open_page: OpenPage, tmp_path: Path) -> None:
    """They appear with their time and channel; JSON is formatted; the numbers are counted."""
    with serve_in_thread(name="office") as at:
        size = {"width": 1000, "height": 560}
        page = open_page(at, viewport=size)
        dark = open_page(at, viewport=size, color_scheme="dark")
        expect(page.locator("#hub")).to_have_text("office")
        rows = page.locator("#log li")
        for count, (channel, message) in enumerate(MESSAGES, 1):
            output = publish(channel, message, "--to", f"ws://{at}")
            assert output.endswith(": 2 subscribers")
            expect(rows).to_have_count(count)
        expect(rows.first.locator("pre")).to_have_text("Rain until noon, then clouds.")
        expect(rows.first.locator(".channel")).to_have_text("news")
        expect(rows.first.locator("time")).to_have_text(re.compile(r"\d\d:\d\d:\d\d\.\d{3}"))
        assert rows.nth(1).locator("pre").text_content() == json.dumps(ORDER, indent=2)
        expect(rows.nth(6).locator(".all")).to_have_text("all channels")
        expect(page.locator("#count")).to_have_text(f"{len(MESSAGES)} messages")
        expect(page.locator("#received")).to_have_text(str(len(MESSAGES)))
        expect(page.locator("#browsers")).to_have_text("0")
        page.evaluate(f"window.listener = new WebSocket('ws://{at}/news')")
        for one, name in ((page, "live_page"), (dark, "live_page_dark")):
            expect(one.locator("#browsers")).to_have_text("1")
            keep_screenshot(one, name, tmp_path)


def test_a_long_message_is_folded(open_page: OpenPage) -> None:
    """It takes two lines until it is expanded; a short one cannot be expanded."""
    with serve_in_thread() as at:
        page = open_page(at)
        publish("news", "short", "--to", f"ws://{at}")
        publish("orders/18", json.dumps(LONG_ORDER), "--to", f"ws://{at}")
        payload, expand = page.locator("#log li").first.locator("pre"), page.locator(".expand")
        expect(expand).to_have_count(1)
        assert payload.bounding_box()["height"] < 45
        expand.click()
        expect(expand).to_have_attribute("aria-expanded", "true")
        assert payload.inner_text() == json.dumps(LONG_ORDER, indent=2)
        expand.click()
        assert payload.bounding_box()["height"] < 45


def test_an_empty_page_shows_how_to_publish_and_subscribe(
    open_page: OpenPage, tmp_path: Path
) -> None:
    """With the address of the server; the title contains it, too."""
    with serve_in_thread(name="office") as at:
        page = open_page(at, viewport={"width": 1000, "height": 600})
        expect(page).to_have_title(f"office on {at} | Live messages")
        expect(page.locator("#empty h2")).to_have_text("No messages yet")
        command, subscribe, script = page.locator("#help pre").all_text_contents()
        assert subscribe == f"trioglock connect ws://{at}/news"
        keep_screenshot(page, "live_page_empty", tmp_path)
        script = script.replace("console.log(", "window.received = (")
        page.evaluate(f"() => {{ {script} }}")
        expect(page.locator("#browsers")).to_have_text("1")
        _, *arguments = shlex.split(command)
        assert main(arguments) == 0
        expect(page.locator("#log li pre")).to_have_text(["Hello"])
        expect(page.locator("#empty")).to_be_hidden()
        page.wait_for_function("window.received === 'Hello'")
        page.click("#clear")
        expect(page.locator("#empty")).to_be_visible()


@pytest.mark.parametrize(
    ("options", "command"),
    [
        ({"publish_token": "open-sesame"}, "TRIOGLOCK_PUBLISH_TOKEN=... trioglock publish "),
        ({"host": "0.0.0.0", "page": True}, "await hub.publish("),
    ],
)
def test_an_empty_page_shows_what_the_server_permits(
    open_page: OpenPage, options: dict[str, Any], command: str
) -> None:
    """With a token, and without any way to publish through the server."""
    with serve_in_thread(**options) as at:
        page = open_page(at.replace("0.0.0.0", "127.0.0.1"))
        assert page.locator("#help pre").first.inner_text().startswith(command)


def test_workers(redis: RealRedis, open_page: OpenPage) -> None:
    """A page shows the messages of all of them, and to which process it is connected."""
    settings: dict[str, Any] = {"redis": redis.url, "workers": 2, "ready_fd": 0}
    with (
        serve_in_thread(**settings) as at,
        serve_in_thread(**settings, port=int(at.rpartition(":")[2])),
    ):
        pages = [open_page(at) for _ in range(4)]
        assert publish("news", "hello", "--redis", redis.url) == "published on news"
        assert publish("news", "again", "--to", f"ws://{at}") == "published on news"
        redis.publish_plainly("trioglock/raw", b"\xff\x00binary")
        for page in pages:
            rows = page.locator("#log li pre")
            expect(rows).to_have_text(["ff 00 62 69 6e 61 72 79", "again", "hello"])
            expect(page.locator("#log li small")).to_have_text("8 bytes, binary")
            title = page.locator("#browsers").get_attribute("title")
            assert re.search(r"to process \d+, one of several workers", title)


HOSTILE = [
    "<img src=x onerror=alert(1)>",
    "<script>alert(2)</script></pre></script><svg/onload=alert(3)>",
    '{"<b>bold</b>": "<img src=x onerror=alert(4)>", "__proto__": {"gap": 1}}',
    "javascript:alert(5)//",
    "'\"`${alert(6)}`",
]


def test_hostile_text(open_page: OpenPage) -> None:
    """Neither a payload nor a channel is ever HTML or run as code."""
    with serve_in_thread() as at:
        page = open_page(at)
        elements = "document.querySelectorAll('img, script, b, svg').length"
        before = page.evaluate(elements)
        for count, message in enumerate(HOSTILE, 1):
            publish(message, message, "--to", f"ws://{at}")
            expect(page.locator("#log li")).to_have_count(count)
            row = page.locator("#log li").first
            expected = json.dumps(json.loads(message), indent=2) if message[0] == "{" else message
            assert row.locator("pre").text_content() == expected
            assert row.locator(".channel").inner_text() == message
            assert page.evaluate(elements) == before
            assert page.evaluate("({}).gap") is None


def test_invisible_characters(open_page: OpenPage) -> None:
    """Control characters are shown by name; numbers in JSON keep their form."""
    with serve_in_thread() as at:
        page = open_page(at)
        publish("x", "a\x1b[2Jb\u202egpj.exe", "--to", f"ws://{at}")
        publish("x", '[12345678901234567890, 1.0, "\\u0041\\/", {}, []]', "--to", f"ws://{at}")
        rows = page.locator("#log li pre")
        expect(rows).to_have_count(2)
        assert rows.nth(1).inner_text() == "a\u241b[2Jb\u27e8U+202E\u27e9gpj.exe"
        lines = [line.strip() for line in rows.nth(0).text_content().splitlines()]
        wanted = ["[", "12345678901234567890,", "1.0,", '"\\u0041\\/",', "{},", "[]", "]"]
        assert lines == wanted


def test_filter_pause_and_clear(open_page: OpenPage) -> None:
    """A filter hides channels; a paused page stands still and shows all messages on resume."""
    with serve_in_thread() as at:
        page = open_page(at)
        rows = page.locator("#log li pre")
        to = ("--to", f"ws://{at}")
        for channel in ("news/local", "news/world", "sport"):
            publish(channel, f"about {channel}", *to)
        expect(rows).to_have_count(3)
        page.fill("#filter", "news/*")
        expect(rows).to_have_text(["about news/world", "about news/local"])
        page.fill("#filter", "nothing")
        expect(page.locator("#unmatched")).to_have_text("No matching messages")
        page.fill("#filter", "")
        expect(rows).to_have_count(3)
        page.locator("#log li .channel").first.click()
        expect(page.locator("#filter")).to_have_value("sport")
        expect(rows).to_have_text(["about sport"])
        page.fill("#filter", "")
        page.click("#pause")
        expect(page.locator("#pause")).to_have_attribute("aria-pressed", "true")
        publish("sport", "late", *to)
        expect(page.locator("#pause")).to_have_text("Resume")
        expect(page.locator("#unseen")).to_have_text("1 new message")
        publish("sport", "later", *to)
        expect(page.locator("#unseen")).to_have_text("2 new messages")
        expect(page).to_have_title(re.compile(r"^\(2\) "))
        expect(rows).to_have_count(3)
        page.fill("#filter", "sport")
        expect(rows).to_have_text(["about sport"])
        page.fill("#filter", "")
        expect(rows).to_have_count(3)
        page.click("#unseen")
        expect(page.locator("#pause")).to_have_text("Pause")
        expect(rows).to_have_count(5)
        expect(rows.first).to_have_text("later")
        page.click("#clear")
        expect(rows).to_have_count(0)
        publish("sport", "new", *to)
        expect(rows).to_have_text(["new"])


def test_burst(open_page: OpenPage) -> None:
    """Of 10,000 messages, the page shows the latest and stays small."""
    with serve_in_thread() as at:
        page = open_page(at)
        with connect_program(
            f"ws://{at}/", subprotocols=[Subprotocol(PUBLISH)], proxy=None
        ) as program:
            for number in range(10_000):
                program.send(publish_request("burst", f"number {number}"))
                if number % 100 == 99:
                    for _ in range(100):
                        program.recv(timeout=15)
        expect(page.locator("#log li").first.locator("pre")).to_have_text("number 9999")
        expect(page.locator("#received")).to_have_text("10,000")
        rows = page.locator("#log li")
        assert rows.count() == 300
        shown = [int(text.split()[1]) for text in page.locator("#log li pre").all_inner_texts()]
        assert shown == sorted(shown, reverse=True)
        assert page.evaluate("state.events.length") <= 2000
        publish("after", "still here", "--to", f"ws://{at}")
        expect(rows.first.locator("pre")).to_have_text("still here")


def test_long_message(open_page: OpenPage) -> None:
    """The page shows its start and its size."""
    with serve_in_thread() as at:
        page = open_page(at)
        publish("x", "[" + "1," * 50_000 + "1]", "--to", f"ws://{at}")
        row = page.locator("#log li")
        size = "100,003 characters, truncated"
        expect(row.locator("small")).to_have_text(size)
        assert len(row.locator("pre").text_content()) == 8192


def test_restart_of_the_server(open_page: OpenPage) -> None:
    """The page reconnects and shows that messages may be missing."""
    port = find_port()
    with serve_in_thread(port=port) as at:
        page = open_page(at)
        publish("x", "before", "--to", f"ws://{at}")
        expect(page.locator("#log li pre")).to_have_text(["before"])
    expect(page.locator("#status")).to_have_text("Reconnecting")
    expect(page.locator("form button")).to_be_disabled()
    with serve_in_thread(port=port) as at:
        expect(page.locator("#status")).to_have_text("Connected")
        publish("x", "after", "--to", f"ws://{at}")
        rows = page.locator("#log li")
        expect(rows).to_have_count(3)
        assert rows.first.locator("pre").inner_text() == "after"
        assert "Reconnected." in rows.nth(1).inner_text()
        expect(page.locator("#count")).to_have_text("2 messages")


def test_history(redis: RealRedis, open_page: OpenPage) -> None:
    """A page shows messages from before it was opened, and those that it missed."""
    port, options = find_port(), ("--redis", redis.url, "--history", "50")
    with serve_in_thread(port=port, redis=redis.url, history=50) as at:
        publish("x", "early", *options)
        page = open_page(at)
        rows = page.locator("#log li pre")
        expect(rows).to_have_text(["early"])
    expect(page.locator("#status")).to_have_text("Reconnecting")
    publish("x", "meanwhile", *options)
    with serve_in_thread(port=port, redis=redis.url, history=50):
        expect(page.locator("#status")).to_have_text("Connected")
        publish("x", "late", *options)
        expect(rows).to_have_text(["late", "meanwhile", "early"])
        expect(page.locator("#log li")).to_have_count(3)


def test_form(open_page: OpenPage) -> None:
    """It can be used with the keyboard only; an invalid channel gets an error."""
    with serve_in_thread() as at:
        page = open_page(at)
        page.locator("summary").focus()
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        page.keyboard.type("news")
        page.keyboard.press("Tab")
        page.keyboard.type("hello")
        page.keyboard.press("Control+Enter")
        expect(page.locator("#result")).to_have_text(
            "Published to 1 subscriber, including this page."
        )
        expect(page.locator("#log li pre")).to_have_text(["hello"])
        page.fill("#channel", "/slash")
        page.click("form button")
        expect(page.locator("#result")).to_have_text(
            "Not published: a channel must not start with a slash."
        )


def test_token(open_page: OpenPage) -> None:
    """A wrong token is refused; the page does not store it."""
    with serve_in_thread(publish_token="open-sesame") as at:
        page = open_page(at)
        page.click("summary")
        page.fill("#channel", "news")
        page.fill("#token", "guess")
        page.click("form button")
        wrong = "Not published: the publish token is wrong."
        expect(page.locator("#result")).to_have_text(wrong)
        page.fill("#token", "open-sesame")
        page.click("form button")
        expect(page.locator("#result")).to_have_text(re.compile("^Published to 1"))
        assert page.evaluate("localStorage.length + sessionStorage.length") == 0


OPENS = """([url, protocol]) => new Promise(done => {
    const socket = new WebSocket(url, [protocol]);
    socket.onopen = () => done("open");
    socket.onclose = () => done("closed");
})"""


def test_page_of_another_origin(browser: Any) -> None:
    """Its WebSocket does not open."""
    with serve_in_thread() as at, serve_in_thread() as elsewhere:
        page = browser.new_page()
        page.goto(f"http://{elsewhere}/favicon.ico")
        for protocol in (LIVE, PUBLISH):
            assert page.evaluate(OPENS, [f"ws://{at}/", protocol]) == "closed"
            assert page.evaluate(OPENS, [f"ws://{elsewhere}/", protocol]) == "open"
        page.close()


def test_dns_rebinding(browser: Any) -> None:
    """The server refuses a page that the browser regards as same-origin."""
    with serve_in_thread() as at:
        rebound = f"{FOREIGN}:{at.rpartition(':')[2]}"
        page = browser.new_page()
        page.goto(f"http://{rebound}/favicon.ico")
        assert page.evaluate("location.hostname") == FOREIGN
        assert page.evaluate("fetch('/').then(answer => answer.status)") == 421
        for protocol in (LIVE, PUBLISH):
            assert page.evaluate(OPENS, [f"ws://{rebound}/", protocol]) == "closed"
            assert page.evaluate(OPENS, [f"ws://{at}/", protocol]) == "closed"
        page.close()


def test_phone(open_page: OpenPage, tmp_path: Path) -> None:
    """The page fits on the screen, empty and with messages, in dark and light mode."""
    with serve_in_thread(name="office") as at:
        size = {"width": 360, "height": 740}
        pages = [open_page(at, viewport=size, color_scheme=name) for name in ("dark", "light")]
        width = "document.documentElement.scrollWidth"
        assert [page.evaluate(width) for page in pages] == [360, 360]
        for channel, message in (*MESSAGES, ("a/long/" + "name/" * 30, "x" * 500)):
            publish(channel, message, "--to", f"ws://{at}")
        for page, is_dark in zip(pages, (True, False), strict=True):
            expect(page.locator("#log li")).to_have_count(11)
            assert page.evaluate(width) == 360
            colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert (sum(map(int, re.findall(r"\d+", colour))) < 382) is is_dark
        keep_screenshot(pages[1], "live_page_phone", tmp_path)
