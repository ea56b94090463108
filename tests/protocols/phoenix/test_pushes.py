"""Timers: the deadlines of the state machine."""

from __future__ import annotations

import math

import hypothesis.strategies as st
import pytest
from hypothesis import given

from trioglock.protocols.phoenix.pushes import Timers

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("set"), st.integers(0, 9), st.floats(0, 100)),
        st.tuples(st.just("cancel"), st.integers(0, 9), st.just(0.0)),
        st.tuples(st.just("expire"), st.just(0), st.floats(0, 100)),
    )
)


@pytest.mark.slow
@given(STEPS)
def test_timers_agree_with_a_dict_of_deadlines(steps: list[tuple[str, int, float]]) -> None:
    timers: Timers[int] = Timers()
    model: dict[int, float] = {}
    for what, key, seconds in steps:
        if what == "set":
            timers.set(key, seconds)
            model[key] = seconds
        elif what == "cancel":
            timers.cancel(key)
            model.pop(key, None)
        else:
            key_or_none = timers.expired(seconds)
            if key_or_none is None:
                assert all(due > seconds for due in model.values())
            else:
                assert model.pop(key_or_none) <= min([seconds, *model.values()])
        assert timers.next == min(model.values(), default=math.inf)
        assert len(timers) == len(model)


def test_cancelled_deadlines_are_removed() -> None:
    timers: Timers[int] = Timers()
    timers.set(0, math.inf)
    assert len(timers) == 0
    for number in range(10_000):
        timers.set(number, number + 10)
        timers.cancel(number - 5)
    assert len(timers) == 5
    assert len(timers._heap) < 100
