"""The example of a chat, in Chromium. Two processes serve it, with Redis."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import trio

from tests.browser import browser, example, expect, keep_screenshot
from tests.node_packages import install_packages
from tests.pubsub.redis_server import RealRedis, find_port, real_redis
from tests.scripts import ROOT
from trioglock.protocols import phoenix

__all__ = ["browser"]

pytestmark = [pytest.mark.browser, pytest.mark.slow]

CHAT = "examples/chat/chat.py"
KEY = "secret"
DESKTOP = {"width": 1180, "height": 720}
PHONE = {"width": 360, "height": 720}

Enter = Callable[..., Any]


@pytest.fixture(scope="module", autouse=True)
def phoenix_js() -> None:
    """Install phoenix.js as the example says."""
    install_packages(ROOT / "examples" / "chat")


@pytest.fixture(scope="module")
def redis() -> Iterator[RealRedis]:
    with real_redis() as server:
        yield server


class Chat:
    """Two processes that are one chat."""

    def __init__(self, stack: ExitStack, redis: RealRedis) -> None:
        self._env = {"REDIS_URL": redis.url, "MODERATOR_KEY": KEY}
        _, self.one = stack.enter_context(example(CHAT, PORT="0", **self._env))
        self._second = stack.enter_context(ExitStack())
        self._port = str(find_port())
        self.two = self.start_second()

    def start_second(self) -> str:
        """Start the second process, and return its URL."""
        _, url = self._second.enter_context(example(CHAT, PORT=self._port, **self._env))
        return url

    def stop_second(self) -> None:
        self._second.close()


@pytest.fixture(scope="module")
def chat(redis: RealRedis) -> Iterator[Chat]:
    """Two processes for all tests of this module, which use rooms of their own."""
    with ExitStack() as stack:
        yield Chat(stack, redis)


@pytest.fixture(scope="module")
def open_chat(browser: Any) -> Iterator[tuple[Enter, list[str]]]:
    """Lets people enter rooms, each in a browser of their own; and the errors of all pages."""
    errors: list[str] = []

    def watch(page: Any) -> None:
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("dialog", lambda dialog: errors.append(dialog.message))
        page.on("console", lambda message: note_message(message.text))

    def note_message(text: str) -> None:
        if "net::" not in text:  # Chromium reports lost connections, too
            errors.append(text)

    def enter(url: str, room: str, name: str, key: str = "", **options: Any) -> Any:
        context = browser.new_context(**{"viewport": DESKTOP, **options})
        context.on("page", watch)
        page = context.new_page()
        page.goto(f"{url}rooms/{quote(room)}{f'#moderator={key}' if key else ''}")
        page.fill("#name", name)
        page.press("#name", "Enter")
        expect(page.locator("#connection")).to_have_text("Connected")
        return page

    yield enter, errors
    for context in browser.contexts:
        context.close()


@pytest.fixture
def enter(open_chat: tuple[Enter, list[str]]) -> Iterator[Enter]:
    """Lets people enter rooms for one test."""
    pages: list[Any] = []

    def enter(*arguments: Any, **options: Any) -> Any:
        pages.append(open_chat[0](*arguments, **options))
        return pages[-1]

    yield enter
    for page in pages:
        page.context.close()


@pytest.fixture(autouse=True)
def no_errors(open_chat: tuple[Enter, list[str]]) -> Iterator[None]:
    """No page may have an error, show a dialog of the browser, or write to the console."""
    yield
    assert open_chat[1] == []


@pytest.fixture(scope="module")
def ann(open_chat: tuple[Enter, list[str]], chat: Chat) -> Any:
    """The page of a moderator, at the first process."""
    return open_chat[0](chat.one, "garden", "Ann", KEY)


@pytest.fixture(scope="module")
def bob(open_chat: tuple[Enter, list[str]], chat: Chat) -> Any:
    """A page at the second process."""
    return open_chat[0](chat.two, "garden", "Bob")


@pytest.fixture(scope="module")
def eve(open_chat: tuple[Enter, list[str]], chat: Chat) -> Any:
    """The page of a person with a phone, at the second process."""
    return open_chat[0](chat.two, "garden", "Eve", viewport=PHONE, has_touch=True)


def go(room: str, *pages: Any) -> None:
    """Open a room in pages."""
    for page in pages:
        page.fill("#find-room", room)
        page.press("#find-room", "Enter")
        expect(page.locator("#title")).to_have_text(room)
    for page in pages:
        expect(people(page).filter(has_text="you")).to_have_count(1)


def rename(page: Any, name: str) -> None:
    page.click("#me")
    page.fill("#new-name", name)
    page.press("#new-name", "Enter")


def say(page: Any, text: str) -> None:
    """Write a message, and wait until the server has confirmed it."""
    page.fill("#text", text)
    page.press("#text", "Enter")
    expect(texts(page).last).to_have_text(text)
    expect(page.locator(".pending")).to_have_count(0)


def texts(page: Any) -> Any:
    """The texts of the messages on a page."""
    return page.locator(".message .text")


def people(page: Any) -> Any:
    """The people on a page."""
    return page.locator("#people .who")


def assert_removed(page: Any) -> None:
    expect(page.get_by_role("heading", level=1)).to_have_text("You were removed")
    expect(page.locator("#chat")).to_be_hidden()


def remove(page: Any, name: str) -> None:
    page.get_by_role("button", name=f"Remove {name}").click()
    page.get_by_role("dialog").get_by_role("button", name="Remove").click()


TALK = [
    ("Ann", "Good morning! The tomatoes on the south wall are ripe."),
    ("Ann", "Who can help with picking, tomorrow at ten?"),
    ("Bob", "I can, but only until noon."),
    ("Eve", "Me too. I bring the baskets."),
    ("Bob", "Last year's plan is here: https://garden.example/plan?year=2025"),
    ("Ann", "Wonderful, thank you both.\nThe gate will be open from nine."),
]


def test_people_talk(ann: Any, bob: Any, eve: Any, tmp_path: Path) -> None:
    """All see the messages once and in order, and in other rooms how many are unread."""
    pages = {"Ann": ann, "Bob": bob, "Eve": eve}
    expect(ann.locator("#empty h2")).to_have_text("No messages yet")
    for name, text in TALK:
        say(pages[name], text)
    for page in pages.values():
        expect(texts(page)).to_have_text([text for _, text in TALK])
        authors = page.locator(".message:not(.continues) .author")
        expect(authors).to_have_text(["Ann", "Bob", "Eve", "Bob", "Ann"])
        expect(page.get_by_role("link", name="garden.example")).to_have_attribute(
            "href", "https://garden.example/plan?year=2025"
        )
    # For screen readers.
    expect(eve.locator("#announcer p")).to_have_text(
        [f"{name}: {text}" for name, text in TALK if name != "Eve"]
    )

    go("bicycles", ann)
    go("library", bob)
    go("kitchen", bob)
    expect(ann.locator("#other-rooms .name")).to_have_text(["kitchen", "library"])
    ann.locator("#other-rooms button").first.click()
    expect(ann.locator("#title")).to_have_text("kitchen")
    ann.locator("#rooms button", has_text="garden").click()
    say(bob, "Soup is ready!")
    expect(ann.locator("#rooms .unread")).to_contain_text("kitchen1 unread")
    expect(ann).to_have_title("(1) garden · Chat")
    eve.locator("#text").press_sequentially("I")
    expect(ann.locator("#typing")).to_have_text("Eve is typing…")
    keep_screenshot(ann, "chat", tmp_path)
    ann.emulate_media(color_scheme="dark")
    keep_screenshot(ann, "chat_dark", tmp_path)
    ann.emulate_media(color_scheme="light")
    keep_screenshot(eve, "chat_phone", tmp_path)

    ann.go_back()
    expect(texts(ann)).to_have_text(["Soup is ready!"])
    expect(ann.locator(".divider")).to_have_text(["New", "Today"])
    expect(ann).to_have_title("kitchen · Chat")


def test_a_person_with_several_tabs_is_shown_once(ann: Any, bob: Any) -> None:
    go("tabs", ann, bob)
    expect(people(ann)).to_have_text(["Annyou · moderator", "Bob"])
    tab = bob.context.new_page()
    tab.goto(bob.url)  # it knows the name
    expect(people(ann)).to_have_text(["Annyou · moderator", "Bob2 tabs"])
    say(tab, "from a tab")
    expect(bob.locator(".own .text")).to_have_text("from a tab")
    tab.close()
    expect(people(ann)).to_have_text(["Annyou · moderator", "Bob"])
    for name in ("Robert", "Bob"):
        rename(bob, name)
        expect(people(ann)).to_have_text(["Annyou · moderator", name])
    bob.click("#leave")
    expect(people(ann)).to_have_text(["Annyou · moderator"])


def test_typing_is_shown_for_a_while(ann: Any, bob: Any) -> None:
    """It disappears with the message, or some seconds after the last key."""
    go("typing", ann, bob)
    bob.clock.install()
    typing = ann.locator("#typing")
    bob.locator("#text").press_sequentially("Hi")
    expect(typing).to_have_text("Bob is typing…")
    say(bob, "Hi")
    expect(typing).to_have_text("")
    bob.locator("#text").press_sequentially("...")
    expect(typing).to_have_text("Bob is typing…")
    bob.clock.fast_forward(3100)
    expect(typing).to_have_text("")
    bob.fill("#text", "")


def test_a_newcomer_sees_the_history(ann: Any, bob: Any) -> None:
    """Nothing of it is new; a reload shows the same."""
    go("history", ann)
    messages = [f"message {number}" for number in range(3)]
    for text in messages:
        say(ann, text)
    go("history", bob)
    for _ in range(2):
        expect(texts(bob)).to_have_text(messages)
        expect(bob.locator(".divider")).to_have_text(["Today"])
        expect(bob.locator("#announcer p")).to_have_count(0)
        bob.reload()


def test_a_moderator_removes_a_person(chat: Chat, ann: Any, enter: Enter) -> None:
    """All tabs are disconnected and cannot come back, at both processes; others may not do this."""
    assert KEY not in ann.url
    go("removal", ann)
    max_ = enter(chat.two, "removal", "Max")
    tab = max_.context.new_page()
    tab.goto(max_.url)
    expect(people(max_)).to_have_text(["Maxyou · 2 tabs", "Annmoderator"])
    expect(max_.locator("#people button")).to_have_count(0)
    trio.run(remove_without_permission, chat.two, "room:removal")
    remove(ann, "Max")
    assert_removed(max_)
    assert_removed(tab)
    expect(people(ann)).to_have_text(["Annyou · moderator"])
    expect(ann.locator(".divider")).to_have_text("Ann removed Max")
    max_.get_by_role("button", name="Try again").click()
    assert_removed(max_)


async def remove_without_permission(url: str, topic: str) -> None:
    """Push what the page of a moderator would push."""
    socket = url.replace("http", "ws") + "socket"
    params = {"name": "Eve"}
    async with phoenix.connect(socket, params=params, auth_token="e" * 32) as client:
        room = await client.join(topic)
        for person in room.response["id"], "other":
            reply = await room.push("remove", {"id": person, "name": "Bob"})
            assert reply.status == "error"


def test_the_page_reconnects_after_a_restart_of_the_server(chat: Chat, ann: Any, bob: Any) -> None:
    """Nothing is lost; what could not be sent in ten seconds can be sent again."""
    go("restart", ann, bob)
    say(bob, "before")
    bob.clock.install()
    bob.clock.pause_at(datetime.now(UTC) + timedelta(seconds=1))
    chat.stop_second()
    connection, banner = bob.locator("#connection"), bob.locator("#banner")
    expect(connection).to_have_text("Reconnecting…")
    expect(banner).to_be_visible()
    expect(people(ann)).to_have_count(1)
    say(ann, "missed")
    for text in ("early", "late"):
        bob.fill("#text", text)
        bob.press("#text", "Enter")
        expect(bob.locator(".pending time").last).to_have_text("sending…")
        if text == "early":
            bob.clock.fast_forward(11_000)
    expect(bob.get_by_role("alert")).to_contain_text("Not sent: there is no connection.")
    chat.start_second()
    bob.clock.run_for(6000)  # within the ten seconds that "late" waits
    expect(connection).to_have_text("Connected")
    expect(banner).to_be_hidden()
    expect(people(ann)).to_have_count(2)
    expect(bob.locator(".message:not(.pending) .text")).to_have_text(["before", "missed", "late"])
    bob.get_by_role("button", name="Try again").click()
    for page in (ann, bob):
        expect(texts(page)).to_have_text(["before", "missed", "late", "early"])
    expect(bob.locator(".pending")).to_have_count(0)
    bob.clock.resume()


HOSTILE = '<img src=x onerror="alert(1)"><script>alert(2)</script>'


def test_hostile_text_is_only_text(chat: Chat, ann: Any, bob: Any) -> None:
    """In names, rooms and messages; a link is a link only with http or https."""
    room, name = HOSTILE[:40], HOSTILE[14:54]
    rename(bob, name)
    go(room, bob)
    go("__proto__", ann)
    ann.locator("#other-rooms button", has_text="<img").click()
    expect(ann.locator("#title")).to_have_text(room)
    expect(people(ann)).to_have_text(["Annyou · moderator", name])
    for text in (HOSTILE, "javascript:alert(3) https://example.org/?a=1&b=2.", "a" * 4000):
        say(bob, text)
        expect(texts(ann).last).to_have_text(text)
    expect(ann.get_by_role("link", name="http")).to_have_attribute(
        "href", "https://example.org/?a=1&b=2"
    )
    expect(ann.locator("#room img, #room script, #people img, #rooms img")).to_have_count(0)
    assert ann.evaluate("document.documentElement.scrollWidth") == DESKTOP["width"]
    bob.goto(f"{chat.two}rooms/{'r' * 41}")
    expect(bob.locator("#empty h2")).to_have_text("You cannot join this room")
    expect(bob.locator("#text")).to_be_disabled()
    bob.click("#leave")
    rename(bob, "Bob")


def test_a_phone_shows_lists_as_panels(eve: Any) -> None:
    """Nothing scrolls sideways, whatever its length; the keyboard opens and closes the panels."""
    eve.keyboard.press("Control+K")
    expect(eve.get_by_label("Find or open a room")).to_be_focused()
    eve.keyboard.type("phone" + "o" * 35)
    eve.keyboard.press("Enter")
    expect(eve.locator("#title")).to_have_text("phone" + "o" * 35)
    for text in ("w" * 1000, "many words " * 300, "https://example.org/" + "x" * 300):
        say(eve, text.strip())
    assert eve.locator("#log").evaluate("log => log.scrollWidth === log.clientWidth")
    for name, panel in (("Rooms", "#rooms-panel"), ("People: 1", "#people-panel")):
        opener = eve.get_by_role("button", name=name)
        expect(eve.locator(panel)).to_be_hidden()
        opener.press("Enter")
        expect(eve.locator(panel)).to_be_visible()
        expect(eve.locator(panel).get_by_role("button", name="Close")).to_be_focused()
        assert eve.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
        eve.keyboard.press("Escape")
        expect(eve.locator(panel)).to_be_hidden()
        expect(opener).to_be_focused()
    assert eve.evaluate("document.documentElement.scrollWidth") == PHONE["width"]


CONTRASTS = """() => {
  const context = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const colour = value => {
    context.clearRect(0, 0, 1, 1);
    context.fillStyle = value;
    context.fillRect(0, 0, 1, 1);
    return context.getImageData(0, 0, 1, 1).data;
  };
  const light = ([red, green, blue]) => [red, green, blue].reduce((sum, byte, index) => {
    const value = byte / 255;
    const linear = value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
    return sum + [0.2126, 0.7152, 0.0722][index] * linear;
  }, 0);
  const background = shown => {
    for (let at = shown; at; at = at.parentElement) {
      const value = colour(getComputedStyle(at).backgroundColor);
      if (value[3] === 255) return value;
    }
  };
  const found = [];
  const texts = document.createTreeWalker(document.querySelector("#chat"), NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const shown = texts.currentNode.parentElement;
    if (!texts.currentNode.data.trim() || !shown.checkVisibility()) continue;
    const [ink, paper] = [light(colour(getComputedStyle(shown).color)), light(background(shown))];
    const ratio = (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
    found.push([ratio, texts.currentNode.data]);
  }
  return found;
}"""


def test_text_is_readable_in_light_and_dark_mode(ann: Any, bob: Any) -> None:
    """With the contrast of WCAG 2, level AA, in every text."""
    go("contrast", ann, bob)
    say(bob, "Hello https://example.org")
    go("elsewhere", bob)
    expect(ann.locator("#other-rooms .name")).to_contain_text(["elsewhere"])
    for scheme in ("dark", "light"):
        ann.emulate_media(color_scheme=scheme)
        background = ann.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, re.findall(r"\d+", background))) > 382) is (scheme == "light")
        contrasts = ann.evaluate(CONTRASTS)
        assert {"Ann", "Bob", "Connected", "Your rooms"} <= {text for _, text in contrasts}
        assert [text for ratio, text in contrasts if ratio < 4.5] == []


def test_every_control_has_a_name(ann: Any) -> None:
    """For screen readers. A link leads to the message field."""
    for control in ann.locator("button:visible, input:visible, textarea:visible").all():
        assert control.evaluate(
            "node => (node.ariaLabel || node.labels?.[0]?.innerText || node.innerText).trim()"
        )
    ann.get_by_role("link", name="Skip to the message field").focus()
    ann.keyboard.press("Enter")
    expect(ann.get_by_role("textbox", name="Message")).to_be_focused()
