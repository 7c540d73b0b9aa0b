"""Which cordons count for a wave, when some turn out not to be made."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from selfheal_remediator.node.recent_cordons import RecentCordons

CONDITIONS = ["Ready", "Lost", "KernelDeadlock"]
CORDONS = st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(CONDITIONS), st.booleans()))


@given(CORDONS)
def test_only_cordons_that_were_made_count(
    cordons: list[tuple[str, str, bool]],
) -> None:
    recent, made = RecentCordons(), dict[tuple[str, str], float]()
    for moment, (uid, condition, is_made) in enumerate(cordons, start=1):
        recent.note(condition, uid, float(moment))
        if is_made:
            made[condition, uid] = float(moment)
        else:
            recent.not_made(uid)
        for one in CONDITIONS:
            expected = sorted(when for (of, _), when in made.items() if of == one)
            assert list(recent.of(one, 0.0)) == expected


def test_a_cordon_before_the_one_that_was_not_made_is_over_at_its_own_time() -> None:
    recent = RecentCordons()
    recent.note("Ready", "a", 10.0)
    recent.note("Ready", "a", 30.0)
    recent.not_made("a")
    recent.drop(10.0)
    assert len(recent) == 0
