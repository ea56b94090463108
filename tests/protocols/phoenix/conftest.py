"""Fixtures of the tests of Phoenix."""

from __future__ import annotations

import pytest

from tests.protocols.phoenix.helpers import KINDS, Scripted, scripted_server


@pytest.fixture(params=KINDS)
def scripted(request: pytest.FixtureRequest) -> Scripted:
    """Scripted servers over each kind of transport."""
    return scripted_server(request.param)


@pytest.fixture
def in_memory() -> Scripted:
    """Scripted servers in memory."""
    return scripted_server("memory")
