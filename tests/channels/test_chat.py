"""The example of a chat, in Chromium."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import trio

from tests.browser import browser, example, expect
from tests.node_packages import install_packages
from tests.pubsub.redis_server import RealRedis, find_port
from tests.scripts import ROOT
from trioglock.protocols import phoenix

__all__ = ["browser"]

pytestmark = [pytest.mark.browser, pytest.mark.slow]

CHAT = "examples/chat/chat.py"
KEY = "secret"
DESKTOP = {"width": 1180, "height": 720}
PHONE = {"width": 360, "height": 720}

Enter = Callable[..., Any]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The URL of a chat that runs for all tests of this module. Each test uses rooms of its own."""
    install_packages(ROOT / "examples" / "chat")
    with example(CHAT, "--port", "0", MODERATOR_KEY=KEY) as (_, url):
        yield url


@pytest.fixture
def enter(browser: Any) -> Iterator[Enter]:
    """Lets people enter rooms, each with a browser of their own. The pages must have no errors."""
    contexts: list[Any] = []
    errors: list[str] = []

    def watch(page: Any) -> None:
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("dialog", lambda dialog: errors.append(dialog.message))
        page.on(
            "console",
            # The network's messages are not those of the page.
            lambda message: "net::" in message.text or errors.append(message.text),
        )

    def enter(url: str, room: str, name: str, key: str = "", **options: Any) -> Any:
        context = browser.new_context(**{"viewport": DESKTOP, **options})
        contexts.append(context)
        context.on("page", watch)
        page = context.new_page()
        page.goto(f"{url}rooms/{quote(room, safe='')}{f'#moderator={key}' if key else ''}")
        page.fill("#name", name)
        page.press("#name", "Enter")
        expect(page.locator("#connection")).to_have_text("Connected")
        return page

    yield enter
    for context in contexts:
        context.close()
    assert errors == []


def say(page: Any, text: str) -> None:
    """Write a message, and wait until the server has confirmed it."""
    page.fill("#text", text)
    page.press("#text", "Enter")
    expect(page.locator(".message .text").last).to_have_text(text)
    expect(page.locator(".pending")).to_have_count(0)


def texts(page: Any) -> Any:
    """The texts of the messages on a page."""
    return page.locator(".message .text")


def people(page: Any) -> Any:
    """The people on a page."""
    return page.locator("#people .who")


def test_two_people_talk(url: str, enter: Enter) -> None:
    """Both see all messages once and in order; other rooms count what is unread."""
    ann, bob = enter(url, "talk", "Ann"), enter(url, "talk", "Bob")
    expect(ann.locator("#empty h2")).to_have_text("No messages yet")
    for page, text in ((ann, "Hello Bob!"), (ann, "Are you there?"), (bob, "Yes.\nHi!")):
        say(page, text)
    for page in (ann, bob):
        expect(texts(page)).to_have_text(["Hello Bob!", "Are you there?", "Yes.\nHi!"])
        expect(page.locator(".message:not(.continues) .author")).to_have_text(["Ann", "Bob"])
    expect(ann.locator("#announcer p")).to_have_text(["Bob: Yes.\nHi!"])  # for screen readers

    ann.fill("#find-room", "elsewhere")
    ann.press("#find-room", "Enter")
    expect(ann.locator("#title")).to_have_text("elsewhere")
    expect(bob.locator("#other-rooms .name")).to_contain_text(["elsewhere"])
    say(bob, "Where have you gone?")
    expect(ann.locator("#rooms .unread .name")).to_have_text("talk")
    expect(ann).to_have_title("(1) elsewhere · Chat")
    ann.go_back()
    expect(texts(ann).last).to_have_text("Where have you gone?")
    expect(ann.locator(".divider.new")).to_be_visible()
    expect(ann).to_have_title("talk · Chat")


def test_a_person_with_several_tabs_is_shown_once(url: str, enter: Enter) -> None:
    ann, bob = enter(url, "tabs", "Ann"), enter(url, "tabs", "Bob")
    expect(people(ann)).to_have_text(["Annyou", "Bob"])
    tab = bob.context.new_page()
    tab.goto(bob.url)  # it knows the name
    expect(people(ann)).to_have_text(["Annyou", "Bob2 tabs"])
    say(tab, "from a tab")
    expect(bob.locator(".own .text")).to_have_text("from a tab")
    bob.close()
    expect(people(ann)).to_have_text(["Annyou", "Bob"])
    tab.click("#me")
    tab.fill("#new-name", "Robert")
    tab.press("#new-name", "Enter")
    expect(people(ann)).to_have_text(["Annyou", "Robert"])
    tab.click("#leave")
    expect(tab.locator("#empty h2")).to_have_text("No room")
    expect(people(ann)).to_have_text(["Annyou"])


