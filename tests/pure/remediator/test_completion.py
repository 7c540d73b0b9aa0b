"""Pods that end by themselves: a drain lets them complete for a time, and not for longer."""

import time
from dataclasses import replace
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from kubernetes.client import Configuration

from selfheal_remediator.cli.inspection import plan, status
from selfheal_remediator.cli.tables import plan_text, status_text
from selfheal_remediator.config import Config, Drain
from selfheal_remediator.controller.loop import Remediator
from selfheal_remediator.drain.engine import NodeDrain
from selfheal_remediator.drain.eviction import SPARED_FOR
from selfheal_remediator.drain.filters import Fate, Surroundings, sort_pod
from selfheal_remediator.drain.readiness import Readiness
from selfheal_remediator.drain.reports import DrainReports, slot_yielded
from selfheal_remediator.drain.running import RunningDrain
from selfheal_remediator.drain.standstill import STANDSTILL_AFTER
from selfheal_remediator.kube.client import KubernetesApi
from selfheal_remediator.kube.fields import time_text
from selfheal_remediator.kube.objects import Condition
from selfheal_remediator.kube.pods import Pod, pod_from_json
from selfheal_remediator.kube.responses import EvictionResult, Outcome
from selfheal_remediator.node.annotation import STATE_KEY, Phase, State
from selfheal_remediator.node.work_clock import WorkClock
from tests.pure.remediator.builders import NOW, OWNER, node, pod
from tests.pure.remediator.fake_api import FakeApi
from tests.pure.remediator.running import NODES, PODS, running, until, until_later
from tests.pure.remediator.running import node as raw_node
from tests.pure.remediator.running import pod as raw_pod

JOB = {"owner_kind": "Job", "owner_name": "report", "owner_api": "batch/v1"}
HOUR = 3600.0
OVER = NOW + HOUR
REFUSED = EvictionResult(Outcome.BUDGET, "The disruption budget b needs 2 healthy pods and has 2")


def job(name: str = "job", **more: Any) -> Pod:
    """A running pod of a Job."""
    return pod(name, **{**JOB, **more})


def drain(*pods: Pod, deadline: float = 600, values: dict[str, Any] | None = None) -> NodeDrain:
    """A drain of node `n` that began NOW and knows its pods."""
    around = Surroundings(Drain.model_validate(values or {}))
    made = NodeDrain("n", "uid-n", NOW, NOW + deadline, around, synced=True)
    for item in pods:
        made.pod_changed(None, item)
    made.begin_wave(0)
    return made


def _names(pods: tuple[Pod, ...]) -> list[str]:
    return sorted(item.name for item in pods)


@pytest.mark.parametrize(
    ("values", "setting", "fate"),
    [
        (JOB, {}, Fate.WAIT),
        ({**JOB, "owner_api": "batch.volcano.sh/v1alpha1"}, {}, Fate.EVICT),
        (
            {**JOB, "owner_api": "batch.volcano.sh/v1alpha1"},
            {"owners": ["batch.volcano.sh/Job"]},
            Fate.WAIT,
        ),
        (JOB, {"owners": []}, Fate.EVICT),
        (JOB, {"max": "0s"}, Fate.EVICT),
        ({**JOB, "phase": "Pending"}, {}, Fate.EVICT),  # it has done nothing yet
        ({**JOB, "phase": "Unknown"}, {}, Fate.EVICT),
        ({**JOB, "phase": "Succeeded"}, {}, Fate.IGNORE),
        ({**JOB, "deletion": NOW}, {}, Fate.EVICT),
        ({**JOB, "keep_reason": "annotation x=false"}, {}, Fate.STAY),
        ({**JOB, "pinned": True}, {}, Fate.WAIT),  # and stays where it did not complete
        ({"on_completion": True}, {}, Fate.WAIT),
        ({"on_completion": True}, {"owners": []}, Fate.WAIT),
        ({"on_completion": True}, {"max": "0s"}, Fate.EVICT),
        ({"on_completion": True, "owner_kind": "", "owner_api": ""}, {}, Fate.WAIT),
        ({"on_completion": True, "owner_kind": "DaemonSet"}, {}, Fate.IGNORE),
        ({}, {}, Fate.EVICT),
    ],
)
def test_what_may_complete(values: dict[str, Any], setting: dict[str, Any], fate: Fate) -> None:
    around = Surroundings(Drain.model_validate({"waitForCompletion": setting}), drain_began=NOW)
    found = sort_pod(pod(**values), around, NOW)
    assert found.fate is fate
    if fate is Fate.WAIT:
        assert found.until == OVER
        assert f"until {time_text(OVER)}" in found.reason
        assert sort_pod(pod(**values), around, OVER).fate is not Fate.WAIT


