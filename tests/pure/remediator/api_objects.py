"""Objects as a real API server writes them, and ways in which they can be broken."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import strategies as st

Json = dict[str, Any]
T0 = "2026-01-01T00:00:00Z"

NODE: Json = {
    "kind": "Node",
    "metadata": {
        "name": "n1",
        "uid": "u-n1",
        "resourceVersion": "7",
        "creationTimestamp": T0,
        "labels": {"kubernetes.io/hostname": "n1", "topology.kubernetes.io/zone": "z"},
        "annotations": {"selfheal.dev/state": '{"v":1,"phase":"healed","by":"a/b"}'},
    },
    "spec": {
        "unschedulable": True,
        "taints": [{"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}],
    },
    "status": {
        "allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110"},
        "nodeInfo": {"bootID": "b-1"},
        "conditions": [
            {
                "type": kind,
                "status": status,
                "reason": "Why",
                "message": "so",
                "lastTransitionTime": T0,
                "lastHeartbeatTime": T0,
            }
            for kind, status in (("Ready", "True"), ("KernelDeadlock", "False"))
        ],
    },
}
POD: Json = {
    "kind": "Pod",
    "metadata": {
        "namespace": "d",
        "name": "p1",
        "uid": "u-p1",
        "resourceVersion": "8",
        "creationTimestamp": T0,
        "labels": {"app": "web"},
        "annotations": {"selfheal.dev/evict": "false"},
        "finalizers": ["a/b"],
        "ownerReferences": [
            {
                "apiVersion": "apps/v1",
                "kind": "ReplicaSet",
                "name": "rs",
                "uid": "u",
                "controller": True,
            }
        ],
    },
    "spec": {
        "nodeName": "n1",
        "priority": 5,
        "terminationGracePeriodSeconds": 30,
        "nodeSelector": {"a": "b"},
        "tolerations": [{"key": "k", "operator": "Exists", "effect": "NoExecute"}],
        "containers": [
            {
                "name": "c",
                "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}},
                "ports": [{"name": "http", "containerPort": 8080}],
            }
        ],
        "volumes": [
            {"name": "v", "emptyDir": {}},
            {"name": "w", "persistentVolumeClaim": {"claimName": "x"}},
        ],
    },
    "status": {
        "phase": "Running",
        "podIP": "10.0.0.1",
        "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": T0}],
        "containerStatuses": [
            {
                "name": "c",
                "restartCount": 1,
                "started": True,
                "state": {"running": {"startedAt": T0}},
                "lastState": {"terminated": {"exitCode": 1, "reason": "Error", "finishedAt": T0}},
            }
        ],
    },
}
BUDGET: Json = {
    "metadata": {
        "namespace": "d",
        "name": "b",
        "uid": "u-b",
        "resourceVersion": "9",
        "generation": 2,
    },
    "spec": {
        "selector": {
            "matchLabels": {"app": "web"},
            "matchExpressions": [{"key": "k", "operator": "In", "values": ["v"]}],
        },
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
    },
    "status": {
        "disruptionsAllowed": 1,
        "currentHealthy": 2,
        "desiredHealthy": 1,
        "expectedPods": 2,
        "observedGeneration": 2,
    },
}
LEASE: Json = {
    "metadata": {
        "namespace": "d",
        "name": "l",
        "uid": "u-l",
        "resourceVersion": "3",
        "creationTimestamp": T0,
        "annotations": {"selfheal.dev/paused": "because"},
    },
    "spec": {
        "holderIdentity": "me",
        "renewTime": "2026-01-01T00:00:00.000000Z",
        "leaseTransitions": 1,
        "leaseDurationSeconds": 15,
    },
}
POLICY: Json = {
    "metadata": {
        "namespace": "d",
        "name": "h",
        "uid": "u-h",
        "resourceVersion": "4",
        "generation": 1,
        "creationTimestamp": T0,
    },
    "spec": {
        "selector": {"matchLabels": {"app": "web"}},
        "healthThreshold": "50%",
        "unhealthyWhen": {"notReadyFor": "5m", "noProgressFor": "60s"},
        "progress": {"port": 8080},
        "restart": {"backoff": "5s", "maxPerHour": 6},
    },
    "status": {"observedGeneration": 1, "restarts": 2, "lastHealTime": T0},
}

#: What may stand where something else belongs.
WRONG: st.SearchStrategy[Any] = st.sampled_from(
    [
        *(None, True, False, 0, -1, 10**30, 0.5, "", "x", "false", "\ud800", "9" * 50),
        *([], {}, [None], ["x"], [1], {"x": None}, {"x": {}}, [[]], "0001-01-01T00:00:00"),
    ]
)


def places(value: Any) -> list[tuple[Any, ...]]:
    """The path of everything inside."""
    found: list[tuple[Any, ...]] = []
    entries: Any = ()
    if isinstance(value, dict):
        entries = value.items()
    elif isinstance(value, list):
        entries = enumerate(value)
    for key, inner in entries:
        found.append((key,))
        found += [(key, *path) for path in places(inner)]
    return found


@st.composite
def broken(draw: st.DrawFn, good: Json) -> Json:
    """The object with up to four pieces missing or of another type."""
    made = copy.deepcopy(good)
    for _ in range(draw(st.integers(1, 4))):
        there = places(made)
        if not there:
            break
        *path, last = draw(st.sampled_from(there))
        target: Any = made
        for part in path:
            target = target[part]
        if draw(st.booleans()):
            target[last] = copy.deepcopy(draw(WRONG))
        else:
            del target[last]
    return made
