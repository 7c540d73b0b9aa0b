"""A standby takes over: what its predecessor did a moment ago is not known, and counts."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial

import pytest

from selfheal_remediator.config import Config
from selfheal_remediator.controller.loop import Remediator
from selfheal_remediator.kube.lease import LABEL, PAUSE_KEY, STOP_KEY
from selfheal_remediator.node.annotation import STATE_KEY, Phase, State
from tests.pure.remediator.fake_api import FakeApi
from tests.pure.remediator.restore_world import CONFIG_MAP, config_map, deployment
from tests.pure.remediator.running import (
    BAD,
    LEASE,
    NODES,
    advance,
    node,
    running,
    stamp,
    until,
    until_later,
)
from tests.support.samples import sample

TWO_HOURS = 7200.0


@pytest.fixture
def api() -> Iterator[FakeApi]:
    """Two good nodes, and a Lease that another process holds."""
    made = FakeApi(lambda verb, path: "")
    made.put(f"{NODES}/good", node("good", "False"))
    made.put(BAD, node("bad", "False"))
    _lease_held_by(made, "another_1")
    yield made
    made.close()


def _lease_held_by(api: FakeApi, holder: str) -> None:
    spec = {"holderIdentity": holder, "leaseDurationSeconds": 3600}
    meta = {"name": "selfheal-remediator", "namespace": "d", "creationTimestamp": stamp(60)}
    api.put(LEASE, {"kind": "Lease", "metadata": meta, "spec": spec})


def _older_remediator(api: FakeApi) -> None:
    """Another one, which comes first."""
    older = {"holderIdentity": "theirs", "leaseDurationSeconds": 3600, "renewTime": stamp(0)}
    meta = {"namespace": "d", "labels": {LABEL: "true"}, "creationTimestamp": stamp(86400)}
    api.put(f"{LEASE}-2", {"metadata": {"name": "selfheal-remediator-2", **meta}, "spec": older})


def _goes_bad(api: FakeApi, later: float) -> None:
    raw = node("bad", "True")
    for item in raw["status"]["conditions"]:
        item["lastHeartbeatTime"] = stamp(-later)
    api.put(BAD, raw)


def _is_bad(remediator: Remediator) -> bool:
    entry = remediator.planner.entry_named("bad")
    return entry is not None and entry.node.conditions["Fault"].status == "True"


def _limited(remediator: Remediator, limit: str) -> bool:
    name = "selfheal_remediator_limited_nodes"
    return bool(sample(remediator.metrics.registry, name, limit=limit))


@pytest.mark.parametrize(
    ("limit", "pace"),
    [("rate", {"rate": {"count": 2, "window": "1h"}}), ("minInterval", {"minInterval": "1h"})],
)
def test_a_standby_older_than_the_window_learns_the_pace_from_the_nodes(
    api: FakeApi, limit: str, pace: dict[str, object]
) -> None:
    rule = {"condition": "Fault", "for": 0, "action": "cordon"}
    values = {
        "rules": [rule],
        "limits": {"maxUnavailable": "100%", **pace},
        "policies": {"enabled": False},
    }
    with running(api, Config.model_validate(values)) as remediator:
        until("it knows the nodes", lambda: remediator.known_once)
        advance(remediator, TWO_HOURS)
        for name in ("good", "other"):  # cordoned by its predecessor, and healthy again
            before = remediator.clock() - 600
            healed = State(Phase.HEALED, "d/selfheal-remediator", cordons=(int(before),))
            raw = node(name, "False")
            raw["metadata"]["annotations"][STATE_KEY] = healed.to_json()
            api.put(f"{NODES}/{name}", raw)
        _goes_bad(api, TWO_HOURS)
        _lease_held_by(api, "")
        until(
            "it acts or limits",
            lambda: _limited(remediator, limit) or "unschedulable" in api.get(BAD)["spec"],
        )
        assert "unschedulable" not in api.get(BAD)["spec"]


def test_one_that_leads_no_more_does_not_say_that_it_is_read_only(api: FakeApi) -> None:
    """It would say so for ever: only a leader looks whether the other one is still there."""
    _older_remediator(api)
    _lease_held_by(api, "")
    with running(api, Config.model_validate({"policies": {"enabled": False}})) as remediator:

        def read_only() -> float:
            return sample(remediator.metrics.registry, "selfheal_remediator_read_only")

        until("it finds the other", read_only)
        remediator.post(lambda: remediator.leadership.lead(False))
        until("it says so no more", lambda: not read_only())


def test_one_that_is_read_only_keeps_nothing_of_nodes_that_are_gone(api: FakeApi) -> None:
    """It is for months, perhaps, and machines come and go."""
    _older_remediator(api)
    _lease_held_by(api, "")
    with running(api, Config.model_validate({"policies": {"enabled": False}})) as remediator:
        entries = remediator.planner.entries
        registry = remediator.metrics.registry
        until("it is read-only", lambda: sample(registry, "selfheal_remediator_read_only"))
        until("it knows the nodes", lambda: remediator.synced)
        uid = api.put(f"{NODES}/short", node("short", "False"))["metadata"]["uid"]
        until("it is there", lambda: uid in entries)
        api.put(f"{NODES}/short", None)
        until("it is gone", lambda: uid not in entries)
        ticks = {remediator.last_tick}

        def continued() -> bool:
            remediator.post(lambda: None)
            ticks.add(remediator.last_tick)
            return len(ticks) > 2  # so a whole turn came after that

        until("it continues", continued)
        kept: list[set[str]] = []
        remediator.post(lambda: kept.append(remediator.planner.take_changed()))
        until("it says", lambda: kept)
        assert uid not in kept[0]


#: What a process says of itself, whoever acts.
OF_ITSELF = {
    *("leader", "read_only", "paused", "config_last_reload_successful"),
    *("last_reconcile_timestamp_seconds", "nodes_watch_age_seconds"),
}


def test_one_that_is_read_only_says_nothing_of_nodes_and_objects_any_more(api: FakeApi) -> None:
    """What it says would be of the moment in which the other one began, perhaps months ago."""
    rule = {"condition": "Fault", "for": 0, "action": "drain"}
    config = Config.model_validate(
        {
            "rules": [rule, {**rule, "condition": "Other"}],
            "limits": {"maxUnavailable": 1},
            "restore": {"enabled": True, "configMap": CONFIG_MAP},
        }
    )
    for name in ("bad", "good"):  # one of them waits for a limit
        api.put(f"{NODES}/{name}", node(name, "True"))
    api.put(f"/api/v1/namespaces/d/configmaps/{CONFIG_MAP}", config_map(deployment()))
    api.disturb = lambda verb, path: "403" if path.endswith("/r-worker") else ""
    _lease_held_by(api, "")

    def values() -> dict[str, float]:
        return {
            metric.name.removeprefix("selfheal_remediator_"): sum(
                one.value for one in metric.samples
            )
            for metric in remediator.metrics.registry.collect()
            if metric.type == "gauge" and metric.name.startswith("selfheal_")
        }

    def value(name: str) -> float:
        return values()[name]

    with running(api, config) as remediator:
        names = ("cordoned_nodes", "cordoned_node_info", "nodes", "limited_nodes")
        for name in (*names, "restore_missing_objects"):
            until_later(remediator, f"it counts {name}", partial(value, name))
        _older_remediator(api)
        until_later(remediator, "it is read-only", lambda: values()["read_only"])
        until_later(
            remediator,
            "it says no more",
            lambda: not any(value for name, value in values().items() if name not in OF_ITSELF),
        )
        assert values()["leader"] == 1  # of its own Lease
        api.put(f"{LEASE}-2", None)
        for name in (*names, "restore_missing_objects"):
            until_later(remediator, f"it counts {name} again", partial(value, name))


def test_one_that_is_read_only_watches_no_policies_until_it_acts(api: FakeApi) -> None:
    """It would keep each owner of pods that come and go, and read none of them."""
    _older_remediator(api)
    _lease_held_by(api, "")
    with running(api, Config.model_validate({})) as remediator:
        read_only = partial(sample, remediator.metrics.registry, "selfheal_remediator_read_only")
        until("it is read-only", read_only)
        assert not remediator.healer.listed
        remediator.reconfigure(Config.model_validate({"policies": {"evaluationInterval": "5s"}}))
        done = threading.Event()
        remediator.post(done.set)
        until("it has taken that in", done.is_set)
        assert not remediator.healer.listed
        api.put(f"{LEASE}-2", None)
        until_later(remediator, "it acts", lambda: not read_only())
        until("it watches them", lambda: remediator.healer.listed)


def test_terms_and_configurations_leave_no_threads_behind(api: FakeApi) -> None:
    with running(api, Config.model_validate({})) as remediator:
        until("it knows the nodes", lambda: remediator.known_once)
        healer = remediator.healer
        before = healer.probe_workers
        healer.begin()
        assert healer.probe_workers is before
        wider = Config.model_validate({"policies": {"progressConcurrency": 9}})
        healer.config = wider
        healer.begin()
        assert healer.probe_workers.limit == 9


@pytest.mark.parametrize("key", [PAUSE_KEY, STOP_KEY])
def test_what_waits_to_be_sent_is_stopped_by_a_pause(api: FakeApi, key: str) -> None:
    _lease_held_by(api, "")
    with running(api, Config.model_validate({"policies": {"enabled": False}})) as remediator:
        until("it leads", lambda: remediator.leader.leading)
        begun = remediator.parts.api.fence()
        with api.changing(LEASE) as raw:
            raw["metadata"].setdefault("annotations", {})[key] = stamp(-3600)
        authority = remediator.parts.authority
        until("it is heard", lambda: bool(authority.paused or authority.stopped_until))
        assert remediator.parts.api.fence() != begun


def test_while_it_is_uninstalled_it_changes_nothing(api: FakeApi) -> None:
    values = {
        "rules": [{"condition": "Fault", "for": 0, "action": "cordon"}],
        "limits": {"maxUnavailable": "100%"},
        "policies": {"enabled": False},
    }
    _lease_held_by(api, "")
    with api.changing(LEASE) as raw:
        raw["metadata"]["annotations"] = {STOP_KEY: stamp(-3600)}
    with running(api, Config.model_validate(values)) as remediator:
        authority = remediator.parts.authority
        until("it is stopped", lambda: authority.stopped_until > 0 and remediator.synced)
        _goes_bad(api, 0.0)
        until("it knows", lambda: _is_bad(remediator))
        assert "unschedulable" not in api.get(BAD)["spec"]
        with api.changing(LEASE) as raw:
            raw["metadata"]["annotations"] = {STOP_KEY: stamp(0)}
        until("it continues", lambda: "unschedulable" in api.get(BAD)["spec"])
