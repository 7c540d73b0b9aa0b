"""What the healing of pods is told, and what it answers: values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from selfheal_remediator.healing.canary import Canary
from selfheal_remediator.healing.pod_health import Cause, WatchedPod
from selfheal_remediator.healing.policy import Status


@dataclass(frozen=True, slots=True)
class Owner:
    """What stands behind a pod: the topmost controller known (Deployment, StatefulSet, …).

    desired: pods that it wants, None = it has no such number. rolling: why its pods are in the
    middle of a change, empty = they are not. template: names its present pod template.
    stopped: why a change of its pods does not go on, by its own word, empty = it says nothing.
    unseen: its controller has not seen its last change: nothing replaces its pods meanwhile.
    progress: counts that grow while its pods are changed. deadline: seconds that it allows
    without progress, None = it does not say; patience: seconds that each step may take beside.
    renews: the revision that a restarted pod has, empty = not known.
    """

    uid: str
    kind: str
    name: str
    api: str
    desired: int | None
    rolling: str = ""
    template: str = ""
    stopped: str = ""
    unseen: bool = False
    progress: tuple[int, ...] = ()
    deadline: float | None = None
    patience: float = 0.0
    renews: str = ""


@dataclass(frozen=True, slots=True)
class Around:
    """What a look needs beside the pods.

    node_trouble: why pods of a node are left alone, empty = they are not. node_path: whether a
    finding on the node would be acted upon by the rules for nodes. stopped: why nothing may be
    restarted at all (paused, API server ill), empty = it may. listed: whether all policies are
    known.
    """

    node_trouble: Callable[[str], str]
    node_path: Callable[[str], bool]
    stopped: str = ""
    listed: bool = True


@dataclass(frozen=True, slots=True)
class SkipReason:
    """Why an ill pod is not restarted now. `cause` is a bounded label; `until`: when time alone
    lifts it."""

    cause: str
    text: str
    until: float | None = None


#: Every cause of a Block that the engine itself gives (refusals of the server add theirs).
BLOCKS = (
    "stale", "paused", "stopped", "other-policy", "unmanaged", "kept", "node", "siblings",
    "node-finding", "under-way", "leaving", "owner-unknown", "rollout", "scale-in", "gave-up",
    "backoff", "unobserved", "controller",
    "canary",
)  # fmt: skip
#: An ordered restart was called back before it was sent.
RECALLED = "recalled"


@dataclass(frozen=True, slots=True)
class RestartAction:
    """One pod to restart. `status` is written down first; grace in seconds, None = its own.

    stuck: why it is restarted although its owner is being rolled out, empty = it is not.
    before: the owner's canary before this restart. canary: what the status must hold before the
    eviction is sent, because all pods of the owner are unhealthy; None = nothing.
    """

    policy: str
    pod: WatchedPod
    owner: Owner
    cause: Cause
    why: str
    grace: int | None
    at: float
    status: Status
    stuck: str = ""
    before: Canary | None = None
    canary: Canary | None = None


@dataclass(frozen=True, slots=True)
class Notice:
    """Something to say as an Event, on the policy and on the owner (None = the policy only)."""

    policy: str
    owner: Owner | None
    reason: str
    message: str
    warning: bool


@dataclass(frozen=True, slots=True)
class Probe:
    """A pod to be asked how its work goes."""

    policy: str
    uid: str
    address: str
    port: int
    path: str


@dataclass(frozen=True, slots=True)
class Finding:
    """Pods of several owners are ill on one node and well elsewhere."""

    node: str
    since: float
    text: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do now. lookups: a pod each of controllers of which nothing is known.

    recalls: orders of earlier that must not be sent any more, and why.
    """

    orders: tuple[RestartAction, ...] = ()
    recalls: tuple[tuple[RestartAction, SkipReason], ...] = ()
    notices: tuple[Notice, ...] = ()
    probes: tuple[Probe, ...] = ()
    lookups: tuple[WatchedPod, ...] = ()
    wake: float | None = None
