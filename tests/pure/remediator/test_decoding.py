"""A field that is not of its type is refused, and a pod is read in one way, whoever needs it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from selfheal_remediator.failures import Malformed
from selfheal_remediator.healing.owners import GENERATION, REVISION, owner_of
from selfheal_remediator.healing.pod_health import watched_from_json
from selfheal_remediator.kube.budgets import budget_from_json
from selfheal_remediator.kube.lease import lease_from_json
from selfheal_remediator.kube.objects import node_from_json
from selfheal_remediator.kube.pods import PodBase, pod_from_json
from tests.pure.remediator.api_objects import BUDGET, LEASE, NODE, POD, T0, Json
from tests.pure.remediator.healing_world import watched

_PEERS = {
    "labelSelector": {
        "matchLabels": {"app": "web"},
        "matchExpressions": [{"key": "k", "operator": "In", "values": ["v"]}],
    },
    "namespaces": ["other"],
    "namespaceSelector": {"matchLabels": {"a": "b"}},
    "matchLabelKeys": ["app"],
    "topologyKey": "zone",
}
_AFFINITY = {
    "nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [
                {
                    "matchExpressions": [{"key": "k", "operator": "In", "values": ["v"]}],
                    "matchFields": [
                        {"key": "metadata.name", "operator": "In", "values": ["n1"]},
                    ],
                }
            ]
        }
    },
    "podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [_PEERS]},
    "podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [_PEERS]},
}
_SPREAD = {
    **{key: _PEERS[key] for key in ("labelSelector", "matchLabelKeys", "topologyKey")},
    "maxSkew": 2,
    "minDomains": 3,
    "whenUnsatisfiable": "DoNotSchedule",
    "nodeAffinityPolicy": "Ignore",
    "nodeTaintsPolicy": "Honor",
}
_CONTAINER = {
    "name": "c",
    "resources": {"requests": {"cpu": "100m"}, "limits": {"memory": "64Mi"}},
    "ports": [
        {
            "name": "http",
            "containerPort": 8080,
            "hostPort": 80,
            "hostIP": "10.0.0.9",
            "protocol": "UDP",
        }
    ],
    "startupProbe": {"initialDelaySeconds": 1, "periodSeconds": 2, "failureThreshold": 4},
}
_ENDED = {"exitCode": 1, "reason": "Error", "startedAt": T0, "finishedAt": "2026-01-01T00:00:09Z"}
_WAITS = {
    "name": "c",
    "restartCount": 1,
    "started": False,
    "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "so"}},
    "lastState": {"terminated": _ENDED},
}
_RUNS = {**_WAITS, "name": "d", "state": {"running": {"startedAt": T0}}}


def _full() -> Json:
    """A pod with every field that is read."""
    raw = copy.deepcopy(POD)
    raw["metadata"] |= {
        "generateName": "p",
        "deletionTimestamp": T0,
        "deletionGracePeriodSeconds": 5,
        "annotations": {"selfheal.dev/evict": "true", "karpenter.sh/do-not-disrupt": "4h"},
        "labels": {"app": "web", "controller-revision-hash": "r1"},
    }
    raw["spec"] |= {
        "affinity": _AFFINITY,
        "topologySpreadConstraints": [_SPREAD],
        "schedulerName": "other",
        "schedulingGates": [{"name": "g"}],
        "resourceClaims": [{"name": "claim"}],
        "overhead": {"cpu": "1m"},
        "resources": {"requests": {"cpu": "2"}, "limits": {"memory": "1Gi"}},
        "containers": [_CONTAINER, {**_CONTAINER, "name": "d"}],
        "initContainers": [{**_CONTAINER, "name": "i", "restartPolicy": "Always"}],
    }
    raw["status"] |= {
        "startTime": T0,
        "initContainerStatuses": [{"name": "i", "state": {"terminated": _ENDED}}],
        "containerStatuses": [_WAITS, _RUNS],
        "conditions": [
            {"type": "Ready", "status": "True", "lastTransitionTime": T0},
            {"type": "PodScheduled", "status": "False", "message": "0/3 nodes"},
        ],
    }
    return copy.deepcopy(raw)


_META = {"name": "o", "namespace": "d", "uid": "u", "generation": 2}


def _owner(spec: Json, status: Json, annotation: str = "a") -> Json:
    return {
        "metadata": {**_META, "annotations": {annotation: "7"}},
        "spec": {"replicas": 3, "minReadySeconds": 4, **spec},
        "status": {"observedGeneration": 2, "updatedReplicas": 1, **status},
    }


#: A controller of each kind, in a rollout.
OWNERS = {
    "Deployment": _owner(
        {"progressDeadlineSeconds": 600, "paused": True},
        {
            "replicas": 3,
            "availableReplicas": 2,
            "conditions": [{"type": "Progressing", "status": "True", "reason": "so"}],
        },
        REVISION,
    ),
    "StatefulSet": _owner(
        {"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}},
        {"currentRevision": "a", "updateRevision": "b"},
    ),
    "DaemonSet": _owner(
        {"updateStrategy": {"type": "RollingUpdate"}},
        {"desiredNumberScheduled": 3, "updatedNumberScheduled": 1, "numberAvailable": 2},
        GENERATION,
    ),
}


def _owner_reader(kind: str) -> Callable[[Json], Any]:
    """Reads a controller as it is looked up for a pod."""

    def read(raw: Json) -> Any:
        pod = watched("p", owner_kind=kind, owner_api="apps/v1", owner_name="o", owner_uid="u")
        return owner_of(pod, lambda *_: raw)

    return read


#: One of each type that JSON has, empty and not.
VALUES: tuple[Any, ...] = (
    *(0, 5, 1.5, True, False, "", "text", "5"),
    *([], ["text"], [5], [[]], [{}], {}, {"a": []}, {"a": "b"}),
)


def _places(value: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    for key in value if isinstance(value, dict) else range(len(value)):
        yield (*before, key)
        if isinstance(value[key], dict | list):
            yield from _places(value[key], (*before, key))


def _with(good: Json, place: tuple[Any, ...], value: Any) -> Json:
    made: Any = copy.deepcopy(good)
    inner = made
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = copy.deepcopy(value)
    return dict(made)


def _at(good: Any, place: tuple[Any, ...]) -> Any:
    for key in place:
        good = good[key]
    return good


def _read(decode: Callable[[Json], Any], raw: Json) -> Any:
    """None = it is refused."""
    try:
        return decode(raw)
    except Malformed:
        return None


@pytest.mark.parametrize(
    ("decode", "good"),
    [
        (pod_from_json, _full()),
        (watched_from_json, _full()),
        (node_from_json, NODE),
        (budget_from_json, BUDGET),
        (lease_from_json, LEASE),
        *((_owner_reader(kind), raw) for kind, raw in OWNERS.items()),
    ],
    ids=["a drain's pod", "a policy's pod", "a node", "a budget", "a Lease", *OWNERS],
)
def test_a_field_of_another_type_is_refused_unless_nobody_reads_it(
    decode: Callable[[Json], Any], good: Json
) -> None:
    expected = decode(good)
    accepted = {
        (place, repr(value))
        for place in _places(good)
        if place[:2] != ("status", "allocatable") or len(place) == 2  # no quantity = no room
        for value in VALUES
        if type(value) is not type(_at(good, place))
        and _read(decode, _with(good, place, value)) not in (None, expected)
    }
    assert not accepted


SHARED = tuple(PodBase.__dataclass_fields__)


#: Of the metadata a drain alone reads these.
OF_DRAINS = ("karpenter.sh/do-not-disrupt", "generateName", "deletionGracePeriodSeconds")


def test_what_a_drain_and_a_policy_both_read_is_the_same_and_refused_alike() -> None:
    good = _full()
    for place in _places(good):
        for value in (*VALUES, None):
            raw = _with(good, place, value)
            drained, watched = _read(pod_from_json, raw), _read(watched_from_json, raw)
            if drained is None or watched is None:
                # Of the rest each reads what it needs.
                shared = place[0] == "metadata" and place[-1] not in OF_DRAINS
                assert drained is watched or not shared, (place, value)
                continue
            for name in SHARED:
                assert getattr(drained, name) == getattr(watched, name), (place, value)


@pytest.mark.parametrize("decode", [pod_from_json, watched_from_json])
@pytest.mark.parametrize("field", ["apiVersion", "kind", "name", "uid"])
def test_an_owner_that_is_not_named_in_full_is_refused(
    decode: Callable[[Json], Any], field: str
) -> None:
    """Not taken for no owner: what has none is treated in another way."""
    raw = _full()
    del raw["metadata"]["ownerReferences"][0][field]
    assert _read(decode, raw) is None


def test_a_pod_takes_no_more_memory_than_its_fields() -> None:
    for value in (pod_from_json(_full()), watched_from_json(_full())):
        assert not hasattr(value, "__dict__")
