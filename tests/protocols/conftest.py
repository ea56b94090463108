"""Lets the marks of :mod:`tests.protocols.clock` take precedence."""

from __future__ import annotations

from collections.abc import Sequence

import pytest


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    for item in items:
        # The first mark is the one that trio_mode adds to every async test.
        for mark in list(item.iter_markers("trio"))[1:2]:
            item.add_marker(pytest.mark.trio(**mark.kwargs), append=False)
