"""Fixtures of the tests of channels."""

from __future__ import annotations

from tests.protocols.phoenix.test_javascript import node  # noqa: F401 - a fixture
from tests.pubsub.conftest import redis  # noqa: F401 - a fixture
