"""The pictures of the state machines are those of the tables in the code."""

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

DIAGRAMS = {
    diagram.name: diagram for diagram in runpy.run_path(str(ROOT / "docs/diagrams.py"))["DIAGRAMS"]
}


@pytest.mark.parametrize("name", DIAGRAMS)
def test_the_committed_files_are_up_to_date(name: str) -> None:
    """The graph is the one that the table gives, and the picture was made of that graph."""
    DIAGRAMS[name].check()


def test_a_changed_table_is_noticed() -> None:
    """One row more, and the files are no longer those of the table."""
    rows: Mapping[Any, Any] = {**closing.TRANSITIONS, Status.CLOSED: {Status.OPEN: "a miracle"}}
    changed = replace(DIAGRAMS["connection"], transitions=rows)
    with pytest.raises(AssertionError, match=r"run python docs/diagrams\.py"):
        changed.check()


@pytest.mark.parametrize("name", DIAGRAMS)
def test_a_picture_shows_its_states(name: str) -> None:
    """Every state has its box, with the words of each row between them."""
    picture = (ROOT / f"docs/images/{name}.svg").read_text(encoding="utf-8")
    shown = " ".join(re.findall(r"<text[^>]*>([^<]*)</text>", picture)).replace("&#45;", "-")
    words = set(re.findall(r"\w+", shown))
    for state, following in DIAGRAMS[name].transitions.items():
        assert state.name in words
        for why in following.values():
            assert set(re.findall(r"\w+", why)) <= words


def test_every_picture_is_on_a_page() -> None:
    """The documents show them where their states are explained."""
    pages = {
        "connection": "docs/reference/trioglock.md",
        "phoenix_channel": "docs/phoenix.md",
        "gossip_client": "docs/gossip.md",
    }
    for name, page in pages.items():
        assert f"images/{name}.svg" in " ".join(Page(page).links())
    assert pages.keys() == DIAGRAMS.keys()
