"""A pause that is over again before anything has noticed it: what was ordered before it is not
sent."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from selfheal_remediator.config import Config
from selfheal_remediator.controller.authority import Authority
from selfheal_remediator.controller.loop import Remediator
from selfheal_remediator.kube.informer import Change
from selfheal_remediator.kube.lease import PAUSE_KEY, STOP_KEY, LeaseView
from selfheal_remediator.kube.lease_record import LeaseRecord
from selfheal_remediator.node.actions import Kind
from tests.pure.remediator import test_drain_runner as drains
from tests.pure.remediator.builders import NOW
from tests.pure.remediator.running import running, until
from tests.pure.remediator.test_cancelled_restarts import Stage

evaluations = drains.evaluations
SETTINGS = {"rules": [], "policies": {"evaluationInterval": "1s"}}


def view(version: int, **annotations: str) -> LeaseView:
    return LeaseView("l", "d", "uid", str(version), "me", "1", 0, 15.0, annotations, None)


class Known:
    """What a LeaseRecord passes on."""

    def __init__(self) -> None:
        self.annotations: list[Mapping[str, str]] = []
        self.gaps = 0
        self.record = LeaseRecord(self.annotations.append, lambda: None)
        self.record.on_gap = self._gap
        self.record.listed(view(1), 1e12)

    def _gap(self) -> None:
        self.gaps += 1


@pytest.mark.parametrize("key", [PAUSE_KEY, STOP_KEY])
def test_a_pause_that_the_answer_to_our_renewal_overtook_is_noticed(key: str) -> None:
    known = Known()
    known.record.take_in(view(4))
    known.record.heard(Change("l", view(1), view(2, **{key: "x"})))
    known.record.heard(Change("l", view(2, **{key: "x"}), view(3)))
    assert known.gaps == 1
    assert known.annotations == []


def test_events_that_come_late_are_no_pause() -> None:
    known = Known()
    known.record.take_in(view(4, **{PAUSE_KEY: "x"}))
    known.record.heard(Change("l", view(1), view(2)))
    known.record.heard(Change("l", view(2), view(3, **{PAUSE_KEY: "x"})))
    assert known.gaps == 0


def test_what_the_lease_was_before_it_was_listed_again_is_not_known() -> None:
    known = Known()
    assert known.gaps == 0  # nothing was ordered before the first list
    known.record.listed(view(9), 1e12)
    assert known.gaps == 1


def paused(made: Remediator) -> None:
    made.leadership.lease_changed({PAUSE_KEY: "maintenance"})
    made.leadership.lease_changed({})


def gap(made: Remediator) -> None:
    made.leadership.may_have_been_paused()


@pytest.mark.parametrize("happens", [paused, gap])
def test_a_restart_that_was_ordered_before_a_short_pause_is_decided_again(
    happens: Callable[[Remediator], None],
) -> None:
    stage, posts = Stage(), list[str]()
    disturb = stage.api.disturb

    def counted(verb: str, path: str) -> str:
        if verb == "POST" and path.endswith("/eviction"):
            posts.append(path)
        return disturb(verb, path)

    stage.api.disturb = counted
    with running(stage.api, Config.model_validate(SETTINGS)) as made:
        until("a restart is on its way", stage.asked.is_set)
        made.post(lambda: happens(made))
        made.post(stage.released.set)
        until("it is restarted after all", lambda: bool(stage.evicted))
        assert len(posts) >= 3  # a dry run, another one, and the eviction
    stage.api.close()


def test_an_eviction_that_was_ordered_before_a_short_pause_is_decided_again(
    evaluations: Any,
) -> None:
    api = evaluations.api
    evaluations.advance()
    evaluations.posted[0]()
    evaluations.made.cancel_ordered()
    for job in evaluations.posted[1:]:
        job()
    assert [name for name, _ in api.asked] == ["p0"]
    evaluations.posted.clear()
    evaluations.advance()
    for job in evaluations.posted:
        job()
    assert sorted(name for name, _ in api.asked) == sorted(f"p{n}" for n in range(drains.COUNT))


@pytest.mark.parametrize("again", ["pause", "gap"])
def test_a_cordon_that_was_ordered_before_a_short_pause_is_decided_again(again: str) -> None:
    authority = Authority(leading=True, first="")
    stops = authority.stops
    assert all(authority.may_send(kind, NOW, stops) for kind in Kind)
    if again == "pause":
        authority.read_pause({PAUSE_KEY: "maintenance"})
        authority.read_pause({})
    else:
        authority.may_have_been_paused()
    refused = {kind for kind in Kind if not authority.may_send(kind, NOW, stops)}
    assert refused == {Kind.CORDON, Kind.DRAIN, Kind.REPAIR}  # an uncordon is never limited
    assert all(authority.may_send(kind, NOW, authority.stops) for kind in Kind)
