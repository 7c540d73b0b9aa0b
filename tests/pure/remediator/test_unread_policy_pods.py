"""A policy's pod that cannot be read: nothing is concluded from what it was before."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest

from selfheal_remediator.failures import Malformed
from selfheal_remediator.healing.pod_health import Diagnosis, Health, WatchedPod, diagnose, renewed
from selfheal_remediator.healing.policy import State, Symptoms
from selfheal_remediator.healing.policy_state import PolicyState
from selfheal_remediator.healing.unread_pods import watched_or_unread
from tests.pure.remediator.api_objects import POD
from tests.pure.remediator.healing_world import NOW, World, policy_json

KEY = "ns/web"
BROKEN: list[dict[str, Any]] = [
    {"spec": 5},
    {"status": "text"},
    {"status": {"conditions": [{"type": 5}]}},
    {"status": {"containerStatuses": [{"name": "c", "restartCount": "many"}]}},
    {"spec": {"containers": "none"}},
]


def unread(pod: WatchedPod, deletion: float | None = None) -> WatchedPod:
    """The pod as the watch reports it when it cannot be read."""
    meta = {"namespace": pod.namespace, "name": pod.name, "uid": pod.uid}
    made = watched_or_unread({"metadata": meta, "spec": 5})
    return replace(made, deletion=deletion)


class Story:
    """Three pods of one owner; each event of the watch is passed on as it is."""

    def __init__(self, **spec: Any) -> None:
        self.world = World({KEY: policy_json("web", **spec)}, {"web": 3})
        self.world.run(60)

    @property
    def state(self) -> PolicyState:
        return self.world.healing.policy_states[KEY]

    def pods(self) -> list[WatchedPod]:
        return sorted(self.world.of("web"), key=lambda pod: pod.name)

    def spoil(self, pod: WatchedPod) -> None:
        self.world.notify(pod, pod, unread(pod))


@pytest.mark.parametrize("change", BROKEN)
def test_any_field_may_be_wrong(change: dict[str, Any]) -> None:
    found = watched_or_unread({**copy.deepcopy(POD), **change})
    assert found.unread
    assert (found.name, found.uid) == (POD["metadata"]["name"], POD["metadata"]["uid"])
    assert diagnose(found, Symptoms(1.0), None, NOW).health is Health.DEGRADED


@pytest.mark.parametrize("key", ["uid", "name", "namespace"])
def test_one_that_does_not_say_which_it_is_refuses_the_list(key: str) -> None:
    raw = {**copy.deepcopy(POD), "spec": 5}
    raw["metadata"][key] = 5
    with pytest.raises(Malformed):
        watched_or_unread(raw)


def test_a_pod_is_not_restarted_for_what_it_was_before() -> None:
    story = Story()
    story.world.break_one("web")
    story.world.run(5)
    story.spoil(story.pods()[0])
    story.world.run(1800, step=5.0)
    assert story.world.restarts == []
    status = story.state.status
    assert status is not None
    assert (status.state, status.healthy) == (State.DEGRADED, 2)
    assert [(pod.name, pod.cause) for pod in status.pods] == [(story.pods()[0].name, "Unreadable")]
    story.world.change(story.pods()[0])  # it can be read again
    story.world.run(120)
    assert len(story.world.restarts) == 1


def test_a_pod_that_was_healthy_is_no_evidence_that_others_are() -> None:
    story = Story()
    story.world.break_one("web")
    story.world.run(1)
    bad, good = story.pods()[0], story.pods()[1]
    group = story.state.groups["deploy-web"]
    assert story.state.elsewhere(group, bad)
    story.spoil(good)
    story.world.run(11)
    group = story.state.groups["deploy-web"]
    assert story.state.elsewhere(group, bad) == []
    assert not story.state.healthy_for(good, 0.0, story.world.now)


def test_a_restart_on_its_way_is_called_back() -> None:
    story = Story()
    story.world.carry_out = story.world.restarts.append  # type: ignore[method-assign, assignment]
    story.world.break_one("web")
    while not story.world.restarts:
        story.world.run(1)
    assert story.world.tick().recalls == ()
    story.spoil(story.pods()[0])
    [(action, skip_reason)] = story.world.tick().recalls
    assert action.pod.uid == story.pods()[0].uid
    assert "cannot be read" in skip_reason.text


def test_it_keeps_its_owner_and_what_is_known_of_its_end() -> None:
    story = Story()
    pod = story.pods()[0]
    story.world.notify(pod, pod, unread(pod, deletion=NOW + 99))
    story.spoil(pod)
    known = story.state.pods[pod.uid]
    assert (known.owner_uid, known.node, known.deletion) == (pod.owner_uid, pod.node, NOW + 99)


def test_one_of_which_nothing_was_read_yet_counts_as_not_healthy() -> None:
    story = Story()
    pod = story.pods()[0]
    story.world.notify(pod, pod, None)
    story.world.notify(pod, None, unread(pod))
    story.world.run(600, step=5.0)
    assert story.world.restarts == []
    status = story.state.status
    assert status is not None
    assert status.state is State.DEGRADED


def test_no_restart_applies_a_template_to_it() -> None:
    found = Diagnosis(Health.DEGRADED, "Unreadable", "no")
    assert renewed(found, Symptoms(30.0)) == found


def test_a_canary_is_not_decided_by_it() -> None:
    story = Story()
    for index in range(3):
        story.world.break_one("web", index=index)
    story.world.run(5)
    story.spoil(story.pods()[0])
    story.world.run(300)
    assert story.pods()[0].uid not in {action.pod.uid for action in story.world.restarts}


@pytest.mark.parametrize("change", BROKEN)
def test_one_that_was_never_read_belongs_to_its_owner_and_node(change: dict[str, Any]) -> None:
    good, found = watched_or_unread(POD), watched_or_unread({**copy.deepcopy(POD), **change})
    assert good.owner_uid
    owner = (found.owner_kind, found.owner_name, found.owner_uid, found.owner_api)
    assert owner == (good.owner_kind, good.owner_name, good.owner_uid, good.owner_api)
    assert found.node == ("" if "spec" in change else good.node)


@pytest.mark.parametrize("owners", [5, [5], [{"controller": "yes"}], [{"controller": True}]])
def test_an_owner_that_cannot_be_read_is_none(owners: object) -> None:
    raw = copy.deepcopy(POD)
    raw["metadata"]["ownerReferences"] = owners
    found = watched_or_unread(raw)
    assert found.unread
    assert found.owner_uid == ""


def test_one_that_was_never_read_is_one_of_the_desired_pods() -> None:
    """As after a takeover: too few pods would count as healthy, and the others as all there are."""
    story = Story()
    pod, other = story.pods()[:2]
    owner = {"kind": pod.owner_kind, "apiVersion": pod.owner_api}
    owner |= {"name": pod.owner_name, "uid": pod.owner_uid}
    meta: dict[str, Any] = {"namespace": pod.namespace, "name": pod.name, "uid": pod.uid}
    meta["ownerReferences"] = [{**owner, "controller": True}]
    story.state.forget(pod.uid)
    story.world.notify(pod, None, watched_or_unread({"metadata": meta, "spec": 5}))
    story.world.run(11)
    assert story.state.desired == 3
    assert story.state.elsewhere(story.state.groups["deploy-web"], other) == []
