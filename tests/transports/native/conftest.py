"""What the tests of the codec share."""

from __future__ import annotations

import pytest


@pytest.fixture(params=[False, True], ids=["from a server", "from a client"])
def masked(request: pytest.FixtureRequest) -> bool:
    """Both roles of the peer: clients mask their frames, servers do not."""
    return bool(request.param)