def test_the_annotation_of_cluster_autoscaler() -> None:
    raw = raw_pod("web", "bad")
    raw["metadata"]["uid"] = "u"
    key = "cluster-autoscaler.kubernetes.io/safe-to-evict"
    for value, asked in {"on-completion": True, "true": False, "false": False}.items():
        raw["metadata"]["annotations"] = {key: value}
        found = pod_from_json(raw)
        assert (found.on_completion, bool(found.keep_reason)) == (asked, value == "false")


def test_others_go_meanwhile_and_it_goes_when_the_time_is_over() -> None:
    system = pod("dns", priority=2_000_000_000)
    made = drain(job(), pod("web"), system, deadline=9999)
    assert _names(made.step(NOW).evict) == ["web"]
    made.pod_changed(pod("web"), None)
    assert made.step(NOW + 1).new_wave == 1  # it holds up no wave
    made.begin_wave(1)
    assert _names(made.step(NOW + 1).evict) == ["dns"]
    made.pod_changed(system, None)
    actions = made.step(NOW + 2)
    assert (actions.done, actions.evict, actions.wake) == (False, (), OVER)
    assert made.step(OVER).new_wave == 0  # the node is read afresh first
    made.begin_wave(0)
    assert _names(made.step(OVER).evict) == ["job"]
    assert made.returns.counts == {}  # nobody put it here past the cordon


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_a_node_on_which_all_has_completed_is_drained(phase: str) -> None:
    made = drain(job())
    assert not made.step(NOW).done
    made.pod_changed(job(), job(phase=phase))
    assert made.step(NOW + 60).done


def test_what_comes_past_the_cordon_does_not_wait() -> None:
    """Its Job's next pod tolerates the cordon: a drain would have no end."""
    made = drain(job("job-1"), deadline=9999)
    made.pod_changed(job("job-1"), job("job-1", deletion=NOW))
    made.pod_changed(job("job-1", deletion=NOW), None)
    made.pod_changed(None, job("job-2"))
    assert _names(made.step(NOW + 1).evict) == ["job-2"]
    made.pod_changed(job("job-2"), job("job-2", version="2"))
    assert list(made.evictions) == ["uid-job-2"]


def test_a_drained_node_waits_for_nothing() -> None:
    made = drain(job())
    made.watch_on()
    assert made.step(NOW).new_wave == 0


def test_it_may_ask_for_it_in_mid_drain() -> None:
    made = drain(pod("web"))
    made.step(NOW)
    made.answered("uid-web", REFUSED, NOW)
    made.pod_changed(pod("web"), pod("web", on_completion=True))
    actions = made.step(NOW + 400)
    assert (actions.evict, actions.done, actions.wake) == ((), False, OVER)


# -- its deadline ----------------------------------------------------------------------------


def test_the_deadline_waits_while_nothing_else_is_left() -> None:
    made = drain(job(), pod("web"))
    run = RunningDrain(made, WorkClock(600.0))
    for moment in range(0, 101, 10):
        run.credit(NOW + moment, stopped=False)
    assert made.deadline == NOW + 600  # another pod is to go
    made.pod_changed(pod("web"), None)
    for moment in range(100, 3601, 10):
        run.credit(NOW + moment, stopped=False)
        made.step(NOW + moment)
    assert run.used(OVER) == 100
    assert made.step(OVER, on_deadline="delete").new_wave == 0
    run.credit(OVER + 10, stopped=False)
    assert NOW + 600 + 3500 <= made.deadline <= NOW + 600 + 3510  # by one evaluation


@pytest.mark.parametrize("on_deadline", ["wait", "report", "delete"])
def test_past_the_deadline_of_the_others_it_still_completes(on_deadline: str) -> None:
    """And then it is evicted before it is deleted."""
    made = drain(job(), pod("web"))
    made.step(NOW)
    made.answered("uid-web", REFUSED, NOW)
    actions = made.step(NOW + 600, on_deadline=on_deadline)
    assert "job" not in _names(actions.evict + actions.delete)
    made.pod_changed(pod("web"), None)
    made.step(OVER, on_deadline=on_deadline)
    made.begin_wave(0)
    assert _names(made.step(OVER, on_deadline=on_deadline).evict) == ["job"]
    made.answered("uid-job", REFUSED, OVER)
    assert made.step(OVER + 1, on_deadline=on_deadline).delete == ()
    deleted = made.step(OVER + SPARED_FOR, on_deadline=on_deadline).delete
    assert _names(deleted) == (["job"] if on_deadline == "delete" else [])


def test_a_pause_gives_it_as_much_more() -> None:
    """As the annotation does for who leads next."""
    made = drain(job())
    run = RunningDrain(made, WorkClock(600.0))
    run.pause(NOW + 10, stopped=False)
    run.resume(NOW + 110, stopped=False)
    assert made.step(NOW + 110).wake == OVER + 100


