"""Between the cordon and the first eviction others have time to notice the cordon (drain.delay)."""

import time
from collections.abc import Iterator
from dataclasses import replace

import hypothesis.strategies as st
import pytest
from hypothesis import given
from kubernetes.client import Configuration

from selfheal_remediator.cli.inspection import plan
from selfheal_remediator.config import Config, Drain
from selfheal_remediator.drain.engine import NodeDrain
from selfheal_remediator.drain.filters import Surroundings
from selfheal_remediator.drain.reports import DrainReports
from selfheal_remediator.drain.running import RunningDrain
from selfheal_remediator.kube.client import KubernetesApi
from selfheal_remediator.kube.fields import time_text
from selfheal_remediator.node.annotation import STATE_KEY, Phase, State
from selfheal_remediator.node.work_clock import WorkClock, first_eviction
from tests.pure.remediator.builders import NOW, OWNER, pod
from tests.pure.remediator.running import BAD, advance, node, running, until, until_later
from tests.pure.remediator.test_drain_pause import Cluster


def drain() -> NodeDrain:
    """A drain with one pod, whose first eviction is a minute from NOW."""
    made = NodeDrain("n", "uid-n", NOW, NOW + 600, Surroundings(Drain()), synced=True)
    made.pod_changed(None, pod("web"))
    made.not_before = NOW + 60
    return made


def _config(**more: str) -> Config:
    return Config.model_validate(
        {
            "rules": [{"condition": "Fault", "for": 0, "action": "drain", "heartbeat": None}],
            "limits": {"maxUnavailable": "100%"},
            "policies": {"enabled": False},
            "recovery": {"stabilizationWindow": "10m"},
            "drain": {"headroom": False, "delay": "1h", **more},
        }
    )


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    made = Cluster()
    made.open = True
    yield made
    made.close()


@given(cordoned=st.integers(0, 2 * int(NOW)), delay=st.sampled_from([0.0, 0.5, 60.0, 3600.0]))
def test_it_is_never_longer_than_the_delay_nor_shorter(cordoned: int, delay: float) -> None:
    moment = first_eviction(cordoned, delay, NOW)
    assert moment <= NOW + delay  # whatever another clock says
    if cordoned + 1 <= NOW and delay:
        assert moment >= cordoned + 1 + delay or moment == NOW + delay


def test_no_pod_is_evicted_before_it_is_over() -> None:
    made = drain()
    for moment in (0, 30, 59.9):
        actions = made.step(NOW + moment)
        assert (actions.evict, actions.new_wave, actions.done) == ((), None, False)
        assert actions.wake == NOW + 60
    assert made.step(NOW + 60).new_wave == 0  # the node is read afresh first
    made.begin_wave(0)
    assert made.step(NOW + 60).evict == (pod("web"),)


def test_an_empty_node_is_drained_at_once() -> None:
    made = drain()
    made.pod_changed(pod("web"), None)
    assert made.step(NOW).done


def test_a_drained_node_has_none() -> None:
    made = drain()
    made.watch_on()
    assert made.step(NOW).new_wave == 0


def test_it_is_no_time_of_the_deadline_and_no_standstill() -> None:
    made = drain()
    made.not_before = NOW + 300
    run = RunningDrain(made, WorkClock(600.0))
    for moment in range(0, 301, 10):
        made.step(NOW + moment)
        run.credit(NOW + moment, stopped=False)
        assert made.standing_since(NOW + moment) is None
    assert made.deadline == NOW + 900


def test_it_is_reported_once() -> None:
    made, reports = drain(), DrainReports()
    [report] = reports.delayed(made, NOW)
    assert (report.reason, report.warning) == ("DrainDelayed", False)
    assert time_text(NOW + 60) in report.message
    assert reports.delayed(made, NOW) == []


def test_a_node_that_recovers_meanwhile_keeps_its_pods(cluster: Cluster) -> None:
    with running(cluster, _config()) as remediator:
        until("it knows the nodes", lambda: remediator.known_once)
        cluster.turns("True")
        until("it is drained", lambda: remediator.draining.running)
        [run] = remediator.draining.running.values()
        until("its pods are known", lambda: bool(run.drain.evictions))
        cluster.turns("False")
        until("it rests", lambda: run.paused_since is not None)
        advance(remediator, 590.0)
        until_later(
            remediator,
            "it is uncordoned",
            lambda: not cluster.get(BAD)["spec"].get("unschedulable"),
        )
        assert not cluster.evicted()


@pytest.mark.parametrize("since", [600, 3560, 3601])
def test_it_counts_from_the_cordon_whoever_leads(cluster: Cluster, since: int) -> None:
    begun = int(time.time()) - since
    state = State(
        Phase.DRAINING, "d/selfheal-remediator", "Fault", "True", action="drain", since=begun
    )
    raw = node("bad", "True", unschedulable=True)
    raw["metadata"]["annotations"][STATE_KEY] = replace(state, drain_started=begun).to_json()
    cluster.put(BAD, raw)
    with running(cluster, _config()) as remediator:
        until("it drains", lambda: bool(remediator.draining.running))
        [run] = remediator.draining.running.values()
        if since > 3600:
            until("the pod goes", cluster.evicted)
            return
        until("its pods are known", lambda: bool(run.drain.evictions))
        assert run.drain.not_before == begun + 3601
        advance(remediator, 3590.0 - since)
        until_later(remediator, "the pod goes", cluster.evicted)
        assert remediator.clock() >= run.drain.not_before


def test_the_plan_says_until_when(cluster: Cluster) -> None:
    cluster.turns("True")
    now, access = time.time(), Configuration()
    access.host = cluster.url
    for delay, notes in (("1h", [now + 3600]), ("0s", [])):
        config = _config(delay=delay)
        found = plan(KubernetesApi(access, "d", config.api), config, OWNER, "", now)
        [item] = [item for item in found.nodes if item.node == "bad"]
        said = [note for note in item.notes if "drain.delay" in note]
        assert said == [f"no pod is evicted before {time_text(at)} (drain.delay)" for at in notes]
