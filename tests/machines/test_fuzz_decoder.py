"""The atheris target, run with hypothesis instead."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.machines.fuzz_decoder import check, seeds
from trioglock.transports.native import Decoder


@pytest.mark.slow
@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.one_of(st.binary(max_size=80), st.sampled_from(seeds())), st.binary(max_size=8))
def test_any_bytes_decode_the_same_in_any_chunks(data: bytes, more: bytes) -> None:
    """The decoder does not raise and stays within its limits."""
    check(data + more)


def test_the_target_detects_a_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    """A decoder that loses its state between chunks fails."""
    feed = Decoder.feed

    def forgetful(self: Decoder, chunk: bytes) -> object:
        self._rest = b""
        return feed(self, chunk)

    monkeypatch.setattr(Decoder, "feed", forgetful)
    with pytest.raises(AssertionError):
        for data in seeds():
            check(data)