def test_typing_is_shown_for_a_while(url: str, enter: Enter) -> None:
    """It disappears with the message, or some seconds after the last key."""
    ann, bob = enter(url, "typing", "Ann"), enter(url, "typing", "Bob")
    expect(people(ann)).to_have_count(2)
    ann.clock.install()
    typing = ann.locator("#typing")
    bob.locator("#text").press_sequentially("Hi")
    expect(typing).to_have_text("Bob is typing…")
    say(bob, "Hi")
    expect(typing).to_have_text("")
    bob.locator("#text").press_sequentially("...")
    expect(typing).to_have_text("Bob is typing…")
    ann.clock.fast_forward(4600)
    expect(typing).to_have_text("")


def test_a_newcomer_sees_the_history(url: str, enter: Enter) -> None:
    """Nothing of it is new; a reload shows the same."""
    ann = enter(url, "history", "Ann")
    for number in range(3):
        say(ann, f"message {number}")
    bob = enter(url, "history", "Bob")
    for _ in range(2):
        expect(texts(bob)).to_have_text([f"message {number}" for number in range(3)])
        expect(bob.locator(".divider")).to_have_text(["Today"])
        bob.reload()
    say(bob, "I have read it")
    expect(texts(ann)).to_have_count(4)


def test_a_moderator_removes_a_person(url: str, enter: Enter) -> None:
    """All tabs are disconnected and cannot come back; only moderators may do this."""
    ann = enter(url, "removal", "Ann", KEY)
    assert KEY not in ann.url
    bob = enter(url, "removal", "Bob")
    tab = bob.context.new_page()
    tab.goto(bob.url)
    expect(people(bob)).to_have_text(["Bobyou · 2 tabs", "Annmoderator"])
    expect(bob.locator("#people button")).to_have_count(0)
    trio.run(remove_without_permission, url, "room:removal")

    ann.get_by_role("button", name="Remove Bob").click()
    ann.get_by_role("dialog").get_by_role("button", name="Remove").click()
    for page in (bob, tab):
        expect(page.get_by_role("heading", level=1)).to_have_text("You were removed")
        expect(page.locator("#chat")).to_be_hidden()
    expect(people(ann)).to_have_text(["Annyou · moderator"])
    expect(ann.locator(".divider")).to_have_text("Ann removed Bob")
    bob.get_by_role("button", name="Try again").click()
    expect(bob.get_by_role("heading", level=1)).to_have_text("You were removed")


async def remove_without_permission(url: str, topic: str) -> None:
    """Push what the page of a moderator would push."""
    socket = url.replace("http", "ws") + "socket"
    params = {"name": "Eve"}
    async with phoenix.connect(socket, params=params, auth_token="e" * 32) as client:
        room = await client.join(topic)
        for person in room.response["id"], "other":
            reply = await room.push("remove", {"id": person, "name": "Bob"})
            assert reply.status == "error"


def test_the_page_reconnects_after_a_restart_of_the_server(enter: Enter, tmp_path: Path) -> None:
    """What was written in the meantime is sent, or can be sent again."""
    install_packages(ROOT / "examples" / "chat")
    port = str(find_port())
    with example(CHAT, "--port", port) as (_, url):
        ann, bob = enter(url, "restart", "Ann"), enter(url, "restart", "Bob")
        say(ann, "before")
        expect(texts(bob)).to_have_text(["before"])
        bob.clock.install()
    for page in (ann, bob):
        expect(page.locator("#connection")).to_have_text("Reconnecting…")
        expect(page.locator("#banner")).to_be_visible()
    for page in (ann, bob):
        page.fill("#text", "meanwhile")
        page.press("#text", "Enter")
    expect(bob.locator(".pending time")).to_have_text("sending…")
    bob.clock.fast_forward(11_000)
    expect(bob.get_by_role("alert")).to_contain_text("Not sent: there is no connection.")
    with example(CHAT, "--port", port):
        bob.clock.run_for(10_000)
        for page in (ann, bob):
            expect(page.locator("#connection")).to_have_text("Connected")
            expect(page.locator("#banner")).to_be_hidden()
            expect(people(page)).to_have_count(2)
        expect(texts(ann)).to_have_text(["before", "meanwhile"])
        expect(ann.locator(".pending")).to_have_count(0)
        bob.get_by_role("button", name="Try again").click()
        expect(texts(ann)).to_have_text(["before", "meanwhile", "meanwhile"])
        expect(bob.locator(".pending")).to_have_count(0)


HOSTILE = '<img src=x onerror="alert(1)"><script>alert(2)</script>'


