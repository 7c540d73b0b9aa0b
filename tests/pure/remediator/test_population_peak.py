"""The largest population of the last hour, by when it was last true."""

import hypothesis.strategies as st
from hypothesis import given

from selfheal_remediator.node.peak import Peak


def test_a_value_counts_until_an_hour_after_it_was_last_true() -> None:
    peak = Peak(3600)
    peak.was(100, 7200)  # since the start, until now
    assert peak.of(10, 7201) == 100
    assert peak.of(10, 7200 + 3600) == 100
    assert peak.of(10, 7201 + 3600) == 10


def test_what_a_value_is_between_two_changes_of_one_moment_never_counts() -> None:
    peak = Peak(3600)
    peak.was(4, 100)
    peak.was(5, 100)
    assert peak.of(4, 100) == 4


@given(st.lists(st.tuples(st.floats(0, 2000), st.integers(0, 9)), max_size=30))
def test_it_is_the_largest_of_all_that_was_true_in_the_window(
    steps: list[tuple[float, int]],
) -> None:
    peak, now, value = Peak(3600), 0.0, 5
    past: list[tuple[float, int]] = []
    for seconds, after in steps:
        now += seconds
        peak.was(value, now)
        if not past or past[-1][0] < now:
            past.append((now, value))
        value = after
        assert peak.of(value, now) == max(value, *(v for at, v in past if at >= now - 3600))
