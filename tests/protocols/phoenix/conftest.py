"""What the tests of Phoenix share."""

from __future__ import annotations

import pytest

from tests.protocols.phoenix.conversation import KINDS, Conversation, conversation


@pytest.fixture(params=KINDS)
def talk(request: pytest.FixtureRequest) -> Conversation:
    """Conversations over each kind of transport."""
    return conversation(request.param)


@pytest.fixture
def remember() -> Conversation:
    """Conversations in memory, for tests that ask for autojump_clock."""
    return conversation("memory")
