"""A drain rests while its node recovers: the whole remediator, before a server that answers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from selfheal_remediator.config import Config
from selfheal_remediator.controller.loop import Remediator
from selfheal_remediator.drain.running import RunningDrain
from selfheal_remediator.kube.objects import node_from_json
from selfheal_remediator.node.annotation import STATE_KEY, Phase, State, parse_state
from tests.pure.remediator.fake_api import FakeApi
from tests.pure.remediator.running import (
    BAD,
    NODES,
    PODS,
    advance,
    node,
    pod,
    running,
    stamp,
    until,
)


def _config(action: str = "drain", **drain: Any) -> Config:
    return Config.model_validate(
        {
            "rules": [{"condition": "Fault", "for": 0, "action": action}],
            "limits": {"maxUnavailable": "100%"},
            "policies": {"enabled": False},
            "recovery": {"stabilizationWindow": "1h"},
            "drain": drain,
        }
    )


class Cluster(FakeApi):
    """Two nodes, one of them with a pod that goes when `open` says so."""

    def __init__(self) -> None:
        self.open = False
        super().__init__(lambda _, path: "" if self.open or "/eviction" not in path else "500")
        self.put(f"{NODES}/good", node("good", "False"))
        self.put(BAD, node("bad", "False"))
        self.put(f"{PODS}/web", pod("web", "bad"))

    def turns(self, status: str) -> None:
        """What the detector writes, now."""
        with self.changing(BAD) as raw:
            raw["status"]["conditions"][1] |= {"status": status, "lastTransitionTime": stamp(0)}

    def state(self) -> State | None:
        """Our annotation."""
        text = self.get(BAD)["metadata"]["annotations"].get(STATE_KEY)
        return parse_state(text) if text else None

    def evicted(self) -> bool:
        """Whether the pod went."""
        return any(verb == "EVICT" for verb, _, _ in self.did)


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    made = Cluster()
    yield made
    made.close()


def _drain(remediator: Remediator) -> RunningDrain:
    until("it is drained", lambda: remediator.draining.running)
    [run] = remediator.draining.running.values()
    return run


def test_it_pauses_while_the_condition_is_good_and_continues(cluster: Cluster) -> None:
    with running(cluster, _config(headroom=False)) as remediator:
        until("it knows the nodes", lambda: remediator.known_once)
        cluster.turns("True")
        run = _drain(remediator)
        before = run.drain.deadline
        cluster.turns("False")
        until("it rests", lambda: run.paused_since is not None)
        cluster.open = True
        cluster.turns("True")
        until("it continues", lambda: run.paused_since is None)
        until("the pod goes", cluster.evicted)
        assert run.drain.deadline > before


def test_the_next_leader_knows_of_the_pause(cluster: Cluster) -> None:
    with running(cluster, _config(headroom=False)) as remediator:
        until("it knows the nodes", lambda: remediator.known_once)
        cluster.turns("True")
        run = _drain(remediator)
        until("it is written", cluster.state)
        begun = cluster.state()
        assert begun is not None
        cluster.turns("False")
        until("it rests", lambda: run.paused_since is not None)
        advance(remediator, 300.0)
        cluster.turns("True")
        later = begun.drain_started + 300
        until("it is written", lambda: (cluster.state() or begun).drain_started >= later)
        after = cluster.state()
        assert after is not None
        assert after.phase is Phase.DRAINING


def test_a_node_that_is_deleted_while_its_cordon_is_answered_is_forgotten(
    cluster: Cluster,
) -> None:
    ticked = threading.Event()
    with running(cluster, _config("cordon")) as remediator:
        until("it knows the nodes", lambda: remediator.known_once)
        change = remediator.parts.api.patch_node
        raw = cluster.get(BAD)

        def changed_and_deleted(name: str, ops: Any, **more: Any) -> Any:
            answer = change(name, ops, **more)
            cluster.put(BAD, None)
            until("it is seen to go", lambda: remediator.planner.entry_named("bad") is None)
            ticked.set()
            return answer

        remediator.parts.api.patch_node = changed_and_deleted  # type: ignore[method-assign, assignment]
        cluster.turns("True")
        assert ticked.wait(60)
        late = node_from_json(raw)
        ticked.clear()
        remediator.post(lambda: remediator.parts.writer.take_in(late))  # a read from just before
        remediator.post(ticked.set)
        assert ticked.wait(60)
        assert remediator.planner.entry_named("bad") is None


def test_however_long_the_answer_takes_it_is_checked_first_whether_the_pods_fit(
    cluster: Cluster,
) -> None:
    cluster.open = True  # but the other node says nothing of what it can take
    with running(cluster, _config()) as remediator:
        until("it knows the nodes", lambda: remediator.known_once)
        change = remediator.parts.api.patch_node

        def changed_slowly(name: str, ops: Any, **more: Any) -> Any:
            advance(remediator, 5.0)
            return change(name, ops, **more)

        remediator.parts.api.patch_node = changed_slowly  # type: ignore[method-assign, assignment]
        cluster.turns("True")
        until("it is reported", lambda: cluster.evicted() or (cluster.state() or _NONE).no_room)
        assert not cluster.evicted()


_NONE = State(Phase.SEEN, "", "", "")