def test_hostile_text_is_only_text(url: str, enter: Enter) -> None:
    """In names, rooms and messages; a link is a link only with http or https."""
    evil = enter(url, HOSTILE[:40], HOSTILE[:40])
    ann = enter(url, HOSTILE[:40], "__proto__")
    for text in (
        HOSTILE,
        "javascript:alert(3) https://example.org/?a=1&b=2.",
        "\u202eabc",
        "a" * 4000,
    ):
        say(evil, text)
        expect(texts(ann).last).to_have_text(text)
    expect(ann.locator("#title")).to_have_text(HOSTILE[:40])
    expect(people(ann)).to_have_text(["__proto__you", HOSTILE[:40]])
    expect(ann.locator("#room img, #room script, #people img, #rooms img")).to_have_count(0)
    links = ann.locator("#messages a, ol a")
    expect(links).to_have_attribute("href", "https://example.org/?a=1&b=2")
    assert ann.evaluate("document.documentElement.scrollWidth") == DESKTOP["width"]
    too_long = enter(url, "r" * 41, "Ann")
    expect(too_long.locator("#empty h2")).to_have_text("You cannot join this room")
    expect(too_long.locator("#text")).to_be_disabled()


def test_a_phone_shows_lists_as_panels(url: str, enter: Enter) -> None:
    """Nothing scrolls sideways, whatever its length; the keyboard opens and closes the panels."""
    room = "phone" + "o" * 35
    page = enter(url, room, "W" * 40, viewport=PHONE, has_touch=True)
    for text in ("w" * 4000, "many words " * 300, "https://example.org/" + "x" * 300):
        say(page, text.strip())
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    rooms, others = page.locator("#rooms-panel"), page.locator("#people-panel")
    for name, panel in (("Rooms", rooms), ("People: 1", others)):
        opener = page.get_by_role("button", name=name)
        expect(panel).to_be_hidden()
        opener.press("Enter")
        expect(panel).to_be_visible()
        expect(panel.get_by_role("button", name="Close")).to_be_focused()
        assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
        page.keyboard.press("Escape")
        expect(panel).to_be_hidden()
        expect(opener).to_be_focused()
    page.keyboard.press("Control+K")
    expect(page.get_by_label("Find or open a room")).to_be_focused()
    page.keyboard.type("another")
    page.keyboard.press("Enter")
    expect(rooms).to_be_hidden()
    expect(page.locator("#title")).to_have_text("another")


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


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_readable_in_light_and_dark_mode(url: str, enter: Enter, scheme: str) -> None:
    """With the contrast of WCAG 2, level AA, in every text."""
    page, other = (enter(url, scheme, name, color_scheme=scheme) for name in ("Ann", "Bob"))
    say(other, "Hello https://example.org")
    other.click("#leave")
    enter(url, f"{scheme} too", "Eve")
    expect(page.locator("#other-rooms .name")).to_contain_text([f"{scheme} too"])
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", background))) > 382) is (scheme == "light")
    contrasts = page.evaluate(CONTRASTS)
    assert {"Ann", "Bob", "Connected", "Your rooms"} <= {text for _, text in contrasts}
    assert [text for ratio, text in contrasts if ratio < 4.5] == []


def test_every_control_has_a_name(url: str, enter: Enter) -> None:
    """For screen readers. A link leads to the message field."""
    page = enter(url, "controls", "Ann")
    say(page, "hello")
    for control in page.locator("button:visible, input:visible, textarea:visible").all():
        assert page.evaluate(
            "node => (node.ariaLabel || node.labels?.[0]?.innerText || node.innerText).trim()",
            control.element_handle(),
        )
    page.get_by_role("link", name="Skip to the message field").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("textbox", name="Message")).to_be_focused()


def test_two_processes_are_one_chat(redis: RealRedis, enter: Enter) -> None:
    """With Redis: messages, presence, typing, rooms, and the removal of a person."""
    install_packages(ROOT / "examples" / "chat")
    env = {"REDIS_URL": redis.url, "MODERATOR_KEY": KEY}
    with example(CHAT, "--port", "0", **env) as (_, one):
        with example(CHAT, "--port", "0", **env) as (_, two):
            ann, bob = enter(one, "garden", "Ann", KEY), enter(two, "redis", "Bob")
            expect(ann.locator("#other-rooms .name")).to_have_text(["redis"])
            ann.click("#other-rooms button")
            expect(people(bob)).to_have_text(["Bobyou", "Annmoderator"])
            bob.locator("#text").press_sequentially("Hi")
            expect(ann.locator("#typing")).to_have_text("Bob is typing…")
            say(bob, "Hi")
            say(ann, "Hello")
            for page in (ann, bob):
                expect(texts(page)).to_have_text(["Hi", "Hello"])
            ann.get_by_role("button", name="Remove Bob").click()
            ann.get_by_role("dialog").get_by_role("button", name="Remove").click()
            expect(bob.get_by_role("heading", level=1)).to_have_text("You were removed")
            bob.get_by_role("button", name="Try again").click()
            expect(bob.get_by_role("heading", level=1)).to_have_text("You were removed")
            expect(people(ann)).to_have_text(["Annyou · moderator"])
