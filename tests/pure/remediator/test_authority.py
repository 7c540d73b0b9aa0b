"""What may be changed now: terms of leadership, pauses, uninstalls, other remediators."""

from __future__ import annotations

import pytest

from selfheal_remediator.controller.authority import Authority
from selfheal_remediator.kube.fields import time_text
from selfheal_remediator.kube.lease import PAUSE_KEY, STOP_KEY
from selfheal_remediator.node.actions import Kind
from tests.pure.remediator.builders import NOW

TAKES_CAPACITY = (Kind.CORDON, Kind.DRAIN, Kind.REPAIR)


def test_nothing_is_done_before_it_is_known_who_comes_first() -> None:
    authority = Authority()
    authority.begin_term(leading=True)
    assert not authority.may_act(NOW)
    authority.first = "other/lease"
    assert not authority.may_act(NOW)
    authority.first = ""
    assert authority.may_act(NOW)


@pytest.mark.parametrize("leading", [True, False])
def test_each_term_is_another_one_and_knows_nobody(leading: bool) -> None:
    authority = Authority(first="")
    authority.begin_term(leading=leading)
    assert (authority.term, authority.leading, authority.first) == (1, leading, None)


def test_a_pause_is_heard_once_and_stops_what_waits_to_be_sent() -> None:
    authority = Authority()
    assert authority.read_pause({PAUSE_KEY: "tea"})
    assert (authority.paused, authority.stops) == ("tea", 1)
    assert not authority.read_pause({PAUSE_KEY: "tea"})
    assert authority.stops == 1
    assert authority.read_pause({PAUSE_KEY: ""})
    assert authority.paused == "no reason given"
    assert authority.read_pause({})
    assert (authority.paused, authority.stops) == ("", 3)


def test_an_uninstall_stops_everything_until_it_is_over() -> None:
    authority = Authority(first="")
    assert authority.read_stop({STOP_KEY: time_text(NOW + 60)}, NOW)
    assert not authority.read_stop({STOP_KEY: time_text(NOW + 60)}, NOW)
    assert authority.stops == 1
    assert not authority.may_act(NOW + 59)
    assert not any(authority.may_send(kind, NOW + 59) for kind in Kind)
    assert authority.may_act(NOW + 60)
    assert all(authority.may_send(kind, NOW + 60) for kind in Kind)


@pytest.mark.parametrize("authority", [Authority(paused="tea"), Authority(unhealthy="it sleeps")])
def test_a_pause_keeps_nodes_from_being_taken_away_but_not_from_coming_back(
    authority: Authority,
) -> None:
    assert {kind for kind in Kind if not authority.may_send(kind, NOW)} == set(TAKES_CAPACITY)