def test_what_else_becomes_known_does_not_change_how_long() -> None:
    made = drain(job())
    made.surroundings_changed(Surroundings(Drain(), daemon_sets=frozenset()))
    assert made.step(NOW).wake == OVER


# -- a node whose kubelet does not answer ----------------------------------------------------


def test_nothing_is_waited_for_on_a_node_that_is_not_ready() -> None:
    made, reports = drain(job(), deadline=600), DrainReports()
    made.step(NOW)
    assert made.node_ready(False, NOW + 10)
    assert not made.node_ready(False, NOW + 11)
    assert made.step(NOW + 11).new_wave == 0  # the node is read afresh first
    made.begin_wave(0)
    assert _names(made.step(NOW + 11).evict) == ["job"]
    [report] = reports.completing(made)
    assert report.reason == "PodsNotCompleted"
    assert "the node is not Ready: default/job" in report.message
    made.answered("uid-job", REFUSED, NOW + 12)
    assert _names(made.step(NOW + 600, on_deadline="delete").delete) == ["job"]


def test_what_is_left_is_waited_for_again_once_the_node_is_ready() -> None:
    made = drain(job())
    made.node_ready(False, NOW)
    made.surroundings_changed(Surroundings(Drain(), daemon_sets=frozenset()))
    assert list(made.evictions) == ["uid-job"]  # as it was known before
    made.node_ready(True, NOW + 60)
    actions = made.step(NOW + 60)
    assert (actions.evict, actions.done, actions.wake) == ((), False, OVER)


def test_a_drain_that_waits_ends_its_wait_when_its_node_is_not_ready_any_more() -> None:
    server = _cluster()
    rule = {"condition": "Fault", "for": 0, "action": "drain", "heartbeat": None}
    values = {"rules": [rule], "limits": {"maxUnavailable": "100%"}, "drain": {"headroom": False}}
    config = Config.model_validate({**values, "policies": {"enabled": False}})
    server.put(f"{NODES}/other", raw_node("other", "False"))
    try:
        with running(server, config) as remediator:
            until("it drains", lambda: bool(remediator.draining.running))
            [run] = remediator.draining.running.values()
            until("it waits", lambda: bool(run.drain.pods.completing))
            assert not run.drain.posts
            ready(server, "False")
            seconds_pass(remediator, 45)
            ready(server, "True")  # its kubelet was restarted
            seconds_pass(remediator, 90)
            assert not run.drain.posts
            ready(server, "Unknown")
            until_later(remediator, "the pod is evicted", lambda: bool(run.drain.posts))
    finally:
        server.close()


def ready(server: FakeApi, status: str) -> None:
    with server.changing(f"{NODES}/bad") as raw:
        raw["status"]["conditions"][0]["status"] = status


def seconds_pass(remediator: Remediator, seconds: float) -> None:
    over = remediator.clock() + seconds
    until_later(remediator, "they pass", lambda: remediator.clock() >= over)


@pytest.mark.parametrize(
    ("transition", "seconds"),
    [(NOW - 20, 40), (NOW - 60, 0), (NOW - 9999, 0), (NOW + 9999, 60), (None, 60)],
)
def test_how_long_it_was_not_ready_before_says_its_condition(
    transition: float | None, seconds: float
) -> None:
    """Of what was observed, our own clock."""
    gone = Condition("Ready", "False", "", "", transition, NOW)
    down = node("n", gone)
    found = Readiness()
    assert found.lost(down, NOW) is (seconds == 0)
    assert found.lost(down, NOW + max(0, seconds - 1)) is (seconds == 0)
    assert found.lost(down, NOW + seconds)
    assert not found.lost(node("n"), NOW + 100)
    assert not found.lost(down, NOW + 200)
    assert not found.lost(down, NOW + 259)
    assert found.lost(down, NOW + 260)


# -- its slot --------------------------------------------------------------------------------


def test_a_drain_that_only_waits_yields_its_slot_until_it_may_evict() -> None:
    made = drain(job(), deadline=9999)
    made.step(NOW)
    late = NOW + STANDSTILL_AFTER
    assert made.standing_since(late - 1) is None
    assert made.standing_since(late) == NOW
    assert "pods may complete" in slot_yielded(made, late).message
    made.standstill.yield_slot(late)
    assert made.requests_slot_at(late + 100) is None  # nothing that it could do with one
    assert made.step(OVER).evict == ()  # it has none
    assert made.requests_slot_at(OVER) is not None
    made.standstill.regain_slot(OVER)
    assert made.step(OVER).new_wave == 0


def test_one_that_completes_is_progress() -> None:
    made = drain(job("a"), job("b"), deadline=9999)
    made.step(NOW)
    made.pod_changed(job("a"), job("a", phase="Succeeded"))
    made.step(NOW + 50)
    assert made.standing_since(NOW + STANDSTILL_AFTER) is None


