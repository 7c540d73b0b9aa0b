"""The account at the demo's end: every published message is answered, dead-lettered or lost."""

from hypothesis import given
from hypothesis import strategies as st

from ci.demo.tally import tally

ids = st.lists(st.sampled_from("abcdefgh"))


def test_all_accounted_for():
    account = tally(["a", "b", "c"], ["a", "b"], ["c"])
    assert str(account) == "published 3 = answered 2 + dead-lettered 1, lost 0, duplicates 0"
    assert account.holds


def test_a_second_answer_is_a_duplicate_and_no_loss():
    account = tally(["a", "b"], ["a", "b", "a"], [])
    assert (account.answered, account.duplicates, account.holds) == (2, 1, True)


def test_a_missing_message_is_lost():
    account = tally(["a", "b"], ["a"], [])
    assert (account.lost, account.holds) == (1, False)


def test_an_answer_that_nobody_asked_for_is_reported():
    account = tally(["a"], ["a", "x"], [])
    assert not account.holds
    assert "unknown 1" in str(account)


def test_answered_and_dead_lettered_is_reported():
    account = tally(["a"], ["a"], ["a"])
    assert not account.holds
    assert account.both == 1


@given(published=ids, results=ids, dead=ids)
def test_each_published_message_is_in_exactly_one_place(published, results, dead):
    account = tally(published, results, dead)
    assert account.published == account.answered + account.dead_lettered + account.lost
    assert min(account.lost, account.duplicates, account.unknown, account.both) >= 0
