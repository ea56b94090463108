"""``trioglock.js`` in Chromium and in Node, and its types."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser import browser
from tests.node_packages import find_node, find_node_with_websocket, install_packages
from tests.pubsub.live_site import LiveSite, live_site
from tests.scripts import ROOT
from trioglock import Headers, Request
from trioglock.pubsub import browser_module

__all__ = ["browser"]

NODE = Path(__file__).parent / "node"
MODULE = ROOT / "trioglock/pubsub/trioglock.js"
SECONDS = 30


@pytest.fixture
def context(browser: Any) -> Iterator[Any]:
    """A browser context, for the state of its network."""
    context = browser.new_context()
    context.set_default_timeout(SECONDS * 1000)
    yield context
    context.close()


class Page:
    """A page that records what it receives."""

    def __init__(
        self, context: Any, site: LiveSite, path: str = "/news", *, clock: bool = False
    ) -> None:
        self.page = context.new_page()
        if clock:
            self.page.clock.install()
        self.errors: list[object] = []
        self.page.on("pageerror", lambda error: self.errors.append(error))
        self.page.goto(site.url)
        self.page.wait_for_function("() => window.record")
        self.page.evaluate("path => record(path)", path)

    def wait(self, condition: str) -> Any:
        """Wait until a JavaScript expression about the record is true."""
        self.page.wait_for_function(
            f"() => {{ const {{messages, ids, gaps, states}} = record; return {condition} }}"
        )

    def wait_state(self, state: str) -> None:
        self.wait(f"states.at(-1)[0] === {state!r}")

    def get(self, name: str) -> Any:
        return self.page.evaluate(f"() => record.{name}")


@pytest.mark.browser
@pytest.mark.slow
class TestInChromium:
    """In Chromium."""

    def test_messages_arrive_with_id_and_channel(self, context: Any) -> None:
        """Text and binary; a page also sends. After close() nothing arrives."""
        with live_site() as site:
            page = Page(context, site)
            page.wait_state("open")
            site.publish("one", "gr\u00fc\u00dfe", b"\x00\xff")
            page.wait("messages.length === 3")
            assert page.get("messages") == ["one", "gr\u00fc\u00dfe", ["news", 0, 255]]
            assert len(set(page.get("ids"))) == 3
            page.page.evaluate("record.feed.send('from the page')")
            site.wait(lambda: site.incoming == ["from the page"])
            page.page.evaluate("record.feed.close()")
            site.wait(lambda: site.ended == [1000])
            site.publish("late")
            closed = ["closed", {"code": 1000, "reason": ""}]
            assert page.get("states") == [["connecting", None], ["open", None], closed]
            assert len(page.get("messages")) == 3
            assert page.errors == []

    def test_a_refusal_is_final(self, context: Any) -> None:
        """Closed with 1008: the reason is reported, and the page does not try again."""
        with live_site() as site:
            page = Page(context, site, "/incoming")
            page.wait_state("closed")
            reason = "clients cannot subscribe to 'incoming'"
            assert page.get("states")[-1] == ["closed", {"code": 1008, "reason": reason}]
            page.page.clock.install()
            page.page.clock.fast_forward(200_000)
            page.page.evaluate("dispatchEvent(new Event('online'))")
            assert page.get("states.length") == 2
            assert site.connected == [""]

    def test_nothing_is_lost_while_the_browser_is_offline(self, context: Any) -> None:
        with live_site() as site:
            page = Page(context, site)
            page.wait_state("open")
            site.publish("before")
            page.wait("messages.length === 1")
            context.set_offline(True)
            page.wait_state("offline")
            site.publish("missed", "also")
            page.page.clock.install()
            page.page.clock.fast_forward(200_000)
            page.page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
            assert len(site.connected) == 1
            context.set_offline(False)
            page.wait("messages.length === 3")
            assert page.get("messages") == ["before", "missed", "also"]
            assert [state for state, _ in page.get("states")] == [
                "connecting",
                "open",
                "offline",
                "connecting",
                "open",
            ]

    def test_nothing_is_lost_or_repeated_while_a_server_restarts(self, context: Any) -> None:
        """Three restarts while messages are published."""
        with live_site() as site:
            page = Page(context, site)
            page.wait_state("open")
            site.run(site.publish_and_restart, 120, 3)
            page.wait("messages.length >= 120")
            assert page.get("messages") == [str(number) for number in range(120)]
            assert page.get("gaps") == []
            assert len(site.connected) >= 2
            assert "" not in site.connected[1:]

    def test_a_truncated_history_is_one_gap(self, context: Any) -> None:
        with live_site(history=3) as site:
            page = Page(context, site)
            page.wait_state("open")
            site.publish("seen")
            page.wait("messages.length === 1")
            context.set_offline(True)
            page.wait_state("offline")
            site.publish(*map(str, range(5)))
            for _ in range(2):
                context.set_offline(False)
                page.wait("messages.length === 4")
                context.set_offline(True)
                page.wait_state("offline")
            assert page.get("messages") == ["seen", "2", "3", "4"]
            [gap] = page.get("gaps")
            assert gap["id"]

    def test_a_page_begins_with_what_is_kept(self, context: Any) -> None:
        with live_site(history=1) as site:
            site.publish("old", "current")
            page = Page(context, site, "/news?after=0")
            page.wait("messages.length === 1")
            site.publish("next")
            page.wait("messages.length === 2")
            assert page.get("messages") == ["current", "next"]
            assert page.get("gaps") == []

    @pytest.mark.parametrize("path", ["/news", "/news?after=0"])
    def test_without_a_history_a_reconnect_is_a_gap(self, context: Any, path: str) -> None:
        with live_site(history=None) as site:
            page = Page(context, site, path)
            page.wait_state("open")
            site.publish("seen")
            page.wait("messages.length === 1")
            site.restart()
            page.wait("gaps.length === 1")
            [gap] = page.get("gaps")
            assert gap["id"] is None
            assert 0 <= gap["seconds"] < SECONDS
            assert page.get("ids") == [None]

    def test_a_frozen_page_receives_what_it_has_missed(self, context: Any) -> None:
        """The server restarts while the browser runs no code of the page."""
        with live_site() as site:
            page = Page(context, site)
            page.wait_state("open")
            devtools = context.new_cdp_session(page.page)
            devtools.send("Page.setWebLifecycleState", {"state": "frozen"})
            site.publish("one")
            site.restart()
            site.wait(lambda: site.ended == [1001])
            site.publish("two")
            assert len(site.connected) == 1
            devtools.send("Page.setWebLifecycleState", {"state": "active"})
            page.wait("messages.length === 2")
            assert page.get("messages") == ["one", "two"]

    def test_a_page_connects_again_after_the_computer_was_suspended(self, context: Any) -> None:
        """It cannot know whether the server still has its connection."""
        with live_site() as site:
            page = Page(context, site, clock=True)
            page.wait_state("open")
            site.publish("one")
            page.wait("messages.length === 1")
            page.page.clock.fast_forward(80_000)
            assert len(site.connected) == 1
            page.page.clock.fast_forward(100_000)
            site.wait(lambda: site.ended == [1000])
            site.publish("two")
            page.wait("messages.length === 2")
            assert len(site.connected) == 2

    def test_a_hidden_page_connects_at_once_when_it_is_shown(self, context: Any) -> None:
        """Instead of waiting for the next attempt."""
        with live_site() as site:
            page = Page(context, site, clock=True)
            page.wait_state("open")
            page.page.evaluate("Math.random = () => 1")
            page.page.clock.pause_at(page.page.evaluate("Date.now() / 1000 + 1"))
            site.restart()
            page.wait_state("connecting")
            site.publish("missed")
            assert len(site.connected) == 1
            page.page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
            page.wait("messages.length === 1")

    def test_a_server_that_does_not_confirm_is_tried_again(self, context: Any) -> None:
        with live_site() as site:
            site.silent = True
            page = Page(context, site, clock=True)
            site.wait(lambda: len(site.connected) == 1)
            page.page.clock.run_for(10_000)
            assert len(site.connected) == 1
            site.silent = False
            page.page.clock.run_for(12_000)
            page.wait_state("open")
            site.wait(lambda: site.ended == [1000])


def run_node(*arguments: str) -> Any:
    """Run a script, and return the JSON that it prints."""
    command = [*find_node_with_websocket(), *arguments]
    done = subprocess.run(  # noqa: S603
        command, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_delays_grow_up_to_a_limit_and_are_reset_by_a_stable_connection() -> None:
    """Also the close codes: all but 1000 and 1008 lead to another attempt."""
    assert run_node(str(NODE / "attempts.mjs"), MODULE.as_uri()) == {
        "delays": [1000, 2000, 4000, 8000, 16000, 30000, 30000],
        "unstable": [2000, 4000],
        "stable": 1000,
        "jitter": [0, 250, 500],
        "retried": [1001, 1006, 1011, 1012, 1013, 4000],
        "ended": [1000, 1008],
        "refused": [1000, 2000],
    }


def test_handlers_may_close_the_feed_or_throw() -> None:
    """A gap is reported in any case, and does not end before it began."""
    assert run_node(str(NODE / "handlers.mjs"), MODULE.as_uri()) == {
        "early": "cannot send: the feed is connecting",
        "closing": "",
        "states": ["connecting", "closed"],
        "closed": [True],
        "gaps": [5, 0],
    }


@pytest.mark.slow
def test_module_in_node_resumes_after_an_id() -> None:
    """A query ``after`` is the last message that the program has."""
    with live_site() as site:
        site.publish("one", "two", b"\xff")
        script = (NODE / "receive.mjs", MODULE.as_uri(), f"{site.url}news")
        first = run_node(*map(str, script), "0-0", "3")
        assert [data for data, _ in first] == ["one", "two", {"0": 255}]
        rest = run_node(*map(str, script), first[0][1], "2")
        assert rest == first[1:]


@pytest.mark.slow
def test_types(tmp_path: Path) -> None:
    """The compiler accepts the module and a page that uses it, and finds mistakes of the page."""
    modules = install_packages(NODE)
    shutil.copy(MODULE, tmp_path)
    shutil.copy(NODE / "page.ts", tmp_path)
    command = [find_node(), str(modules / "typescript/bin/tsc")]
    command += [
        "--allowJs",
        "--checkJs",
        "--strict",
        "--skipLibCheck",
        "--target",
        "es2022",
        "--module",
        "es2022",
    ]
    command += ["--moduleResolution", "bundler", "--lib", "es2022,dom"]
    command += ["--declaration", "--emitDeclarationOnly", "--outDir", "types", "page.ts"]
    done = subprocess.run(  # noqa: S603
        command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout
    assert "function subscribe(" in (tmp_path / "types/trioglock.d.ts").read_text()


def test_browsers_cache_the_module() -> None:
    """A second request receives 304, also from behind a proxy that compresses."""
    with live_site() as site:
        request = urllib.request.Request(f"{site.url}trioglock.js", method="HEAD")  # noqa: S310
        with urllib.request.urlopen(request, timeout=SECONDS) as response:  # noqa: S310
            headers = response.headers
    assert headers["Content-Type"] == "text/javascript; charset=utf-8"
    assert int(headers["Content-Length"]) == MODULE.stat().st_size
    for known, status in (
        (headers["ETag"], 304),
        (f'"other", W/{headers["ETag"]}', 304),
        ('"other"', 200),
    ):
        response = browser_module(Request(target="/", headers=Headers({"If-None-Match": known})))
        assert response.status == status
        assert response.headers["ETag"] == headers["ETag"]