# -- what is said ----------------------------------------------------------------------------


def test_what_is_waited_for_is_reported_once() -> None:
    made, reports = drain(job("a"), job("b"), pod("web"), deadline=9999), DrainReports()
    made.step(NOW)
    [report] = reports.completing(made)
    assert (report.reason, report.warning) == ("DrainWaiting", False)
    assert f"until {time_text(OVER)}" in report.message
    assert "default/a, default/b" in report.message
    assert reports.completing(made) == []
    made.step(OVER)
    [report] = reports.completing(made)
    assert (report.reason, report.warning) == ("PodsNotCompleted", True)
    assert reports.completing(made) == []


def _cluster() -> FakeApi:
    """A bad node with a pod of a Job."""
    made = FakeApi(lambda verb, path: "")
    raw = raw_pod("job", "bad")
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": "report", "uid": "u"}
    raw["metadata"]["ownerReferences"] = [{**owner, "controller": True}]
    raw["status"]["phase"] = "Running"
    made.put(f"{PODS}/job", raw)
    made.put(f"{NODES}/bad", raw_node("bad", "True"))
    return made


def test_the_plan_and_the_status_say_until_when() -> None:
    server, now = _cluster(), float(int(time.time()))
    rule = {"condition": "Fault", "for": 0, "action": "drain"}
    values = {"rules": [rule], "limits": {"maxUnavailable": "100%"}, "drain": {"headroom": False}}
    config = Config.model_validate({**values, "policies": {"enabled": False}})
    access = Configuration()
    access.host = server.url
    api = KubernetesApi(access, "d", config.api)
    try:
        found = plan(api, config, OWNER, "", now)
        [item] = found.nodes[0].pods
        said = f"may complete until {time_text(now + HOUR)}"
        assert (item.fate, item.wave) == ("wait", None)
        assert f"{said}: batch/Job report" in item.reason
        assert said in plan_text(found, detail=True)
        began = int(now) - 600  # its drain has begun
        state = State(Phase.DRAINING, OWNER, "Fault", "True", since=began, drain_started=began)
        raw = raw_node("bad", "True", unschedulable=True)
        raw["metadata"]["annotations"][STATE_KEY] = state.to_json()
        server.put(f"{NODES}/bad", raw)
        shown = status(api, config, None, now)
        assert shown.cordoned[0].pods_left == 1
        assert f"may complete until {time_text(began + HOUR)}" in status_text(shown)
        [item] = plan(api, config, OWNER, "", now, only=["bad"]).nodes[0].pods
        assert time_text(began + HOUR) in item.reason
    finally:
        server.close()


# -- whatever happens ------------------------------------------------------------------------


@given(
    pods=st.lists(st.sampled_from(["job", "asks", "web", "system"]), max_size=6),
    events=st.lists(
        st.tuples(st.integers(0, 5), st.sampled_from(["ends", "gone", "wave", "takeover"])),
        max_size=30,
    ),
    steps=st.lists(st.sampled_from([1.0, 60.0, 599.0, 1800.0]), min_size=30, max_size=30),
)
@settings(max_examples=150, deadline=None)
def test_none_that_may_complete_goes_before_its_time(
    pods: list[str], events: list[tuple[int, str]], steps: list[float]
) -> None:
    """And at the end all have gone, whoever leads."""
    kinds: dict[str, dict[str, Any]] = {
        "job": JOB,
        "asks": {"on_completion": True},
        "web": {},
        "system": {"priority": 2_000_000_000},
    }
    alive = {f"uid-{i}": pod(f"{i}", **kinds[kind]) for i, kind in enumerate(pods)}
    waited = {f"uid-{i}" for i, kind in enumerate(pods) if kind in ("job", "asks")}
    made, now = drain(*alive.values()), NOW

    def turn() -> None:
        actions = made.step(now, on_deadline="delete")
        if actions.new_wave is not None:
            made.begin_wave(actions.new_wave)
            actions = made.step(now, on_deadline="delete")
        for item in actions.evict + actions.delete:
            assert item.uid not in waited or now >= OVER
        if actions.done:
            assert all(item.finished for item in alive.values())
        for item in actions.evict:
            alive.pop(item.uid)
            made.pod_changed(item, None)

    for (index, what), seconds in zip(events, steps, strict=False):
        now += seconds
        item = alive.get(f"uid-{index}")
        if what == "takeover":
            made = drain(*alive.values())
        elif item is not None and what in ("ends", "gone"):
            ended = None if what == "gone" else replace(item, phase="Succeeded")
            made.pod_changed(item, ended)
            alive.pop(item.uid)
        turn()
    for later in range(20):
        now = max(now, OVER) + later
        turn()
    assert made.evictions == {}
    assert made.step(now).done
