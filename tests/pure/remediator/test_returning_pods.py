"""Pods that come back past a cordon: who is counted, how often, and across leaders."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfheal_remediator.config import Config, Drain
from selfheal_remediator.drain.engine import NodeDrain
from selfheal_remediator.drain.filters import Surroundings
from selfheal_remediator.drain.returns import MAX_OWNERS, MAX_RETURNS, Counts, workload
from selfheal_remediator.kube.fields import time_text
from selfheal_remediator.kube.pods import Pod
from selfheal_remediator.kube.responses import EvictionResult, Outcome
from selfheal_remediator.node.annotation import MAX_BYTES, Phase, State, Unreadable, parse_state
from tests.pure.remediator.builders import NOW
from tests.pure.remediator.builders import pod as thing
from tests.pure.remediator.fake_api import FakeApi, Json
from tests.pure.remediator.running import (
    NODES,
    PODS,
    MovableClock,
    node,
    pod,
    running,
    until,
    until_later,
)

Owner = Callable[[int], dict[str, Any]]
OWNERS: dict[str, Owner] = {
    "ReplicaSet": lambda n: {"owner_name": "rs", "owner_uid": f"rs-{n}"},
    "Deployment": lambda n: {"owner_name": f"web-h{n}", "labels": {"pod-template-hash": f"h{n}"}},
    "rollout": lambda n: {
        "owner_name": f"web-h{n}",
        "labels": {"rollouts-pod-template-hash": f"h{n}"},
    },
    "StatefulSet": lambda _: {"owner_kind": "StatefulSet", "owner_name": "db", "name": "db-0"},
    "CronJob": lambda n: {"owner_kind": "Job", "owner_name": f"report-2938475{n}"},
    "generated Job": lambda n: {"owner_kind": "Job", "owner_name": f"fit-{'bcdfghjklmnp'[n]}7k2p"},
    "numbered": lambda n: {"owner_kind": "ReplicationController", "owner_name": f"web-{n}"},
    "custom": lambda n: {"owner_kind": "Workflow", "owner_name": f"ci-x{n}kq", "owner_api": "x/v1"},
    "same bare pod": lambda _: {"owner_kind": "", "owner_name": "", "name": "notebook-ann"},
    "bare pods, generateName": lambda n: {
        "owner_kind": "",
        "owner_name": "",
        "name": f"run-{'bcdfghjklmnp'[n]}xzqw",
        "generate_name": "run-",
    },
    "bare pods, random names": lambda n: {
        "owner_kind": "",
        "owner_name": "",
        "name": f"550e84{n:02}-e29b-41d4-a716-44665544{n:04}",
    },
    "bare pods, other names each time": lambda n: {
        "owner_kind": "",
        "owner_name": "",
        "name": "abcdefghijklmnopqrstu"[n] * 4,
    },
}

EVICTS_ALL = Drain.model_validate({"unmanagedPods": "evict"})


def _pod(owner: Owner, number: int) -> Pod:
    values = {"name": f"p-{number}", "uid": f"u-{number}", **owner(number)}
    return thing(values.pop("name"), created=NOW + 10 * number, **values)


class Leader:
    """A drain as one process leads it, from what the annotation says."""

    def __init__(self, saved: tuple[Counts, str], *, first: bool, after: bool) -> None:
        self.made = NodeDrain("n", "uid", NOW, NOW + 9999, Surroundings(EVICTS_ALL))
        state = State(Phase.DRAINED, "me", returns=saved[0], returned=saved[1])
        read = parse_state(state.to_json())
        self.made.returns.restore(read.returns, read.returned, None if first else NOW + 1)
        if after:
            self.made.watch_on()

    def listed(self, *pods: Pod) -> None:
        for item in pods:
            self.made.pod_changed(None, item)
        self.made.synced = True

    def step(self) -> list[str]:
        self.made.begin_wave(0)
        return [item.uid for item in self.made.step(NOW).evict]


def _evictions(owner: Owner, choices: list[str], *, after: bool) -> int:
    """How many of the pods are evicted that its controller makes; takeovers where chosen."""
    saved: tuple[Counts, str] = ((), "")
    leader = Leader(saved, first=True, after=False)
    item = _pod(owner, 0)
    blocked = thing("blocked", owner_name="else", created=NOW - 99)
    leader.listed(item, blocked)
    evicted, number = 0, 0
    for choice in choices:
        if choice == "takeover":
            leader = Leader(saved, first=False, after=after)
            leader.listed(item, blocked)
        elif choice == "save":
            saved = leader.made.returns.to_save
            leader.made.returns.saved = saved
        elif item.uid in leader.step():
            evicted += 1
            leader.made.answered(item.uid, EvictionResult(Outcome.ACCEPTED), NOW)
            leader.made.pod_changed(item, None)
            number += 1
            item = _pod(owner, number)
            leader.made.pod_changed(None, item)
    return evicted


_ORDINARY = ["step", "save"] * 12


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("owner", OWNERS.values(), ids=OWNERS.keys())
@pytest.mark.parametrize("every", [1, 2, 3, 5, 99])
def test_the_limit_holds_for_every_owner_across_takeovers(
    owner: Owner, every: int, after: bool
) -> None:
    choices = []
    for number, choice in enumerate(_ORDINARY * 3):
        choices += [choice] + (["takeover"] if number % every == 0 else [])
    most = 1 + MAX_RETURNS
    if owner is OWNERS["bare pods, other names each time"]:
        most += MAX_OWNERS  # they cannot be distinguished from pods of others, but are bounded too
    assert 1 <= _evictions(owner, choices, after=after) <= most


@given(
    st.lists(st.sampled_from(["step", "save", "takeover"]), max_size=60),
    st.sampled_from(["ReplicaSet", "CronJob", "StatefulSet"]),
    st.booleans(),
)
def test_the_limit_holds_in_any_order(choices: list[str], owner: str, after: bool) -> None:
    assert _evictions(OWNERS[owner], choices, after=after) <= 1 + MAX_RETURNS


def test_a_pod_that_cannot_go_is_counted_once_however_often_the_leader_changes() -> None:
    leader = Leader(((), ""), first=True, after=False)
    first, again = _pod(OWNERS["ReplicaSet"], 0), _pod(OWNERS["ReplicaSet"], 1)
    leader.listed(first)
    assert leader.step() == ["u-0"]
    leader.made.pod_changed(first, None)
    leader.made.pod_changed(None, again)
    for _ in range(9):
        saved = leader.made.returns.to_save
        assert [count for _, count in saved[0]] == [1]
        leader = Leader(saved, first=False, after=False)
        leader.listed(again)
        assert leader.step() == ["u-1"]
        leader.made.answered("u-1", EvictionResult(Outcome.BUDGET, "", None), NOW)


def test_pods_that_were_there_before_the_drain_have_not_returned() -> None:
    made = Leader(((), ""), first=True, after=False)
    made.listed(_pod(OWNERS["ReplicaSet"], 0))
    assert made.step()
    made.made.pod_changed(_pod(OWNERS["ReplicaSet"], 0), None)
    made.made.pod_changed(None, _pod(OWNERS["ReplicaSet"], 1))
    later = Leader(made.made.returns.to_save, first=False, after=False)
    old = [replace(_pod(OWNERS["ReplicaSet"], n), created=NOW - 60) for n in range(20, 29)]
    later.listed(*old)
    assert len(later.step()) == len(old)
    assert later.made.returns.to_save == made.made.returns.to_save


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"owner_name": "api"}, {"owner_name": "web"}),
        ({"namespace": "a"}, {"namespace": "b"}),
        ({"owner_kind": "StatefulSet", "owner_name": "db-1"},
         {"owner_kind": "StatefulSet", "owner_name": "db-2"}),
        ({"owner_kind": "Job", "owner_name": "fit"}, {"owner_kind": "ReplicaSet"}),
    ],
)  # fmt: skip
def test_owners_that_people_named_are_counted_apart(
    one: dict[str, Any], other: dict[str, Any]
) -> None:
    assert workload(thing("p", **one)) != workload(thing("p", **other))


# -- the annotation --------------------------------------------------------------------------


def _state(**more: Any) -> State:
    return State(Phase.DRAINING, "ns/selfheal-remediator", **more)


def test_the_annotation_stays_small_and_never_allows_more_when_it_is_full() -> None:
    returns = tuple((f"abcde{n:x}", n % 4 + 1) for n in range(MAX_OWNERS))
    room = _state(returns=returns, returned="1800000000/abcdef", cordons=(1800000000,) * 20)
    assert parse_state(room.to_json()) == room
    full = replace(room, condition="c" * 316, reason="r" * 999, rule="x" * 200)
    assert len(full.to_json().encode()) <= MAX_BYTES
    read = parse_state(full.to_json())
    assert read.returns == (("", 4),)
    made = NodeDrain("n", "uid", NOW, NOW + 9999, Surroundings(Drain()))
    made.returns.restore(read.returns, read.returned, NOW)
    assert made.returns.refused(_pod(OWNERS["ReplicaSet"], 9), drained=False)


def test_of_a_node_that_was_uncordoned_no_returns_are_kept() -> None:
    cordoned = _state(returns=(("abcdef", 4),), returned="1/a")
    for phase in Phase:
        raw = json.loads(replace(cordoned, phase=phase).to_json())
        assert ("returns" in raw, "returned" in raw) == (phase.cordoned, phase.cordoned)


@pytest.mark.parametrize("returns", [[], "x", {"a": "1"}, {"a": True}, {"a": None}, 3])
def test_what_is_no_count_is_not_read(returns: object) -> None:
    raw = {"v": 1, "phase": "draining", "returns": returns}
    with pytest.raises(Unreadable):
        parse_state(json.dumps(raw))


def test_an_annotation_of_another_version_is_read() -> None:
    raw = {"v": 1, "phase": "draining", "by": "me", "later": {"x": 1}}
    assert parse_state(json.dumps(raw)).returns == ()


# -- with everything around it ---------------------------------------------------------------


class Insistent(FakeApi):
    """Puts a pod back on the node as soon as one is evicted, with a name and owner of its own.

    clock: by which the leaders decide, and a pod is made after what they did before.
    """

    def __init__(self, kind: str) -> None:
        super().__init__(lambda *_: "")
        self.kind, self.made, self.clock = kind, 0, MovableClock()
        self.put(f"{NODES}/bad", node("bad", "True"))
        self.put(f"{NODES}/good", node("good", "False"))
        self.again()

    def again(self) -> None:
        self.made += 1
        name = "same" if self.kind == "StatefulSet" else f"p-{self.made}"
        raw = pod(name, "bad")
        raw["metadata"] |= {"creationTimestamp": time_text(self.clock()), "uid": f"u-{self.made}"}
        owner = raw["metadata"]["ownerReferences"][0] | {"kind": self.kind, "name": "own"}
        if self.kind == "Job":
            owner |= {"name": f"own-2938475{self.made}", "uid": f"o-{self.made}"}
        raw["metadata"]["ownerReferences"] = [owner] if self.kind else []
        raw["spec"]["tolerations"] = [{"operator": "Exists"}]
        self.put(f"{PODS}/{name}", raw)

    def _evict(self, path: str, body: Json, *, dry_run: bool) -> tuple[int, Json]:
        if path.endswith("/blocked"):
            causes = [{"reason": "DisruptionBudget", "message": "needs 1, has 1"}]
            return 429, {"kind": "Status", "code": 429, "details": {"causes": causes}}
        answer = super()._evict(path, body, dry_run=dry_run)
        if answer[0] == 201 and not dry_run:
            self.again()
        return answer

    @property
    def evicted(self) -> int:
        return len([verb for verb, *_ in self.did if verb == "EVICT"])


@pytest.mark.parametrize("kind", ["ReplicaSet", "StatefulSet", "Job", "Custom", ""])
@pytest.mark.parametrize("drained", [False, True])
def test_each_new_leader_continues_counting(kind: str, drained: bool) -> None:
    rules = [{"condition": "Fault", "for": 0, "action": "drain"}]
    config = Config.model_validate(
        {"rules": rules, "drain": {"headroom": False, "unmanagedPods": "evict"}}
    )
    server = Insistent(kind)
    if not drained:
        server.put(f"{PODS}/blocked", pod("blocked", "bad"))
    for evictions in (2, 3, 4, 4, 4):
        with running(server, config, server.clock) as made:
            until_later(made, "pods are evicted", lambda: server.evicted >= evictions)  # noqa: B023

            def left() -> bool:
                drains = list(made.draining.running.values())  # other threads change it
                return any(run.drain.returned_too_often for run in drains)

            if evictions == 4:
                until("its owner is left alone", left)
    assert server.evicted == 1 + MAX_RETURNS
    server.close()
