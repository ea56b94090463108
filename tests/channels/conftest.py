"""Fixtures of the tests of channels."""

from __future__ import annotations

from tests.pubsub.conftest import redis  # noqa: F401 - a fixture
