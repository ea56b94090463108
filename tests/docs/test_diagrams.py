"""The diagrams of the state machines match the tables in the code."""

from __future__ import annotations

import re
import runpy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from tests.docs.pages import Page
from tests.scripts import ROOT
from trioglock import Status
from trioglock.connection import closing

pytestmark = pytest.mark.docs

DIAGRAMS = {
    diagram.name: diagram for diagram in runpy.run_path(str(ROOT / "docs/diagrams.py"))["DIAGRAMS"]
}


@pytest.mark.parametrize("name", DIAGRAMS)
def test_the_committed_files_are_up_to_date(name: str) -> None:
    DIAGRAMS[name].check()


def test_a_changed_table_is_detected() -> None:
    diagram = DIAGRAMS["connection"]
    rows: Mapping[Any, Any] = {**diagram.transitions, Status.CLOSED: {Status.OPEN: "impossible"}}
    changed = replace(diagram, transitions=rows)
    with pytest.raises(AssertionError, match=r"run python docs/diagrams\.py"):
        changed.check()


def test_every_change_of_the_status_is_drawn() -> None:
    """Also if two triggers lead to the same status, of which a diagram could show only one."""
    drawn = DIAGRAMS["connection"].transitions
    for status, changes in closing.TRANSITIONS.items():
        causes = [drawn[status][following] for following in changes.values()]
        assert causes == [trigger.value for trigger in changes]


@pytest.mark.parametrize("name", DIAGRAMS)
def test_a_picture_shows_all_states_and_causes(name: str) -> None:
    picture = (ROOT / f"docs/images/{name}.svg").read_text(encoding="utf-8")
    text = " ".join(re.findall(r"<text[^>]*>([^<]*)</text>", picture)).replace("&#45;", "-")
    words = set(re.findall(r"\w+", text))
    for state, following in DIAGRAMS[name].transitions.items():
        assert state.name in words
        for why in following.values():
            assert set(re.findall(r"\w+", why)) <= words


@pytest.mark.parametrize(
    ("name", "page"),
    [
        ("connection", "docs/reference/connection.md"),
        ("phoenix_channel", "docs/phoenix.md"),
        ("gossip_client", "docs/gossip.md"),
    ],
)
def test_every_picture_is_on_a_page(name: str, page: str) -> None:
    assert f"images/{name}.svg" in " ".join(Page(page).links())
