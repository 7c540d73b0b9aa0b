"""What decides about a pod that came after its drain began is read before it is evicted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from selfheal_remediator.config import Drain
from selfheal_remediator.drain.engine import NodeDrain
from selfheal_remediator.drain.filters import Surroundings
from selfheal_remediator.drain.lookups import (
    GIVE_UP_WAITING,
    LONGEST_RETRY,
    Answer,
    Question,
    Subject,
)
from selfheal_remediator.kube.pods import Pod
from selfheal_remediator.kube.responses import EvictionResult, Outcome
from tests.pure.remediator import builders
from tests.pure.remediator.builders import NOW, pod
from tests.pure.remediator.fake_api import FakeApi
from tests.pure.remediator.running import NODES, PODS, node, running, until
from tests.pure.remediator.running import pod as raw_pod

ABOUT = Question(Subject.DAEMON_SET, "default", "agent", "new")
CLAIM = Question(Subject.CLAIM, "default", "data")
EXISTS, GONE = Answer(exists=True), Answer(exists=False)


def agent(name: str = "agent-1", **more: Any) -> Pod:
    """A pod of a DaemonSet that was not there when the drain began."""
    owner = {"owner_kind": "DaemonSet", "owner_name": "agent", "owner_uid": "new"}
    return pod(name, **{**owner, **more})


def drain(*pods: Pod) -> NodeDrain:
    """A drain that knows of one DaemonSet, `agent` of another uid."""
    around = Surroundings(Drain(), daemon_sets=frozenset({("default", "agent", "old")}))
    made = NodeDrain("n", "uid-n", NOW, NOW + 600, around, synced=True)
    for item in pods:
        made.pod_changed(None, item)
    made.begin_wave(2)
    return made


@pytest.mark.parametrize("priority", [0, 2_000_000_000])
@pytest.mark.parametrize("after", [False, True])
def test_a_pod_of_a_new_daemon_set_stays(priority: int, after: bool) -> None:
    made = drain()
    if after:
        made.watch_on()
    made.pod_changed(None, agent(priority=priority))
    made.begin_wave(2)
    actions = made.step(NOW)
    assert (actions.look_up, actions.evict, actions.done) == ((ABOUT,), (), False)
    assert made.step(NOW + 1).look_up == ()  # once
    made.looked_up(ABOUT, EXISTS, NOW + 1)
    for number in range(5):  # its DaemonSet may put it here as often as it wants
        made.pod_changed(agent(f"agent-{number}", priority=priority), None)
        made.pod_changed(None, agent(f"agent-{number + 1}", priority=priority))
        actions = made.step(NOW + 1)
        assert (actions.look_up, actions.evict, actions.done) == ((), (), not after)
    assert made.staying == ()


def test_a_pod_whose_daemon_set_is_gone_is_evicted() -> None:
    made = drain(agent(), agent("agent-2"))
    assert made.step(NOW).look_up == (ABOUT,)
    made.looked_up(ABOUT, GONE, NOW)
    assert [item.name for item in made.step(NOW).evict] == ["agent-1", "agent-2"]
    made.pod_changed(None, agent("agent-3"))
    assert made.step(NOW).look_up == ()  # no other one ever gets the uid


def test_past_the_deadline_too_it_is_deleted_only_when_it_is_clear() -> None:
    made = drain(agent())
    late = made.deadline + 1
    actions = made.step(late, on_deadline="delete")
    assert (actions.look_up, actions.delete) == ((ABOUT,), ())
    made.looked_up(ABOUT, GONE, late)
    actions = made.step(late, on_deadline="delete")
    assert (actions.evict, actions.delete) == ((agent(),), ())  # it was never tried
    made.answered(agent().uid, EvictionResult(Outcome.BUDGET, "no"), late)
    assert made.step(late, on_deadline="delete").delete == (agent(),)


def test_a_terminating_pod_of_a_new_daemon_set_does_not_hold_the_drain() -> None:
    made = drain(agent(deletion=NOW))
    actions = made.step(NOW)
    assert (actions.look_up, actions.done) == ((ABOUT,), False)
    made.looked_up(ABOUT, EXISTS, NOW)
    assert made.step(NOW).done


def test_what_cannot_be_read_stays_and_is_asked_about_ever_later() -> None:
    made, now, waits = drain(agent()), NOW, []
    for failures in range(1, 13):
        assert made.step(now).look_up == (ABOUT,)
        made.looked_up(ABOUT, None, now)
        actions = made.step(now)
        assert (actions.evict, actions.done) == ((), failures >= GIVE_UP_WAITING)
        assert actions.wake is not None
        waits.append(actions.wake - now)
        now = actions.wake
    assert waits == [min(LONGEST_RETRY, 2.0**n) for n in range(12)]
    why = "its DaemonSet agent cannot be read: it may exist"
    assert made.staying == ((agent(), why),)
    made.step(now)
    made.looked_up(ABOUT, GONE, now)
    assert made.step(now).evict == (agent(),)


def test_while_it_is_stopped_nothing_is_asked_and_the_node_is_not_drained() -> None:
    made = drain(replace(agent(), deletion=NOW))
    actions = made.step(NOW, stopped=True)
    assert (actions.look_up, actions.done) == ((), False)
    assert made.step(NOW).look_up == (ABOUT,)


def test_the_volume_of_a_pod_that_came_later_is_looked_up() -> None:
    made = drain(pod("a", claims=("data",)))
    assert made.step(NOW).look_up == (CLAIM,)
    assert made.step(NOW).evict == ()
    made.looked_up(CLAIM, Answer(tied=True), NOW)
    assert made.step(NOW).evict == ()
    assert made.staying[0][1] == "its volume (claim data) is on this node only"
    made = drain(pod("a", claims=("data",)))
    made.step(NOW)
    made.looked_up(CLAIM, Answer(), NOW)
    assert [item.name for item in made.step(NOW).evict] == ["a"]


def test_a_volume_that_could_not_be_read_is_asked_about_again() -> None:
    made = drain()
    around = replace(made.pods.around, unknown_claims=frozenset({("default", "data")}))
    made.surroundings_changed(around)
    made.pod_changed(None, pod("a", claims=("data",)))
    actions = made.step(NOW)
    assert (actions.look_up, actions.done) == ((CLAIM,), False)
    made.looked_up(CLAIM, Answer(), NOW)
    assert [item.name for item in made.step(NOW).evict] == ["a"]


def test_an_orphan_that_returns_is_counted_once_it_is_clear() -> None:
    made = drain(agent("agent-0"))
    made.step(NOW)
    made.looked_up(ABOUT, GONE, NOW)
    for number in range(6):
        made.step(NOW)
        made.answered(f"uid-agent-{number}", EvictionResult(Outcome.ACCEPTED), NOW)
        made.pod_changed(agent(f"agent-{number}"), None)
        made.pod_changed(None, agent(f"agent-{number + 1}"))
    assert made.posts == 4
    assert len(made.returned_too_often) == 1


def _daemon_set(name: str, uid: str) -> dict[str, Any]:
    return {"kind": "DaemonSet", "metadata": {"namespace": "d", "name": name, "uid": uid}}


def _agent(name: str, uid: str) -> dict[str, Any]:
    raw = raw_pod(name, "n1")
    (owner,) = raw["metadata"]["ownerReferences"]
    owner.update(kind="DaemonSet", name="agent", uid=uid)
    return raw


@pytest.mark.parametrize("exists", [True, False])
def test_a_daemon_set_recreated_while_a_node_is_drained(exists: bool) -> None:
    """The pod of the new one stays; one whose DaemonSet is really gone goes."""
    refusing = True

    def disturb(verb: str, path: str) -> str:
        return "503" if refusing and path.endswith("/a/eviction") else ""

    server = FakeApi(disturb)

    def gone() -> list[str]:
        return [path.rsplit("/", 1)[1] for verb, path, _ in server.did if verb == "EVICT"]

    sets = "/apis/apps/v1/namespaces/d/daemonsets"
    server.put(f"{sets}/agent", _daemon_set("agent", "old"))
    server.put(f"{NODES}/n1", node("n1", "True"))
    server.put(f"{NODES}/n2", node("n2", "False"))
    server.put(f"{PODS}/a", raw_pod("a", "n1"))
    server.put(f"{PODS}/agent-1", _agent("agent-1", "old"))
    config = builders.config(signal={"enabled": False}, drain={"headroom": False})
    with running(server, config) as made:
        until("a is asked for", lambda: any(run.drain.posts for run in _runs(made)))
        server.put(f"{sets}/agent", _daemon_set("agent", "new"))
        server.put(f"{PODS}/agent-1", None)
        server.put(f"{PODS}/agent-2", _agent("agent-2", "new" if exists else "older"))
        until(
            "it is seen, or evicted already",
            lambda: any(_known(run.drain, "agent-2") for run in _runs(made)) or "agent-2" in gone(),
        )
        refusing = False
        until("drained", lambda: _phase(server) == '"drained"')
    assert gone().count("agent-2") == (not exists)
    server.close()


def _runs(made: Any) -> list[Any]:
    return list(made.draining.running.values())


def _seen(server: FakeApi, runs: list[Any], name: str) -> bool:
    """Known to a drain, or evicted already."""
    evicted = any(verb == "EVICT" and path.endswith(f"/{name}") for verb, path, _ in server.did)
    return evicted or any(_known(run.drain, name) for run in runs)


def _known(found: NodeDrain, name: str) -> bool:
    return name in [item.name for item in found.pods]


def _phase(server: FakeApi) -> str:
    text = str(server.get(f"{NODES}/n1")["metadata"]["annotations"].get("selfheal.dev/state", ""))
    return '"drained"' if '"drained"' in text else ""
